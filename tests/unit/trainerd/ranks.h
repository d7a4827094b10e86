#pragma once
#include "common/base/file.h"
#include "trainerd/collective/collective.h"

#include <stdio.h>
#include <unistd.h>

/*
 * For tests of collectives: ranks are real processes, forked by the test; they meet through files in a
 * private folder and leave what they found in memory that all share. A rank's exit code is its verdict: 0, or
 * a check that failed.
 */
enum { RANKS_MAX = 4, SLOTS = 16, VALUES = 64, TIMEOUT_MS = 20000 };

/** Shared by all ranks and the test. */
struct board {
    uint64_t hash[RANKS_MAX][SLOTS];
    volatile int ready[RANKS_MAX];
    struct error error[RANKS_MAX];
    int64_t took_ms[RANKS_MAX];
    float values[RANKS_MAX][VALUES]; /**< what a rank measured */
};

struct job {
    int rank, world_size;
    int64_t timeout_ms;
    struct board *board;
    char folder[64];
    bool opens; /**< the body opens the collective itself, and gets NULL */
    void (*body)(struct job *job, struct collective *collective);
};

/** In a rank's body, where cmocka's asserts would speak to nobody. */
#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "rank %d, line %d: %s\n", job->rank, __LINE__, #condition);                      \
            _exit(1);                                                                                        \
        }                                                                                                    \
    } while (0)

/** Returns owned, zeroed; board_destroy. */
struct board *board_create(void);
void board_destroy(struct board *board);

/** All jobs from now on open this engine instead of Gloo; "nccl" on the GPU whose index is the rank. */
void ranks_use(const char *engine);

/** Opens the engine as the job's rank, through files in job->folder. */
struct collective *open_rank(struct job *job, struct error *err);
/** With the spec's device, address and callback. */
struct collective *open_rank_as(struct job *job, struct collective_spec spec, struct error *err);

/** Runs the job's body in world_size processes; statuses are waitpid's. */
void run_ranks(struct job *job, int statuses[RANKS_MAX]);

/** Runs the body in world_size processes that must all end well. The board is the caller's. */
struct board *run_well(int world_size, void (*body)(struct job *job, struct collective *collective));

/** A thread's body: aborts the collective after 200 ms. */
void *abort_soon(void *collective);

/** collective_start of a piece of host memory. */
bool start(struct collective *collective, void *buffer, enum dtype dtype, int64_t count, int *ticket,
           struct error *err);
