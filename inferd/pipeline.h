#pragma once
#include "common/image/image.h"
#include "inferd/counters.h"
#include "inferd/job.h"

/**
 * What lies between accepting a request and its answer: decoding threads, batcher, inference threads. Bounded
 * in jobs and in bytes: what is over the bound is refused at once and not queued. All that it accepted it
 * hands back.
 */
struct pipeline;

struct pipeline_spec {
    int decode_threads;   /**< at least 1 */
    int max_jobs;         /**< accepted and not yet collected */
    size_t max_bytes;     /**< of their images together */
    int max_batch;        /**< 1..MODEL_MAX_BATCH */
    int64_t max_delay_us; /**< that a batch may wait for company */
    const struct instances *instances; /**< borrowed: an inference thread each; NULL: one, not pinned */
    struct image_limits limits;
    struct counters *counters;     /**< borrowed */
    void (*notify)(void *context); /**< a finished job can be collected. Any thread; must not block */
    void *context;
};

/** Starts the threads. Returns owned, NULL on error. */
struct pipeline *pipeline_create(const struct pipeline_spec *spec, struct error *err);
/** Takes NULL. Everything accepted has been collected. */
void pipeline_destroy(struct pipeline *pipeline);

/** Takes the job, or refuses it with ERROR_BUSY and leaves it with the caller. One thread: the collector's.
 */
bool pipeline_submit(struct pipeline *pipeline, struct job *job, struct error *err);
/** The next finished job, back with its outcome; NULL where none is. One thread: the submitter's. */
struct job *pipeline_collect(struct pipeline *pipeline);
/** Jobs accepted and not yet collected. Any thread. */
int pipeline_in_flight(const struct pipeline *pipeline);
