#include "trainerd/sampler.h"

#include "common/base/rng.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CLASSES = 16 };

static bool check(const struct sampler_spec *spec, struct error *err) {
    if (spec->count < 1 || spec->count > INT32_MAX || spec->classes < 1 || spec->classes > MAX_CLASSES)
        return error_set(err, ERROR_INVALID, "sampler: %lld samples of %d classes", (long long)spec->count,
                         spec->classes);
    if (spec->batch_size < 1 || spec->ranks < 1 || spec->batch_size % spec->ranks != 0)
        return error_set(err, ERROR_INVALID, "a batch of %d cannot be shared evenly by %d ranks",
                         spec->batch_size, spec->ranks);
    if (spec->steps_per_epoch < 0 || spec->steps_per_epoch > INT32_MAX / spec->batch_size)
        return error_set(err, ERROR_INVALID, "sampler: %lld steps per epoch",
                         (long long)spec->steps_per_epoch);
    if (spec->steps_per_epoch == 0 && spec->count < spec->batch_size)
        return error_set(err, ERROR_INVALID, "%lld training images do not fill one batch of %d",
                         (long long)spec->count, spec->batch_size);
    for (int64_t i = 0; i < spec->count; i++)
        if (spec->labels[i] < 0 || spec->labels[i] >= spec->classes)
            return error_set(err, ERROR_INVALID, "sampler: label %d is no class", spec->labels[i]);
    return true;
}

/* Counting sort, so that samples of a class keep their order. */
static void sort_by_class(struct sampler *sampler) {
    const struct sampler_spec *spec = &sampler->spec;
    for (int64_t i = 0; i < spec->count; i++)
        sampler->class_offsets[spec->labels[i] + 1]++;
    for (int i = 0; i < spec->classes; i++)
        sampler->class_offsets[i + 1] += sampler->class_offsets[i];
    int64_t next[MAX_CLASSES];
    memcpy(next, sampler->class_offsets, sizeof next);
    for (int64_t i = 0; i < spec->count; i++)
        sampler->by_class[next[spec->labels[i]]++] = (int32_t)i;
}

static bool check_balance(const struct sampler *sampler, struct error *err) {
    for (int i = 0; sampler->spec.balanced && i < sampler->spec.classes; i++)
        if (sampler->class_offsets[i] == sampler->class_offsets[i + 1])
            return error_set(err, ERROR_INVALID, "balanced sampling: class %d has no samples", i);
    return true;
}

bool sampler_init(struct sampler *sampler, const struct sampler_spec *spec, struct error *err) {
    *sampler = (struct sampler){.spec = *spec, .epoch = -1};
    if (!check(spec, err))
        return false;
    sampler->steps = spec->steps_per_epoch ? spec->steps_per_epoch : spec->count / spec->batch_size;
    sampler->length = sampler->steps * spec->batch_size;
    sampler->order = malloc((size_t)sampler->length * sizeof *sampler->order);
    sampler->by_class = malloc((size_t)spec->count * sizeof *sampler->by_class);
    sampler->scratch = malloc((size_t)spec->count * sizeof *sampler->scratch);
    bool ok = (sampler->order && sampler->by_class && sampler->scratch) ||
              error_set(err, ERROR_MEMORY, "sampler: out of memory");
    if (ok) {
        sort_by_class(sampler);
        ok = check_balance(sampler, err);
    }
    if (!ok)
        sampler_fini(sampler);
    return ok;
}

void sampler_fini(struct sampler *sampler) {
    free(sampler->order);
    free(sampler->by_class);
    free(sampler->scratch);
    *sampler = (struct sampler){0};
}

static void shuffle(int32_t *values, int64_t count, struct rng *rng) {
    for (int64_t i = count - 1; i > 0; i--) {
        int64_t other = rng_below(rng, (uint32_t)i + 1);
        int32_t held = values[i];
        values[i] = values[other];
        values[other] = held;
    }
}

/* Fills out with `wanted` draws from a pool: whole shuffled rounds of it, so that all are seen before one is
 * seen again. */
static void draw(struct sampler *sampler, const int32_t *pool, int64_t pool_count, int64_t wanted,
                 struct rng *rng, int32_t *out) {
    for (int64_t done = 0; done < wanted;) {
        int64_t take = wanted - done < pool_count ? wanted - done : pool_count;
        memcpy(sampler->scratch, pool, (size_t)pool_count * sizeof *pool);
        shuffle(sampler->scratch, pool_count, rng);
        memcpy(out + done, sampler->scratch, (size_t)take * sizeof *out);
        done += take;
    }
}

static void order_epoch(struct sampler *sampler, int64_t epoch) {
    const struct sampler_spec *spec = &sampler->spec;
    struct rng rng;
    sampler->epoch = epoch;
    if (!spec->balanced) {
        rng_init(&rng, spec->seed, RNG_SHUFFLE, (uint64_t)epoch, 0);
        draw(sampler, sampler->by_class, spec->count, sampler->length, &rng, sampler->order);
        return;
    }
    int64_t filled = 0;
    for (int i = 0; i < spec->classes; i++) {
        /* What does not divide evenly goes to other classes each epoch. */
        int turn = (int)((i + epoch) % spec->classes);
        int64_t share = sampler->length / spec->classes + (turn < sampler->length % spec->classes);
        const int32_t *pool = sampler->by_class + sampler->class_offsets[i];
        rng_init(&rng, spec->seed, RNG_SHUFFLE, (uint64_t)epoch, 1 + (uint32_t)i);
        draw(sampler, pool, sampler->class_offsets[i + 1] - sampler->class_offsets[i], share, &rng,
             sampler->order + filled);
        filled += share;
    }
    rng_init(&rng, spec->seed, RNG_SHUFFLE, (uint64_t)epoch, 0);
    shuffle(sampler->order, sampler->length, &rng);
}

const int32_t *sampler_share(struct sampler *sampler, int64_t epoch, int64_t step, int rank,
                             int64_t *position) {
    assert(epoch >= 0 && step >= 0 && step < sampler->steps && rank >= 0 && rank < sampler->spec.ranks);
    if (sampler->epoch != epoch)
        order_epoch(sampler, epoch);
    *position =
        step * sampler->spec.batch_size + (int64_t)rank * (sampler->spec.batch_size / sampler->spec.ranks);
    return sampler->order + *position;
}

void sampler_shard(int64_t count, int rank, int ranks, int64_t *begin, int64_t *end) {
    *begin = count * rank / ranks;
    *end = count * (rank + 1) / ranks;
}
