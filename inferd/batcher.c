#include "inferd/batcher.h"
#include "common/base/clock.h"
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct batcher {
    struct batcher_spec spec;
    pthread_mutex_t mutex; /* guards all below */
    pthread_cond_t changed;
    struct lanes lanes;
    bool closed;
};

struct batcher *batcher_create(const struct batcher_spec *spec) {
    struct batcher *batcher = calloc(1, sizeof *batcher);
    if (!batcher) {
        return NULL;
    }
    batcher->spec = *spec;
    batcher->spec.takers = spec->takers > 1 ? spec->takers : 1;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* clock_now_ns's clock */
    pthread_cond_init(&batcher->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&batcher->mutex, NULL);
    return batcher;
}

void batcher_destroy(struct batcher *batcher) {
    if (batcher) {
        pthread_cond_destroy(&batcher->changed);
        pthread_mutex_destroy(&batcher->mutex);
        free(batcher);
    }
}

void batcher_push(struct batcher *batcher, struct job *job) {
    pthread_mutex_lock(&batcher->mutex);
    job->batch_ns = clock_now_ns();
    lanes_push(&batcher->lanes, job);
    pthread_cond_signal(&batcher->changed);
    pthread_mutex_unlock(&batcher->mutex);
}

void batcher_close(struct batcher *batcher) {
    pthread_mutex_lock(&batcher->mutex);
    batcher->closed = true;
    pthread_cond_broadcast(&batcher->changed);
    pthread_mutex_unlock(&batcher->mutex);
}

static int batch_limit(const struct batcher *batcher, const struct model *model) {
    return model->max_batch < batcher->spec.max_batch ? model->max_batch : batcher->spec.max_batch;
}

/** Whether what waits is to be handed out now; else until when to wait for more, INT64_MAX for ever. Locked.
 */
static bool is_due(const struct batcher *batcher, int64_t now_ns, int64_t *until_ns) {
    *until_ns = INT64_MAX;
    if (batcher->lanes.count == 0) {
        return batcher->closed;
    }
    *until_ns = lanes_oldest_ns(&batcher->lanes) + batcher->spec.max_delay_us * 1000;
    return batcher->closed || now_ns >= *until_ns ||
           batcher->lanes.count >= batch_limit(batcher, lanes_peek(&batcher->lanes)->model);
}

static void wait_until(struct batcher *batcher, int64_t until_ns) {
    if (until_ns == INT64_MAX) {
        pthread_cond_wait(&batcher->changed, &batcher->mutex);
        return;
    }
    struct timespec until = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
    pthread_cond_timedwait(&batcher->changed, &batcher->mutex, &until);
}

/**
 * How many of a model's jobs to take, of which one was taken already. The other takers come for their part as
 * soon as they are free: a large batch here would only let them idle.
 */
static int choose(const struct batcher *batcher, const struct model *model) {
    int limit = batch_limit(batcher, model), takers = batcher->spec.takers;
    int waiting = 1 + lanes_count_of(&batcher->lanes, model, takers * LADDER_MAX_IMAGES - 1);
    int part = (waiting + takers - 1) / takers;
    int take = model->ladder.count > 0 ? ladder_take(&model->ladder, part) : part;
    return take < limit ? take : limit;
}

/** Fills a batch with the most urgent job's model. Locked. */
static void fill(struct batcher *batcher, struct batch *out) {
    const struct model *model = NULL;
    int64_t now = clock_now_ns();
    int limit = MODEL_MAX_BATCH;
    while (out->count < limit && out->expired_count < MODEL_MAX_BATCH) {
        struct job *job = lanes_pop_of(&batcher->lanes, model);
        if (!job) {
            return;
        }
        if (job_expired(job, now)) {
            out->expired[out->expired_count++] = job;
            continue;
        }
        out->jobs[out->count++] = job;
        if (!model) {
            model = job->model;
            limit = choose(batcher, model);
        }
    }
}

bool batcher_take(struct batcher *batcher, struct batch *out) {
    int64_t until_ns;
    out->count = out->expired_count = 0;
    pthread_mutex_lock(&batcher->mutex);
    while (!is_due(batcher, clock_now_ns(), &until_ns)) {
        wait_until(batcher, until_ns);
    }
    fill(batcher, out);
    if (batcher->lanes.count > 0) {
        pthread_cond_signal(&batcher->changed); /* another taker may sleep through the time of what is left */
    }
    pthread_mutex_unlock(&batcher->mutex);
    return out->count + out->expired_count > 0;
}
