#pragma once
#include "tests/integration/pool_fixture.h"

#include <sys/types.h>

/*
 * A publisher in a process of its own, so that a test can kill it with SIGKILL at any moment: this very test
 * program, started once more. It takes any bytes for a model.
 */

/** What the process writes as it goes; it outlives it. */
struct publisher_counters {
    atomic_int starts;      /**< how often one has come up in this folder */
    atomic_ullong sent_bytes; /**< of models, by the newest */
};

struct publisher_process {
    pid_t pid; /**< 0: none */
    struct publisher_counters *counters;
};

/** First thing in main: true where this process was started to be a publisher; then main returns *code. */
bool publisher_process_main(int argc, char **argv, int *code);
/** Starts one on the pool's folder and endpoints, and waits until it is up. */
void publisher_process_start(struct publisher_process *process, struct pool *pool, enum publisher_activate activate);
/** SIGKILL, and waits until it is gone. */
void publisher_process_kill(struct publisher_process *process);
/** Takes a zeroed one. */
void publisher_process_fini(struct publisher_process *process);
