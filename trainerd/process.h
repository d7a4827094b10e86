#pragma once
#include "common/base/cpu.h"
#include <stdint.h>
#include <sys/types.h>

/** A child process of the supervisor. Plain data; zeroed is none. */
struct process {
    pid_t pid;  /**< 0: not started, or reaped */
    int words;  /**< descriptor on which it leaves its last words (a struct error); -1: none */
    int status; /**< waitpid's, once reaped */
    int64_t stopped_ms; /**< monotonic, since when SIGSTOP or its like has kept it from running; 0: it runs */
    bool sent_term, sent_kill;
};

struct process_spec {
    const char *program;
    char *const *arguments;        /**< NULL-ended, argv */
    const char *const (*extra)[2]; /**< environment on top of ours, NULL-ended: name, value */
    const char *words_name; /**< environment variable that tells the child its descriptor for last words */
    const struct cpu_set *cores; /**< to run on */
};

/**
 * Starts a child in a process group of its own, that is killed when the calling thread ends. That the program
 * cannot be executed shows as exit code 127 and last words.
 */
bool process_start(const struct process_spec *spec, struct process *out, struct error *err);

/** Reaps the child where it has ended, and notes where it was stopped. True: it has ended, now or before. Never waits. */
bool process_ended(struct process *process);

/** Sends SIGTERM, the first time only. */
void process_terminate(struct process *process);

/** Sends any other signal. */
void process_signal(struct process *process, int number);

/** Sends SIGKILL. */
void process_kill(struct process *process);

/** Kills and waits, where it still runs; closes the descriptor. */
void process_fini(struct process *process);

/** The child's last words. False: it left none. */
bool process_last_words(struct process *process, struct error *out);
