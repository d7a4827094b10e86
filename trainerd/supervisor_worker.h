#pragma once
#include "trainerd/cluster_place.h"

/** How a worker's process ends. */
enum worker_exit {
    WORKER_EXIT_FINISHED = 0, /**< training has come to its end */
    WORKER_EXIT_FAILED = 1,   /**< its last words say why */
    WORKER_EXIT_STOPPED = 4,  /**< SIGTERM or SIGUSR1 ended training early; a checkpoint is there */
    WORKER_EXIT_REGROUP = 5,  /**< SIGUSR2 did, to go on with other ranks; a checkpoint is there */
};

/** What a worker finds in its environment. */
struct supervisor_worker {
    int rank, world_size;
    int local_rank, local_ranks; /**< its place among the ranks of its node, and how many those are */
    int node;                    /**< 0: the coordinator's */
    int device;                  /**< index of its GPU */
    int parts;                   /**< into which a rank's share of a batch is cut, in this generation; 0: as configured */
    bool resumes;                /**< from the newest checkpoint, if there is one */
    uint64_t run;                /**< whose checkpoints are meant; 0: whatever the newest is */
    uint64_t generation;
    char endpoint[CLUSTER_ENDPOINT_SIZE]; /**< of the rendezvous */
    char address[CLUSTER_ENDPOINT_SIZE];  /**< of this node, for other nodes; "": there are none */
    int error_descriptor;                 /**< where its last words go */
};

/** In the worker: reads the environment. ERROR_STATE where no supervisor started this process. */
bool supervisor_worker_read(int rank, struct supervisor_worker *out, struct error *err);

/** In the worker, before it exits with a failure: tells the supervisor why, at any moment of its life. */
void supervisor_worker_failed(const struct supervisor_worker *worker, const struct error *err);

/**
 * For whoever starts workers: the environment's variables (SUPERVISOR_VARIABLES). Numbers come first, then the texts, which are
 * left to the caller.
 */
enum { SUPERVISOR_NUMBERS = 9, SUPERVISOR_TEXTS = 2, SUPERVISOR_VARIABLES = SUPERVISOR_NUMBERS + SUPERVISOR_TEXTS };
void supervisor_worker_write(const struct supervisor_worker *worker, char values[SUPERVISOR_NUMBERS][24],
                             const char *(*variables)[2]);
extern const char supervisor_words_name[]; /**< the variable with error_descriptor */
