#pragma once
#include "inferd/lanes.h"

/**
 * Gathers jobs into batches for one model at a time: urgent ones first, then in order of arrival. A batch is
 * handed out when as many wait as it can hold, or when its oldest job has waited max_delay; how many of those
 * that wait it gets, the model's ladder says. Several takers may ask: a batch goes to whichever is free, and
 * leaves the others their even part of what waits. Expired jobs are never part of a batch. Any thread; its mutex is
 * a leaf lock. Source: the dynamic batching of serving systems such as Triton, whose names for the two limits
 * these are.
 */
struct batcher;

struct batcher_spec {
    int max_batch;        /**< 1..MODEL_MAX_BATCH; a model's own limit holds too */
    int64_t max_delay_us; /**< 0: whatever is there when the worker is free */
    int takers;           /**< threads that call batcher_take; 0: one */
};

struct batch {
    int count; /**< of jobs, all with the same model and none of them expired */
    struct job *jobs[MODEL_MAX_BATCH];
    int expired_count; /**< of jobs whose time was over; their outcome is set */
    struct job *expired[MODEL_MAX_BATCH];
};

/** Returns owned, NULL where memory ends. */
struct batcher *batcher_create(const struct batcher_spec *spec);
/** Takes NULL. Nothing may be inside any more. */
void batcher_destroy(struct batcher *batcher);
/** Hands a job over. */
void batcher_push(struct batcher *batcher, struct job *job);
/** Waits for a batch. False: closed and empty. A batch may consist of expired jobs alone. */
bool batcher_take(struct batcher *batcher, struct batch *out);
/** From now on batches are handed out without delay, and batcher_take ends when all is out. */
void batcher_close(struct batcher *batcher);
