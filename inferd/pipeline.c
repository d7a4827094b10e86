#include "inferd/pipeline.h"
#include "common/base/text.h"
#include "common/base/queue.h"
#include "common/base/thread_pool.h"
#include "inferd/decode.h"
#include "inferd/worker.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct pipeline {
    struct pipeline_spec spec;
    struct thread_pool *pool;
    struct batcher *batcher;
    struct worker *workers[INSTANCES_MAX]; /* one an instance */
    struct queue *finished; /* holds max_jobs, so that pushing never waits */
    pthread_mutex_t mutex;  /* guards waiting; a leaf lock */
    struct lanes waiting;   /* for a decoding thread */
    atomic_int in_flight;   /* written by the submitter's thread only */
    size_t bytes;           /* the submitter's thread only */
};

static void complete(void *context, struct job *job) {
    struct pipeline *pipeline = context;
    queue_push(pipeline->finished, job, -1);
    pipeline->spec.notify(pipeline->spec.context);
}

/** One per waiting job; takes the most urgent one rather than the one that it was submitted for. */
static void decode_next(void *context) {
    struct pipeline *pipeline = context;
    pthread_mutex_lock(&pipeline->mutex);
    struct job *job = lanes_pop(&pipeline->waiting);
    pthread_mutex_unlock(&pipeline->mutex);
    if (decode_job(job, &pipeline->spec.limits)) {
        batcher_push(pipeline->batcher, job);
    } else {
        complete(pipeline, job);
    }
}

/** An inference thread for each instance. */
static bool start_workers(struct pipeline *pipeline, int count, struct error *err) {
    const struct pipeline_spec *spec = &pipeline->spec;
    spec->counters->instance_count = count;
    for (int i = 0; i < count; i++) {
        char *device = spec->counters->instances[i].device;
        (void)text_copy(device, DEVICE_TEXT_SIZE, instances_device(spec->instances, i));
        struct worker_spec worker = {.instance = i,
                                     .instances = spec->instances,
                                     .batcher = pipeline->batcher,
                                     .counters = spec->counters,
                                     .complete = complete,
                                     .context = pipeline};
        if (!(pipeline->workers[i] = worker_create(&worker, err))) {
            return false;
        }
    }
    return true;
}

static bool start(struct pipeline *pipeline, struct error *err) {
    const struct pipeline_spec *spec = &pipeline->spec;
    int instances = spec->instances ? spec->instances->count : 1;
    struct batcher_spec batcher = {
        .max_batch = spec->max_batch, .max_delay_us = spec->max_delay_us, .takers = instances};
    struct thread_pool_spec pool = {
        .threads = spec->decode_threads, .queue_limit = (size_t)spec->max_jobs, .name = "decode"};
    pipeline->finished = queue_create((size_t)spec->max_jobs);
    pipeline->batcher = batcher_create(&batcher);
    if (!pipeline->finished || !pipeline->batcher) {
        return error_set(err, ERROR_MEMORY, "no memory for the request queues");
    }
    return start_workers(pipeline, instances, err) && (pipeline->pool = thread_pool_create(&pool, err)) != NULL;
}

struct pipeline *pipeline_create(const struct pipeline_spec *spec, struct error *err) {
    struct pipeline *pipeline = calloc(1, sizeof *pipeline);
    if (!pipeline) {
        error_set(err, ERROR_MEMORY, "no memory for the request queues");
        return NULL;
    }
    pipeline->spec = *spec;
    pthread_mutex_init(&pipeline->mutex, NULL);
    if (!start(pipeline, err)) {
        pipeline_destroy(pipeline);
        return NULL;
    }
    return pipeline;
}

void pipeline_destroy(struct pipeline *pipeline) {
    if (!pipeline) {
        return;
    }
    thread_pool_destroy(pipeline->pool);
    if (pipeline->batcher) {
        batcher_close(pipeline->batcher);
    }
    for (int i = 0; i < INSTANCES_MAX; i++) {
        worker_destroy(pipeline->workers[i]);
    }
    batcher_destroy(pipeline->batcher);
    queue_destroy(pipeline->finished);
    pthread_mutex_destroy(&pipeline->mutex);
    free(pipeline);
}

bool pipeline_submit(struct pipeline *pipeline, struct job *job, struct error *err) {
    size_t size = job_image_bytes(job).len;
    if (pipeline->in_flight >= pipeline->spec.max_jobs) {
        return error_set(err, ERROR_BUSY, "%d requests wait already", pipeline->in_flight);
    }
    if (pipeline->bytes + size > pipeline->spec.max_bytes && pipeline->in_flight > 0) {
        return error_set(err, ERROR_BUSY, "the images of the requests that wait take %zu bytes already",
                         pipeline->bytes);
    }
    pthread_mutex_lock(&pipeline->mutex);
    lanes_push(&pipeline->waiting, job);
    pthread_mutex_unlock(&pipeline->mutex);
    pipeline->in_flight++;
    pipeline->bytes += size;
    /* The pool's queue holds max_jobs, so this fails only where memory ends; one job is then decoded here. */
    if (!thread_pool_try_submit(pipeline->pool, decode_next, pipeline)) {
        decode_next(pipeline);
    }
    return true;
}

struct job *pipeline_collect(struct pipeline *pipeline) {
    struct job *job = queue_pop(pipeline->finished, 0);
    if (job) {
        pipeline->in_flight--;
        pipeline->bytes -= job_image_bytes(job).len;
    }
    return job;
}

int pipeline_in_flight(const struct pipeline *pipeline) {
    return pipeline->in_flight;
}
