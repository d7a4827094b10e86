#include "inferd/worker.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/thread_slice.h"
#include "common/image/preprocess.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct worker {
    struct worker_spec spec;
    pthread_t thread;
    float *images;   /* room for the largest batch so far, (max_batch, C, H, W) */
    size_t capacity; /* of images, in floats */
    struct batch batch;
    struct error loss; /* why the device is lost; code NONE: it is not */
    float logits[MODEL_MAX_BATCH * MODEL_MAX_CLASSES];
};

static bool reserve(struct worker *worker, size_t values, struct error *err) {
    if (values <= worker->capacity) {
        return true;
    }
    free(worker->images);
    worker->images =
        calloc(values, sizeof *worker->images); /* what a short batch leaves unset must be finite */
    worker->capacity = worker->images ? values : 0;
    return worker->images || error_set(err, ERROR_MEMORY, "no memory for a batch of %zu values", values);
}

static bool compute(struct worker *worker, struct model *model, struct error *err) {
    const struct batch *batch = &worker->batch;
    if (worker->loss.code != ERROR_NONE) {
        *err = worker->loss;
        return false;
    }
    size_t values = recipe_values(&model->info.recipe);
    float *images = model->ops->images ? model->ops->images(model, worker->spec.instance) : NULL;
    if (!images && !reserve(worker, values * (size_t)model->max_batch, err)) {
        return false;
    }
    images = images ? images : worker->images;
    for (int i = 0; i < batch->count; i++) {
        preprocess_normalise(&model->info.recipe, batch->jobs[i]->grey, images + values * (size_t)i);
    }
    return model->ops->compute(model, worker->spec.instance, images, batch->count, worker->logits, err);
}

static void conclude(struct job *job, const float *logits) {
    struct error err = {0};
    const struct model_info *info = &job->model->info;
    if (!decide(info, job->point, logits, &job->verdict, &err)) {
        log_error("answer_refused", &err);
        job_fail(job, THORAX__V1__STATUS__STATUS_INTERNAL, &err);
        return;
    }
    if (job->model_changed) {
        decide_warn_changed(&job->verdict);
    }
    decide_warn(info, job->ask->age ? &job->ask->age->years : NULL, job->ask->view, &job->verdict);
    job->status = THORAX__V1__STATUS__STATUS_OK;
}

static void count(const struct worker *worker, int images, uint64_t compute_us) {
    struct counters *counters = worker->spec.counters;
    atomic_fetch_add(&counters->instances[worker->spec.instance].batches, 1);
    atomic_fetch_add(&counters->batches, 1);
    atomic_fetch_add(&counters->images, (uint64_t)images);
    atomic_fetch_add(&counters->compute_us, compute_us);
    histogram_record(&counters->batch_images, (uint64_t)images);
}

/** What a failure means beyond its batch. The model is not blamed for a device that is lost. */
static void take_failure(struct worker *worker, struct model *model, const struct error *err) {
    if (err->code != ERROR_LOST) {
        atomic_store(&model->broken, true);
        log_error("compute_failed", err);
    } else if (worker->loss.code == ERROR_NONE) {
        worker->loss = *err;
        atomic_fetch_add(&worker->spec.counters->lost, 1);
        log_error("device_lost", err);
    }
}

static void run_batch(struct worker *worker) {
    const struct batch *batch = &worker->batch;
    struct model *model = batch->jobs[0]->model;
    struct error err = {0};
    struct counters_instance *instance = &worker->spec.counters->instances[worker->spec.instance];
    int64_t start = clock_now_ns();
    atomic_store(&instance->computing_since_ms, clock_now_ms());
    bool ok = compute(worker, model, &err);
    atomic_store(&instance->computing_since_ms, 0);
    uint64_t compute_us = (uint64_t)(clock_now_ns() - start) / 1000;
    atomic_fetch_add(&instance->busy_us, compute_us);
    if (ok) {
        count(worker, batch->count, compute_us);
    } else {
        take_failure(worker, model, &err);
    }
    for (int i = 0; i < batch->count; i++) {
        struct job *job = batch->jobs[i];
        job->batch_us = (uint64_t)(start - job->batch_ns) / 1000;
        job->queue_us += job->batch_us;
        job->computed = true;
        job->compute_us = compute_us;
        if (ok) {
            conclude(job, worker->logits + i * model->info.class_count);
        } else {
            job_fail(job, THORAX__V1__STATUS__STATUS_INTERNAL, &err);
        }
    }
}

/** Whether others take what waits, since this one's device is lost. The last one stays, to refuse it. */
static bool leaves(const struct worker *worker) {
    const struct counters *counters = worker->spec.counters;
    return worker->loss.code != ERROR_NONE && atomic_load(&counters->lost) < counters->instance_count;
}

static void *run(void *argument) {
    struct worker *worker = argument;
    thread_slice_set(THREAD_SLICE_NORMAL); /* both before the team that computes is started: it inherits */
    instances_enter(worker->spec.instances, worker->spec.instance);
    while (!leaves(worker) && batcher_take(worker->spec.batcher, &worker->batch)) {
        for (int i = 0; i < worker->batch.expired_count; i++) {
            worker->spec.complete(worker->spec.context, worker->batch.expired[i]);
        }
        if (worker->batch.count > 0) {
            run_batch(worker);
        }
        for (int i = 0; i < worker->batch.count; i++) {
            worker->spec.complete(worker->spec.context, worker->batch.jobs[i]);
        }
    }
    return NULL;
}

struct worker *worker_create(const struct worker_spec *spec, struct error *err) {
    struct worker *worker = calloc(1, sizeof *worker);
    if (!worker) {
        error_set(err, ERROR_MEMORY, "no memory for an inference thread");
        return NULL;
    }
    worker->spec = *spec;
    int failed = pthread_create(&worker->thread, NULL, run, worker);
    if (failed) {
        error_set(err, ERROR_IO, "cannot start an inference thread: %s", strerror(failed));
        free(worker);
        return NULL;
    }
    return worker;
}

void worker_destroy(struct worker *worker) {
    if (worker) {
        pthread_join(worker->thread, NULL);
        free(worker->images);
        free(worker);
    }
}
