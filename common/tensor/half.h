#pragma once
#include "common/tensor/dtype.h"

#include <stdint.h>
#include <string.h>

/**
 * f32 to the 16-bit floats and back, in plain C for loops and GPU kernels. Rounding
 * is to nearest, ties to even; what is too large becomes infinite, a NaN stays a (quiet) NaN.
 */

static inline uint32_t f32_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float f32_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/** bf16 is the upper half of an f32. */
static inline float bf16_decode(uint16_t bits) {
    return f32_of_bits((uint32_t)bits << 16);
}

static inline uint16_t bf16_encode(float value) {
    uint32_t bits = f32_bits(value);
    if (value != value)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/** f16: exponent and fraction moved to their place in an f32; the exponent's bias is made up for by a product, which is exact. */
static inline float f16_decode(uint16_t bits) {
    float value = f32_of_bits((uint32_t)(bits & 0x7FFF) << 13) * 0x1p112f;
    uint32_t wide = f32_bits(value);
    if (value >= 65536.0f)
        wide |= 0xFFu << 23; /* the largest exponent stands for infinity and NaN */
    return f32_of_bits(wide | (uint32_t)(bits & 0x8000) << 16);
}

/** Small numbers are rounded by an addition that leaves their fraction's last bit at its place in f16's subnormals. */
static inline uint16_t f16_encode(float value) {
    uint32_t bits = f32_bits(value), sign = bits >> 16 & 0x8000, size = bits & 0x7FFFFFFF;
    if (size >= 0x47800000) /* 65536 and more, infinity, NaN */
        return (uint16_t)(sign | (size > 0x7F800000 ? 0x7E00 : 0x7C00));
    if (size < 0x38800000) /* below 2^-14 */
        return (uint16_t)(sign | (f32_bits(f32_of_bits(size) + 0.5f) - f32_bits(0.5f)));
    uint32_t odd = size >> 13 & 1;
    return (uint16_t)(sign | (size - (112u << 23) + 0xFFF + odd) >> 13);
}

/** Of either 16-bit dtype. */
static inline float half_decode(enum dtype dtype, uint16_t bits) {
    return dtype == DTYPE_BF16 ? bf16_decode(bits) : f16_decode(bits);
}

static inline uint16_t half_encode(enum dtype dtype, float value) {
    return dtype == DTYPE_BF16 ? bf16_encode(value) : f16_encode(value);
}
