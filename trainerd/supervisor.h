#pragma once
#include "common/base/error.h"
#include <stddef.h>
#include <stdint.h>

/**
 * Runs one generation of a training job on this machine: one worker process per rank, watched until all have
 * ended.
 *
 * A worker is this program again, with `--worker RANK` at the end of its arguments and the environment of
 * supervisor_worker_read. Each gets its share of the processor cores, an OpenMP team of that size
 * (OMP_NUM_THREADS, OMP_WAIT_POLICY, GOMP_SPINCOUNT: read before main, hence the environment), a process
 * group of its own, so that Ctrl-C in a terminal reaches it only as our one SIGTERM, and dies with the
 * supervisor, whatever kills that.
 *
 * What ends a run: every worker exits with 0; or one fails, falls silent or differs from the others: then the
 * rest is told to stop (SIGTERM), is killed (SIGKILL) after a grace time, and the error names the rank that
 * was the cause. SIGTERM or SIGINT to the supervisor (common/base/signals.h) is passed on once; a second one
 * kills at once. When supervisor_destroy returns, no process, socket or folder is left.
 */
struct supervisor;

struct supervisor_spec {
    const char *program;    /**< NULL: this program */
    char *const *arguments; /**< NULL-ended, the program's name first; `--worker RANK` is added */
    int ranks;
    uint64_t generation;
    int threads_per_rank; /**< 0: as many as the rank's share of cores has */
    bool
        active_wait; /**< OpenMP teams spin between kernels; only where a rank owns its cores, else ignored */
    int64_t join_timeout_ms; /**< for all to meet at the rendezvous; 0: none */
    int64_t hang_timeout_ms; /**< longest silence of a worker that has joined; 0: none. Above the collective's
                                time-out */
    int64_t grace_ms;        /**< from SIGTERM to SIGKILL */
    void *context;
    /** A worker's rendezvous_report; borrows all. False ends the run with that error. May be NULL. */
    bool (*on_report)(void *context, int rank, const char *kind, const void *data, size_t size,
                      struct error *err);
};

/**
 * Starts the workers. The calling thread must live as long as they (Linux ties a child's death signal to the
 * thread that made it). signals_install was called. Returns owned.
 */
struct supervisor *supervisor_start(const struct supervisor_spec *spec, struct error *err);

/**
 * Waits up to timeout_ms (at most 100) for something to happen and deals with it. *running becomes false once
 * no worker is left; then, and only then, the result is the job's: false with the error that ended it.
 */
bool supervisor_step(struct supervisor *supervisor, int64_t timeout_ms, bool *running, struct error *err);

/** Tells the workers to stop, as SIGTERM does. Repeated calls change nothing. */
void supervisor_stop(struct supervisor *supervisor);

/** Kills what still runs, waits for it, and cleans up. Takes NULL. */
void supervisor_destroy(struct supervisor *supervisor);

/** All of the above, for those with nothing else to do: start, step until the end, destroy. */
bool supervisor_run(const struct supervisor_spec *spec, struct error *err);

/** What a worker finds in its environment. */
struct supervisor_worker {
    int rank, world_size;
    int local_rank, local_ranks; /**< its place among the ranks of its node, and how many those are */
    int node;                    /**< 0: the coordinator's */
    int parts;                   /**< into which a rank's share of a batch is cut, in this generation */
    bool resumes;                /**< from the newest checkpoint, if there is one */
    uint64_t run;                /**< whose checkpoints are meant; 0: whatever the newest is */
    uint64_t generation;
    char endpoint[160];   /**< of the rendezvous */
    int error_descriptor; /**< where its last words go */
};

/** How a worker says what came of it. */
enum worker_exit {
    WORKER_EXIT_FINISHED = 0, /**< training has come to its end */
    WORKER_EXIT_FAILED = 1,   /**< its last words say why */
    WORKER_EXIT_STOPPED = 4,  /**< SIGTERM or SIGUSR1 ended training early; a checkpoint is there */
    WORKER_EXIT_REGROUP = 5,  /**< SIGUSR2 did, to go on with other ranks; a checkpoint is there */
};

/** In the worker: reads the environment. ERROR_STATE where no supervisor started this process. */
bool supervisor_worker_read(int rank, struct supervisor_worker *out, struct error *err);

/** In the worker, before it exits with a failure: tells the supervisor why, at any moment of its life. */
void supervisor_worker_failed(const struct supervisor_worker *worker, const struct error *err);
