#pragma once
#include "common/base/rng.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * One variation of a grey picture (height, width) of bytes, worked out as far as it is the same for all pixels. Steps, in this
 * order: warp, blur along the rows, blur down the columns, table, noise, erasing; then the normalisation. What is left for a
 * pixel is integer arithmetic, but for two sums of doubles in each row of the warp and the normalisation: the same to the bit on
 * every device. Plain data, drawn by common/image/augment.h; all zeros is a valid one. Inline and plain C, for use in GPU kernels
 * too. Positions in the picture are in units of 1/65536 pixel; pixel centres are whole numbers.
 */
enum { VARIATION_FRACTION_BITS = 16, VARIATION_ONE = 1 << VARIATION_FRACTION_BITS };
enum { VARIATION_BLUR_RADIUS = 32 /**< the most pixels to each side that a blurred one is made of */ };

struct variation {
    double origin[2];    /**< x, y in pixels: where the first pixel comes from of the row through the crop's centre */
    double sine, cosine; /**< of the rotation */
    double down;         /**< what a row's step covers in the picture: the crop's height over the picture's */
    uint64_t noise_key;
    int32_t step[2];                                  /**< x, y, from one pixel of a row to the next: fixed point */
    int32_t noise_scale;                              /**< of variation_bell, times 65536; 0: no noise */
    int32_t erase_left, erase_top, erase_width, erase_height; /**< pixels; a rectangle within the picture */
    int32_t blur_radius;                              /**< 0: none */
    uint16_t blur[VARIATION_BLUR_RADIUS + 1];         /**< weights, [0] the centre's; all 2 * radius + 1 sum to 256 */
    uint8_t table[256];                               /**< gamma, contrast, brightness: the new shade of each */
    uint8_t erase_shade;
};

/** Bytes of a row of OP_VARY: a struct variation, then the picture's pixels; the next row is aligned as this one is. */
static inline size_t variation_bytes(int64_t height, int64_t width) {
    return (sizeof(struct variation) + (size_t)(height * width) + 7) / 8 * 8;
}

#ifndef rounded_double_product
/** a * b, rounded there and then: not fused with a sum behind it. ISO C does not fuse; kernels.cu defines it for nvcc. */
#define rounded_double_product(a, b) ((a) * (b))
#endif

static inline int32_t variation_fixed(double pixels) {
    return (int32_t)lrint(pixels * VARIATION_ONE);
}

/** Where the first pixel of row y comes from; each further one, a step on. */
static inline void variation_row(const struct variation *v, int32_t height, int32_t y, int32_t start[2]) {
    const double down = ((double)y + 0.5 - 0.5 * (double)height) * v->down;
    start[0] = variation_fixed(v->origin[0] - rounded_double_product(down, v->sine));
    start[1] = variation_fixed(v->origin[1] + rounded_double_product(down, v->cosine));
}

/** The shade at a position, black outside the picture; the outermost half pixel repeats its edge. */
static inline uint8_t variation_sample(const uint8_t *grey, int32_t width, int32_t height, int32_t x, int32_t y) {
    const int32_t right = (width - 1) * VARIATION_ONE, bottom = (height - 1) * VARIATION_ONE, half = VARIATION_ONE / 2;
    if (x < -half || y < -half || x > right + half || y > bottom + half)
        return 0;
    x = x < 0 ? 0 : x > right ? right : x;
    y = y < 0 ? 0 : y > bottom ? bottom : y;
    int32_t column = x >> VARIATION_FRACTION_BITS, row = y >> VARIATION_FRACTION_BITS;
    column -= column == width - 1; /* the last pixel is its left neighbour's fraction 256 */
    row -= row == height - 1;
    const uint32_t fx = (uint32_t)(x - column * VARIATION_ONE) >> 8, fy = (uint32_t)(y - row * VARIATION_ONE) >> 8; /* 0..256 */
    const uint8_t *at = grey + (size_t)row * (size_t)width + column;
    const uint32_t top = at[0] * (256 - fx) + at[1] * fx;
    const uint32_t low = at[width] * (256 - fx) + at[width + 1] * fx;
    return (uint8_t)((top * (256 - fy) + low * fy + (1 << 15)) >> 16);
}

/** The at-th of `length` pixels that lie `stride` bytes apart, blurred; beyond both ends the last one goes on. */
static inline uint8_t variation_blurred(const struct variation *v, const uint8_t *line, int32_t stride, int32_t length,
                                        int32_t at) {
    uint32_t sum = (uint32_t)line[(size_t)at * (size_t)stride] * v->blur[0];
    for (int32_t i = 1; i <= v->blur_radius; i++) {
        const int32_t before = at < i ? 0 : at - i, after = at + i >= length ? length - 1 : at + i;
        sum += (uint32_t)(line[(size_t)before * (size_t)stride] + line[(size_t)after * (size_t)stride]) * v->blur[i];
    }
    return (uint8_t)((sum + 128) >> 8);
}

/** The sum of four random bytes (Irwin-Hall): mean 510, standard deviation 147.8, bell-shaped, and cheap. */
static inline int32_t variation_bell(uint32_t bits) {
    return (int32_t)((bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24)) - 510;
}

/** Four pixels, counted from a multiple of four on, share the bits of one block. */
static inline struct rng_block variation_noise(const struct variation *v, int64_t first) {
    return rng_philox(v->noise_key, 0, (uint64_t)first);
}

static inline uint8_t variation_noisy(const struct variation *v, uint8_t shade, uint32_t bits) {
    const int32_t value = shade + ((variation_bell(bits) * v->noise_scale + (1 << 15)) >> 16);
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static inline bool variation_erases(const struct variation *v, int32_t x, int32_t y) {
    return x >= v->erase_left && x < v->erase_left + v->erase_width && y >= v->erase_top && y < v->erase_top + v->erase_height;
}

/** What the network sees of a shade, as torchvision's ToTensor and Normalize have it. */
static inline float variation_normalised(uint8_t shade, float mean, float stddev) {
    return ((float)shade / 255.0f - mean) / stddev;
}
