#pragma once
#include "tests/emulation/emulation.h"

#include <nccl.h>
#include <pthread.h>

/**
 * A communicator of the emulated NCCL. Ranks are processes, or threads, that meet over TCP at the address in
 * the unique id, on one machine or several. Each rank is connected with each other one; connections end with their processes
 * however those end. A destroyed communicator's memory stays, since work that was queued for it may still come to its turn.
 */
enum { MOST_RANKS = 16, COMMUNICATOR_TEXT = 200 };

enum communicator_state { OPENING, READY, FINALIZED, ABORTED };

/** What one call puts on a stream. */
struct operation {
    const struct collective_row *row; /**< collective.c */
    ncclComm_t comm;
    uint64_t sequence; /**< from 1 */
    const void *from;
    void *to;
    size_t count; /**< of elements: all of them, or for an all-gather one rank's */
    ncclDataType_t type;
    int root;
    cudaStream_t stream;
};

struct ncclComm {
    ncclUniqueId id;
    int rank, ranks, device;
    int listener, sockets[MOST_RANKS]; /**< by rank, -1: none. The opener's, then those of the work that runs */
    int wake;                          /**< eventfd, readable once it is aborted */
    pthread_t opener;

    pthread_mutex_t lock; /**< guards what follows; before those of emulation.h */
    pthread_cond_t changed;
    enum communicator_state state;
    ncclResult_t error; /**< asynchronous, the first */
    char text[COMMUNICATOR_TEXT];
    uint64_t queued, done;     /**< operations */
    bool running;              /**< one of them is at the sockets */
    struct operation accepted; /**< polls > 0: a call that NCCL works on in the background */
    int polls;                 /**< how often that is still answered with ncclInProgress */
};

/** Whether it is a live communicator; else a finding. */
bool communicator_check(ncclComm_t comm, const char *who);
/** Keeps the first asynchronous error. Returns false. */
bool communicator_fail(ncclComm_t comm, ncclResult_t error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/** Meets the other ranks. False: aborted, or it failed. */
bool bootstrap(ncclComm_t comm);

/** Bytes to and from one peer. */
struct transfer {
    const void *out;
    size_t out_bytes;
    void *in;
    size_t in_bytes;
};
/**
 * Moves everything, both ways and with all peers at once; waits for ever for a peer that says nothing. transfers: one by rank,
 * used up. False: aborted, or a peer is gone, which is ncclRemoteError.
 */
bool exchange(ncclComm_t comm, struct transfer transfers[MOST_RANKS]);

/** Queues an operation on its stream. With the communicator's lock. */
ncclResult_t operation_enqueue(const struct operation *operation);
