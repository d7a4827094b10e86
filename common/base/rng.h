#pragma once
#include <stdint.h>

/**
 * Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 * A value depends on nothing but the key and its position, so a draw is the same on any rank, thread or device: the
 * property that makes runs repeatable (key = seed and purpose, counter = epoch, sample, index).
 * Inline, and plain C, so that a GPU kernel can use the same source.
 */
struct rng_block {
    uint32_t v[4];
};

static inline struct rng_block rng_philox(uint64_t key, uint64_t counter_high, uint64_t counter_low) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)counter_low, c1 = (uint32_t)(counter_low >> 32);
    uint32_t c2 = (uint32_t)counter_high, c3 = (uint32_t)(counter_high >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    struct rng_block block = {{c0, c1, c2, c3}};
    return block;
}

/** A number in [0, 1) with 24 random bits. */
static inline float rng_unit(uint32_t bits) {
    return (float)(bits >> 8) * (1.0f / 16777216.0f);
}

/** What a stream of random numbers is for: streams of different purposes never overlap. */
enum rng_purpose { RNG_INIT = 1, RNG_SHUFFLE, RNG_AUGMENT, RNG_DROPOUT, RNG_SPLIT, RNG_PHANTOM, RNG_TEST, RNG_LOAD };

/** A sequence of draws at one place of the counter space. Not thread-safe; make one per sample. */
struct rng {
    uint64_t key, high, low;
    struct rng_block block;
    int used;
};

/** The sequence of (seed, purpose, a, b), e.g. a = epoch, b = the sample's position in the epoch. */
void rng_init(struct rng *rng, uint64_t seed, enum rng_purpose purpose, uint64_t a, uint32_t b);
uint32_t rng_u32(struct rng *rng);
/** Uniform in [0, bound) without bias; bound > 0. */
uint32_t rng_below(struct rng *rng, uint32_t bound);
/** Uniform in [low, high). */
float rng_uniform(struct rng *rng, float low, float high);
/** Standard normal (Box-Muller). */
float rng_normal(struct rng *rng);
