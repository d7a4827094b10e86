#include "trainerd/loader.h"

#include "common/base/clock.h"
#include "common/base/thread_pool.h"
#include "common/image/preprocess.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* One batch of the ring. The plan (rows, samples) is made under the lock; a row's pixels are its thread's
 * until unfinished falls. */
struct slot {
    char *images;     /* (rows, row_bytes) */
    int32_t *labels;  /* (rows) */
    int32_t *samples; /* (rows) */
    int count;        /* rows with a sample */
    int unfinished;   /* of them, not loaded yet */
    int64_t epoch, step, position;
};

struct loader {
    struct loader_spec spec;
    int rows;
    size_t row_bytes; /* of an image: its values, or a picture with its variation */
    int64_t shard_begin, shard_end; /* of an evaluation */
    struct thread_pool *pool;
    struct slot *slots; /* (prefetch) */
    void *scratch;      /* (threads, scratch_bytes) */
    size_t scratch_bytes;

    pthread_mutex_t lock; /* guards all below, and the slots' counters; a leaf lock */
    pthread_cond_t room;  /* a slot was released, or stopping */
    pthread_cond_t ready; /* a batch is complete */
    bool stopping;
    int workers;      /* that took their scratch */
    int64_t planned;  /* batches whose rows are known */
    int next_row;     /* of the newest planned batch: the next to load */
    int64_t taken;    /* batches handed out */
    int64_t released; /* batches given back */
    double waited_ms;
};

static struct slot *slot_of(struct loader *loader, int64_t batch) {
    return &loader->slots[batch % loader->spec.prefetch];
}

static int64_t total_batches(const struct loader *loader) {
    if (loader->spec.sampler)
        return INT64_MAX;
    return (loader->shard_end - loader->shard_begin + loader->rows - 1) / loader->rows;
}

static void plan_training(struct loader *loader, struct slot *slot, int64_t batch) {
    const struct loader_spec *spec = &loader->spec;
    int64_t steps = spec->sampler->steps, step = spec->first_step + batch;
    slot->epoch = spec->first_epoch + step / steps;
    slot->step = step % steps;
    slot->count = loader->rows;
    const int32_t *share = sampler_share(spec->sampler, slot->epoch, slot->step, spec->rank, &slot->position);
    for (int row = 0; row < slot->count; row++) {
        slot->labels[row] = spec->labels[share[row]];
        slot->samples[row] = spec->indices[share[row]];
    }
}

static void plan_evaluation(struct loader *loader, struct slot *slot, int64_t batch) {
    const struct loader_spec *spec = &loader->spec;
    int64_t begin = loader->shard_begin + batch * loader->rows, left = loader->shard_end - begin;
    slot->epoch = 0;
    slot->step = batch;
    slot->position = begin;
    slot->count = left < loader->rows ? (int)left : loader->rows;
    memset(slot->images + (size_t)slot->count * loader->row_bytes, 0, (size_t)(loader->rows - slot->count) * loader->row_bytes);
    for (int row = 0; row < loader->rows; row++) {
        bool used = row < slot->count;
        slot->labels[row] = used ? spec->labels[begin + row] : -1;
        slot->samples[row] = used ? spec->indices[begin + row] : -1;
    }
}

/* Plans the next batch where the ring has room. The caller holds the lock. */
static bool plan_batch(struct loader *loader) {
    int64_t batch = loader->planned;
    if (batch >= total_batches(loader) || batch >= loader->released + loader->spec.prefetch)
        return false;
    struct slot *slot = slot_of(loader, batch);
    if (loader->spec.sampler)
        plan_training(loader, slot, batch);
    else
        plan_evaluation(loader, slot, batch);
    slot->unfinished = slot->count;
    loader->planned++;
    loader->next_row = 0;
    return true;
}

/* Waits for a row to load: all threads work on the oldest batch that has rows left. False: stopping. */
static bool take_row(struct loader *loader, struct slot **slot, int *row) {
    pthread_mutex_lock(&loader->lock);
    for (;;) {
        if (loader->stopping)
            break;
        if (loader->planned > 0 && loader->next_row < slot_of(loader, loader->planned - 1)->count) {
            *slot = slot_of(loader, loader->planned - 1);
            *row = loader->next_row++;
            break;
        }
        if (!plan_batch(loader))
            pthread_cond_wait(&loader->room, &loader->lock);
    }
    bool taken = !loader->stopping;
    pthread_mutex_unlock(&loader->lock);
    return taken;
}

static void load_row(const struct loader *loader, const struct slot *slot, int row, void *scratch) {
    const struct loader_spec *spec = &loader->spec;
    const uint8_t *grey = image_cache_get(spec->cache, slot->samples[row]);
    void *out = slot->images + (size_t)row * loader->row_bytes;
    if (!spec->augment_by_class) {
        preprocess_normalise(spec->recipe, grey, out);
        return;
    }
    struct rng rng;
    const struct augment *augment = spec->augment_by_class[slot->labels[row]];
    rng_init(&rng, spec->seed, RNG_AUGMENT, (uint64_t)slot->epoch, (uint32_t)(slot->position + row));
    if (spec->varied) {
        augment_draw(augment, &rng, spec->recipe, out);
        memcpy((struct variation *)out + 1, grey, recipe_pixels(spec->recipe));
    } else {
        augment_apply(augment, &rng, spec->recipe, grey, scratch, out);
    }
}

static void row_done(struct loader *loader, struct slot *slot) {
    pthread_mutex_lock(&loader->lock);
    if (--slot->unfinished == 0)
        pthread_cond_signal(&loader->ready);
    pthread_mutex_unlock(&loader->lock);
}

static void load_rows(void *context) {
    struct loader *loader = context;
    pthread_mutex_lock(&loader->lock);
    char *scratch = (char *)loader->scratch + loader->scratch_bytes * (size_t)loader->workers++;
    pthread_mutex_unlock(&loader->lock);
    struct slot *slot;
    for (int row; take_row(loader, &slot, &row);) {
        load_row(loader, slot, row, scratch);
        row_done(loader, slot);
    }
}

bool loader_next(struct loader *loader, struct batch *out, struct error *err) {
    *out = (struct batch){.rows = loader->rows};
    if (loader->taken == total_batches(loader))
        return true;
    pthread_mutex_lock(&loader->lock);
    bool full = loader->taken >= loader->released + loader->spec.prefetch;
    int64_t started = clock_now_ns();
    const struct slot *slot = slot_of(loader, loader->taken);
    while (!full && (loader->planned <= loader->taken || slot->unfinished > 0))
        pthread_cond_wait(&loader->ready, &loader->lock);
    loader->waited_ms += (double)(clock_now_ns() - started) / 1e6;
    loader->taken += !full;
    pthread_mutex_unlock(&loader->lock);
    if (full)
        return error_set(err, ERROR_STATE, "loader: all %d batches of the ring are held",
                         loader->spec.prefetch);
    *out = (struct batch){slot->images, slot->labels, slot->samples, loader->rows,
                          slot->count,  slot->epoch,  slot->step};
    return true;
}

void loader_release(struct loader *loader) {
    pthread_mutex_lock(&loader->lock);
    if (loader->released < loader->taken)
        loader->released++;
    pthread_cond_broadcast(&loader->room);
    pthread_mutex_unlock(&loader->lock);
}

double loader_waited_ms(const struct loader *loader) {
    return loader->waited_ms;
}

static bool check(const struct loader_spec *spec, struct error *err) {
    if (spec->threads < 1 || spec->prefetch < 1 || spec->ranks < 1 || spec->rank < 0 ||
        spec->rank >= spec->ranks || (!spec->sampler && spec->batch_size < 1))
        return error_set(err, ERROR_INVALID, "loader: %d threads, %d batches ahead, rank %d of %d, %d rows",
                         spec->threads, spec->prefetch, spec->rank, spec->ranks, spec->batch_size);
    if (spec->sampler &&
        (spec->sampler->spec.ranks != spec->ranks || spec->sampler->spec.count != spec->count))
        return error_set(err, ERROR_INVALID,
                         "loader: the sampler is of %lld samples and %d ranks, not %lld and %d",
                         (long long)spec->sampler->spec.count, spec->sampler->spec.ranks,
                         (long long)spec->count, spec->ranks);
    if (spec->varied && (!spec->sampler || !spec->augment_by_class))
        return error_set(err, ERROR_INVALID, "loader: only training pictures are varied");
    if (spec->cache->width != spec->recipe->width || spec->cache->height != spec->recipe->height)
        return error_set(err, ERROR_SHAPE, "loader: the cache holds %dx%d, the recipe wants %dx%d",
                         spec->cache->width, spec->cache->height, spec->recipe->width, spec->recipe->height);
    for (int64_t i = 0; i < spec->count; i++)
        if (!image_cache_get(spec->cache, spec->indices[i]))
            return error_set(err, ERROR_INVALID, "loader: sample %d is a broken one", spec->indices[i]);
    return true;
}

static void *ordinary_alloc(void *context, size_t bytes, struct error *err) {
    (void)context;
    size_t rounded = (bytes + 63) / 64 * 64;
    void *memory = aligned_alloc(64, rounded);
    if (memory)
        memset(memory, 0, rounded);
    else
        error_set(err, ERROR_MEMORY, "out of memory for %zu bytes", bytes);
    return memory;
}

static void ordinary_free(void *context, void *memory) {
    (void)context;
    free(memory);
}

static const struct loader_memory ordinary = {NULL, ordinary_alloc, ordinary_free};

static bool allocate_slot(struct loader *loader, struct slot *slot, struct error *err) {
    const struct loader_memory *memory = &loader->spec.memory;
    size_t rows = (size_t)loader->rows;
    slot->samples = calloc(rows, sizeof *slot->samples);
    return (slot->samples || error_set(err, ERROR_MEMORY, "out of memory")) &&
           (slot->images = memory->alloc(memory->context, rows * loader->row_bytes, err)) &&
           (slot->labels = memory->alloc(memory->context, rows * sizeof *slot->labels, err));
}

static bool allocate(struct loader *loader, struct error *err) {
    loader->scratch_bytes = (augment_scratch_bytes(loader->spec.recipe) + 63) / 64 * 64;
    loader->scratch = aligned_alloc(64, loader->scratch_bytes * (size_t)loader->spec.threads + 64);
    loader->slots = calloc((size_t)loader->spec.prefetch, sizeof *loader->slots);
    bool ok = (loader->scratch && loader->slots) || error_set(err, ERROR_MEMORY, "out of memory");
    for (int i = 0; ok && i < loader->spec.prefetch; i++)
        ok = allocate_slot(loader, &loader->slots[i], err);
    return ok || error_prefix(err, "loader: %d batches", loader->spec.prefetch);
}

static bool start_threads(struct loader *loader, struct error *err) {
    int threads = loader->spec.threads;
    struct thread_pool_spec pool = {
        .threads = threads, .queue_limit = (size_t)threads, .nice = loader->spec.nice, .name = "loader"};
    if (!(loader->pool = thread_pool_create(&pool, err)))
        return false;
    for (int i = 0; i < threads; i++)
        if (!thread_pool_submit(loader->pool, load_rows, loader))
            return error_set(err, ERROR_MEMORY, "loader: out of memory");
    return true;
}

struct loader *loader_create(const struct loader_spec *spec, struct error *err) {
    if (!check(spec, err))
        return NULL;
    struct loader *loader = calloc(1, sizeof *loader);
    if (!loader) {
        error_set(err, ERROR_MEMORY, "loader: out of memory");
        return NULL;
    }
    loader->spec = *spec;
    if (!spec->memory.alloc)
        loader->spec.memory = ordinary;
    loader->rows = spec->sampler ? spec->sampler->spec.batch_size / spec->ranks : spec->batch_size;
    loader->row_bytes = spec->varied ? variation_bytes(spec->recipe->height, spec->recipe->width)
                                     : recipe_values(spec->recipe) * sizeof(float);
    sampler_shard(spec->count, spec->rank, spec->ranks, &loader->shard_begin, &loader->shard_end);
    pthread_mutex_init(&loader->lock, NULL);
    pthread_cond_init(&loader->room, NULL);
    pthread_cond_init(&loader->ready, NULL);
    if (allocate(loader, err) && start_threads(loader, err))
        return loader;
    loader_destroy(loader);
    return NULL;
}

void loader_destroy(struct loader *loader) {
    if (!loader)
        return;
    pthread_mutex_lock(&loader->lock);
    loader->stopping = true;
    pthread_cond_broadcast(&loader->room);
    pthread_mutex_unlock(&loader->lock);
    thread_pool_destroy(loader->pool);
    for (int i = 0; loader->slots && i < loader->spec.prefetch; i++) {
        loader->spec.memory.free(loader->spec.memory.context, loader->slots[i].images);
        loader->spec.memory.free(loader->spec.memory.context, loader->slots[i].labels);
        free(loader->slots[i].samples);
    }
    free(loader->slots);
    free(loader->scratch);
    pthread_cond_destroy(&loader->ready);
    pthread_cond_destroy(&loader->room);
    pthread_mutex_destroy(&loader->lock);
    free(loader);
}
