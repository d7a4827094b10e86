#pragma once
#include "common/base/error.h"
#include <stddef.h>
#include <stdint.h>

/** What to draw from and how. Borrows labels. */
struct sampler_spec {
    const int32_t *labels; /**< (count) class of each sample of the training part */
    int64_t count;
    int classes;
    int batch_size; /**< of all ranks together; a multiple of ranks */
    int ranks;
    int64_t steps_per_epoch; /**< 0: count / batch_size, what is left over is dropped (others each epoch) */
    bool balanced;           /**< as many samples of each class, the rare ones repeated */
    uint64_t seed;
};

/**
 * The global order of training samples, epoch by epoch: it follows from (seed, epoch) alone, so that a run
 * can go on from any (epoch, step), on any number of ranks. Not thread-safe.
 */
struct sampler {
    struct sampler_spec spec;
    int64_t length;    /**< samples of an epoch: steps x batch_size */
    int64_t steps;     /**< of an epoch */
    int64_t epoch;     /* that order belongs to; -1: none yet */
    int32_t *order;    /* (length) indices into labels */
    int32_t *by_class; /* (count) samples ordered by class */
    int64_t class_offsets[17];
    int32_t *scratch; /* (count) a class, shuffled */
};

/**
 * Errors: fewer samples than a batch (without steps_per_epoch), a batch that the ranks cannot share evenly, a
 * label that is no class, a balanced class without samples.
 */
bool sampler_init(struct sampler *sampler, const struct sampler_spec *spec, struct error *err);
void sampler_fini(struct sampler *sampler);

/**
 * Samples of one step for one rank: its contiguous share of the global batch, batch_size / ranks indices into
 * labels. Borrowed until the next call. *position becomes the place of the first in the epoch's global order,
 * which seeds what is random about a sample.
 */
const int32_t *sampler_share(struct sampler *sampler, int64_t epoch, int64_t step, int rank,
                             int64_t *position);

/** The half-open range of a part of count samples that one of ranks evaluates: exact, without repeats, sizes
 * differ by 1 at most. */
void sampler_shard(int64_t count, int rank, int ranks, int64_t *begin, int64_t *end);
