#pragma once
#include "trainerd/cluster_message.h"
#include "trainerd/process.h"

/**
 * The ranks that this node runs in one generation: one worker process each, watched until all have ended.
 *
 * A worker is this program again, with `--worker RANK` at the end of its arguments and the environment of supervisor_worker_read.
 * Each gets its share of the node's processor cores, an OpenMP team of that size (OMP_NUM_THREADS, OMP_WAIT_POLICY,
 * GOMP_SPINCOUNT: read before main, hence the environment), a process group of its own, so that Ctrl-C in a terminal reaches it
 * only as our one SIGTERM, and dies with this process, whatever kills that. One thread, which must live as long as the workers
 * (Linux ties a child's death signal to the thread that made it).
 */
struct crew;

struct crew_spec {
    const char *program;    /**< NULL: this program */
    char *const *arguments; /**< NULL-ended, the program's name first */
    const char *endpoint;   /**< of the rendezvous */
    const char *address;    /**< that other nodes reach this one by; "": this machine alone */
    int node, slots;        /**< cores are shared by slots, however many of them have a rank */
    int first_device;       /**< the GPU of the first place */
    int share, shares;      /**< this process' share of the cores that it may run on, among others like it; 0 of 1: all */
    int threads;            /**< that compute in a rank; 0: as many as its share of cores has */
    bool active_wait;       /**< OpenMP teams spin between kernels; only where a rank owns its cores, else ignored */
};

/** Starts share->count workers; count 0: none. Borrows the specification. Returns owned. */
struct crew *crew_start(const struct crew_spec *spec, const struct cluster_share *share, struct error *err);
/** Kills what still runs and waits for it. Takes NULL. */
void crew_destroy(struct crew *crew);

/** Looks who has ended. Returns how many have, so far; crew_ends has them in the order in which they did. Never waits. */
int crew_reap(struct crew *crew);
const struct cluster_end *crew_ends(const struct crew *crew);
/** A rank whose process lives, and has been stopped (SIGSTOP) for at least that long; -1: none. */
int crew_stopped_rank(const struct crew *crew, int64_t at_least_ms);

/** Asks all to end: SIGTERM, the first time only. */
void crew_terminate(struct crew *crew);
/** Asks all to end at the next checkpoint: SIGUSR2, the first time only. */
void crew_regroup(struct crew *crew);
/** SIGKILL, to one rank (one of another node: nobody), or to all. */
void crew_kill_rank(struct crew *crew, int rank);
void crew_kill(struct crew *crew);
