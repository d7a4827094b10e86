#pragma once
#include "common/base/rng.h"
#include <stdbool.h>

/** Indices into ARG_SEED. */
enum dropout_seed { DROPOUT_SEED, DROPOUT_STEP, DROPOUT_FIRST_SAMPLE, DROPOUT_SEED_COUNT };

/**
 * Whether the element at canonical position `index` (counted over the batch, of which a sample has `features`
 * elements) is kept. A sample is known by its place in the global batch, so the answer is the same for any
 * number of ranks, on any device, in any memory layout. Inline and plain C, for use in GPU kernels too.
 */
static inline bool dropout_keeps(const int64_t seed[DROPOUT_SEED_COUNT], uint32_t salt, float rate,
                                 int64_t features, int64_t index) {
    uint64_t key = (uint64_t)seed[DROPOUT_SEED] + (uint64_t)RNG_DROPOUT * 0x9E3779B97F4A7C15u;
    uint64_t high = (uint64_t)seed[DROPOUT_STEP] ^ (uint64_t)salt << 32;
    uint64_t position = (uint64_t)seed[DROPOUT_FIRST_SAMPLE] * (uint64_t)features + (uint64_t)index;
    return rng_unit(rng_philox(key, high, position).v[0]) >= rate;
}
