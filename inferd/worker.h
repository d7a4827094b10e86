#pragma once
#include "inferd/batcher.h"
#include "inferd/counters.h"

/**
 * The inference thread: takes batches, normalises, computes, decides, and hands every job back with its
 * outcome. One worker owns the compute device's team of threads.
 */
struct worker;

struct worker_spec {
    struct batcher *batcher;                          /**< borrowed */
    struct counters *counters;                        /**< borrowed */
    void (*complete)(void *context, struct job *job); /**< called on the worker's thread; takes the job */
    void *context;
};

/** Starts the thread. Returns owned. */
struct worker *worker_create(const struct worker_spec *spec, struct error *err);
/** Waits until the batcher, which must be closed, is empty; frees. Takes NULL. */
void worker_destroy(struct worker *worker);
