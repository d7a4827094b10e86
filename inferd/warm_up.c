#include "inferd/warm_up.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/** All threads of a warm-up, and what they share. */
struct warm_up {
    struct model *model;
    const struct instances *instances;
    int count; /* of instances */
    bool on_host;
    atomic_int begun[LADDER_MAX], measured[LADDER_MAX]; /* of a step: how many instances are so far */
    atomic_bool failed;
    pthread_mutex_t mutex; /* guards the model's ladder and err */
    struct error err;
};

/** One instance's. */
struct warmer {
    struct warm_up *all;
    int instance;
    pthread_t thread;
    float *images;
};

/** How long a batch waits for the processor says nothing of the batch. */
static int64_t cost_clock_ns(const struct warm_up *all) {
    return all->on_host ? clock_thread_ns() : clock_now_ns();
}

static bool fail(struct warm_up *all, const struct error *err) {
    pthread_mutex_lock(&all->mutex);
    if (all->err.code == ERROR_NONE) {
        all->err = *err;
    }
    pthread_mutex_unlock(&all->mutex);
    atomic_store(&all->failed, true);
    return false;
}

/** Computes a batch of that step once. False: it failed, here or elsewhere. */
static bool try_step(struct warmer *warmer, int step) {
    struct warm_up *all = warmer->all;
    float logits[MODEL_MAX_BATCH * MODEL_MAX_CLASSES];
    struct error err = {0};
    int images = all->model->ladder.images[step];
    if (!all->model->ops->compute(all->model, warmer->instance, warmer->images, images, logits, &err)) {
        error_prefix(&err, "warm-up with %d images", images);
        return fail(all, &err);
    }
    return !atomic_load(&all->failed);
}

/** Runs the step until as many instances as there are have come as far. */
static bool keep_busy(struct warmer *warmer, int step, const atomic_int *arrived) {
    bool ok = true;
    while (ok && atomic_load(arrived) < warmer->all->count) {
        ok = try_step(warmer, step);
    }
    return ok;
}

/** Small batches are run more often: little disturbs them much. */
static bool measure_step(struct warmer *warmer, int step) {
    struct warm_up *all = warmer->all;
    struct ladder *ladder = &all->model->ladder;
    int runs = 1 + all->model->max_batch / ladder->images[step];
    for (int run = 0; run < runs; run++) {
        int64_t start_ns = cost_clock_ns(all);
        if (!try_step(warmer, step)) {
            return false;
        }
        pthread_mutex_lock(&all->mutex);
        ladder_note(ladder, step, (double)(cost_clock_ns(all) - start_ns) / 1e3);
        pthread_mutex_unlock(&all->mutex);
    }
    return true;
}

static bool warm_step(struct warmer *warmer, int step) {
    struct warm_up *all = warmer->all;
    bool ok = try_step(warmer, step);
    atomic_fetch_add(&all->begun[step], 1);
    ok = ok && keep_busy(warmer, step, &all->begun[step]) && measure_step(warmer, step);
    atomic_fetch_add(&all->measured[step], 1);
    return ok && keep_busy(warmer, step, &all->measured[step]);
}

static void *run(void *context) {
    struct warmer *warmer = context;
    struct warm_up *all = warmer->all;
    struct error err = {0};
    instances_enter(all->instances, warmer->instance);
    warmer->images =
        calloc(recipe_values(&all->model->info.recipe) * (size_t)all->model->max_batch, sizeof *warmer->images);
    bool ok = warmer->images != NULL;
    if (!ok) {
        error_set(&err, ERROR_MEMORY, "no memory for the warm-up");
        fail(all, &err);
    }
    for (int step = 0; ok && step < all->model->ladder.count; step++) {
        ok = warm_step(warmer, step);
    }
    free(warmer->images);
    return NULL;
}

/** Starts the threads and waits for them. */
static void run_all(struct warm_up *all, struct warmer *warmers) {
    int started = 0, failed = 0;
    while (started < all->count && !failed) {
        warmers[started] = (struct warmer){.all = all, .instance = started};
        failed = pthread_create(&warmers[started].thread, NULL, run, &warmers[started]);
        started += failed ? 0 : 1;
    }
    if (failed) {
        struct error err = {0};
        error_set(&err, ERROR_IO, "cannot start a thread for the warm-up: %s", strerror(failed));
        fail(all, &err);
    }
    for (int i = 0; i < started; i++) {
        pthread_join(warmers[i].thread, NULL);
    }
}

bool warm_up_run(struct model *model, const struct instances *instances, bool on_host, struct error *err) {
    struct warmer warmers[INSTANCES_MAX];
    struct warm_up all = {
        .model = model, .instances = instances, .count = instances ? instances->count : 1, .on_host = on_host};
    pthread_mutex_init(&all.mutex, NULL);
    run_all(&all, warmers);
    pthread_mutex_destroy(&all.mutex);
    for (int step = 0; step < model->ladder.count && !all.failed; step++) {
        log_event(LOG_DEBUG, "batch_cost", "images=%d us=%.0f", model->ladder.images[step], model->ladder.cost_us[step]);
    }
    return !all.failed || error_set(err, all.err.code, "%s", all.err.message);
}
