#include "common/base/rng.h"

#include <math.h>

void rng_init(struct rng *rng, uint64_t seed, enum rng_purpose purpose, uint64_t a, uint32_t b) {
    /* The purpose spreads over the key by a golden-ratio multiple, so nearby seeds and purposes do not meet. */
    *rng = (struct rng){
        .key = seed + (uint64_t)purpose * 0x9E3779B97F4A7C15u, .high = a, .low = (uint64_t)b << 32, .used = 4};
}

uint32_t rng_u32(struct rng *rng) {
    if (rng->used == 4) {
        rng->block = rng_philox(rng->key, rng->high, rng->low++);
        rng->used = 0;
    }
    return rng->block.v[rng->used++];
}

uint32_t rng_below(struct rng *rng, uint32_t bound) {
    /* Lemire's multiply-and-reject (ACM TOMACS 2019). */
    uint64_t product = (uint64_t)rng_u32(rng) * bound;
    if ((uint32_t)product < bound) {
        uint32_t threshold = (uint32_t)(-bound) % bound;
        while ((uint32_t)product < threshold)
            product = (uint64_t)rng_u32(rng) * bound;
    }
    return (uint32_t)(product >> 32);
}

float rng_uniform(struct rng *rng, float low, float high) {
    return low + (high - low) * rng_unit(rng_u32(rng));
}

float rng_normal(struct rng *rng) {
    float u = 1.0f - rng_unit(rng_u32(rng)); /* (0, 1]: the logarithm is finite */
    float v = rng_unit(rng_u32(rng));
    return sqrtf(-2.0f * logf(u)) * cosf(6.28318530718f * v);
}
