#pragma once
#include "common/base/cpu.h"
#include <stdint.h>
#include <sys/types.h>

/** A child process of the supervisor. Plain data; zeroed is none. */
struct process {
    pid_t pid;  /**< 0: not started, or reaped */
    int words;  /**< descriptor on which it leaves its last words (a struct error); -1: none */
    int status; /**< waitpid's, once reaped */
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

/** Reaps the child where it has ended. True: it has, now or before. Never waits. */
bool process_ended(struct process *process);

/** Sends SIGTERM, the first time only. */
void process_terminate(struct process *process);

/** Sends SIGKILL. */
void process_kill(struct process *process);

/** Kills and waits, where it still runs; closes the descriptor. */
void process_fini(struct process *process);

/** The child's last words. False: it left none. */
bool process_last_words(struct process *process, struct error *out);
