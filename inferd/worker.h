#pragma once
#include "inferd/batcher.h"
#include "inferd/counters.h"

/**
 * An inference thread: takes batches, normalises, computes, decides, and hands every job back with its
 * outcome. There is one for each instance; it leads the team of threads that computes there, on the instance's
 * processors. Where its device is lost (ERROR_LOST) it computes nothing any more: what it has fails, and what waits is left to
 * the others, or, where it is the last one, fails too.
 */
struct worker;

struct worker_spec {
    int instance;                                     /**< of those of every model, from 0 */
    const struct instances *instances;                /**< borrowed; NULL: one, not pinned */
    struct batcher *batcher;                          /**< borrowed */
    struct counters *counters;                        /**< borrowed */
    void (*complete)(void *context, struct job *job); /**< called on the worker's thread; takes the job */
    void *context;
};

/** Starts the thread. Returns owned. */
struct worker *worker_create(const struct worker_spec *spec, struct error *err);
/** Waits until the batcher, which must be closed, is empty; frees. Takes NULL. */
void worker_destroy(struct worker *worker);
