#pragma once
#include "common/device/cuda/kernels_body.h"

/**
 * The kernels for 8-bit integers; see kernels_body.h. Products are left to cuBLAS, which multiplies s8 by s8 into s32 only: a
 * source of u8 is read as s8, 128 less, and 128 times the sum of a channel's weights is added again. All of that is exact, and so
 * is every rounding behind it: as struct conv2d_int8 says, bit for bit.
 */

static inline int64_t index_at(const struct images *s, struct place p) {
    return index_of(s, p.image, p.channel, p.y, p.x);
}

/* --- numbers --- */

static inline int32_t int8_get(const void *data, bool is_signed, int64_t i) {
    return is_signed ? ((const int8_t *)data)[i] : ((const uint8_t *)data)[i];
}

/** u8, s8, or a float. */
static inline float int8_load(const void *data, enum dtype dtype, int64_t i) {
    if (dtype == DTYPE_U8 || dtype == DTYPE_S8)
        return (float)int8_get(data, dtype == DTYPE_S8, i);
    return load_one(data, dtype, i);
}

/** To the nearest integer, ties to even; what is outside becomes the end of the range, NaN becomes 0. */
static inline int32_t int8_round(float value, int32_t low, int32_t high) {
    float rounded = rintf(value);
    if (rounded != rounded)
        return 0;
    return rounded <= (float)low ? low : rounded >= (float)high ? high : (int32_t)rounded;
}

static inline void int8_store(void *data, enum dtype dtype, int64_t i, float value) {
    if (dtype == DTYPE_U8)
        ((uint8_t *)data)[i] = (uint8_t)int8_round(value, 0, UINT8_MAX);
    else if (dtype == DTYPE_S8)
        ((int8_t *)data)[i] = (int8_t)int8_round(value, INT8_MIN, INT8_MAX);
    else
        store_one(data, dtype, i, value);
}

#ifndef rounded_product
/** a * b, rounded there and then: not fused with an addition behind it. ISO C does not fuse; kernels.cu defines it for nvcc. */
#define rounded_product(a, b) ((a) * (b))
#endif

/* --- what follows a convolution's sum --- */

struct int8_result {
    const float *factor, *bias; /* (O); bias may be NULL */
    const void *residual;       /* may be NULL */
    void *dst;
    struct images residual_shape, shape;
    enum dtype residual_dtype, dtype;
    enum activation activation;
    float residual_factor;
};

/** Stores the i-th element of dst, at p. One rounding a line. */
static inline void int8_finish(const struct int8_result *k, int64_t i, struct place p, int32_t sum) {
    float x = (float)sum;
    x = rounded_product(x, k->factor[p.channel]);
    x = x + (k->bias ? k->bias[p.channel] : 0);
    if (k->residual)
        x = fmaf(k->residual_factor, int8_load(k->residual, k->residual_dtype, index_at(&k->residual_shape, p)), x);
    int8_store(k->dst, k->dtype, i, activated(k->activation, x));
}

/* --- convolution as a product of matrices --- */

/** Bytes that a thread writes at once: depths are multiples of it. */
enum { INT8_PATCH_BYTES = 4 };

/** The pixels that each window sees, as rows of s8 of `depth` bytes: its taps, the channels of each, then zeros. */
struct patches {
    const void *src;
    int8_t *dst; /* (images * to_size[0] * to_size[1], depth) */
    struct images from;
    int64_t to_size[2]; /* height, width */
    int64_t depth;
    struct window window;
    bool is_signed; /* src is s8, else u8 */
};

static inline int8_t patch_value(const struct patches *k, int64_t row, int64_t at) {
    const struct window *w = &k->window;
    int64_t tap = at / k->from.channels, q = row % k->to_size[1], p = row / k->to_size[1] % k->to_size[0];
    struct place place = {row / (k->to_size[0] * k->to_size[1]), at % k->from.channels,
                               p * w->stride[0] + tap / w->kernel[1] - w->pad_before[0],
                               q * w->stride[1] + tap % w->kernel[1] - w->pad_before[1]};
    bool inside = place.y >= 0 && place.y < k->from.height && place.x >= 0 && place.x < k->from.width;
    int32_t value = inside && tap < w->kernel[0] * w->kernel[1] ? int8_get(k->src, k->is_signed, index_at(&k->from, place)) : 0;
    return (int8_t)(k->is_signed ? value : value - 128);
}

static inline void patches_element(const struct patches *k, int64_t i) {
    int64_t words = k->depth / INT8_PATCH_BYTES, row = i / words, at = i % words * INT8_PATCH_BYTES;
    for (int l = 0; l < INT8_PATCH_BYTES; l++)
        k->dst[i * INT8_PATCH_BYTES + l] = patch_value(k, row, at + l);
}

/** Weights (O, I, KH, KW) as rows of `depth` bytes, in the order of patches; rows and bytes that are not there are 0. */
struct pack_weight {
    const int8_t *src;
    int8_t *dst; /* (rows, depth) */
    int64_t channels_out, channels_in, taps, depth;
};

static inline void pack_weight_element(const struct pack_weight *k, int64_t i) {
    int64_t row = i / k->depth, at = i % k->depth, tap = at / k->channels_in, c = at % k->channels_in;
    bool inside = row < k->channels_out && tap < k->taps;
    k->dst[i] = inside ? k->src[(row * k->channels_in + c) * k->taps + tap] : 0;
}

/** 128 times the sum of each row: what a source of u8 lacks that was read as s8. */
struct sum_weight {
    const int8_t *packed; /* (rows, depth) */
    int32_t *sums;        /* (rows) */
    int64_t depth;
};

static inline void sum_weight_element(const struct sum_weight *k, int64_t row) {
    int32_t sum = 0;
    for (int64_t at = 0; at < k->depth; at++)
        sum += k->packed[row * k->depth + at];
    k->sums[row] = 128 * sum;
}

/** The products' sums (pixels, rows) to dst. An element is one of dst's. */
struct requantise {
    const int32_t *sums, *lacking; /* lacking (rows): of sum_weight; NULL: nothing */
    int64_t rows;
    struct int8_result result;
};

static inline void requantise_element(const struct requantise *k, int64_t i) {
    const struct images *s = &k->result.shape;
    struct place p = place_of(s, i);
    int64_t pixel = (p.image * s->height + p.y) * s->width + p.x;
    int8_finish(&k->result, i, p, k->sums[pixel * k->rows + p.channel] + (k->lacking ? k->lacking[p.channel] : 0));
}

/* --- convolution in groups: depthwise, mostly --- */

struct group_convolution {
    const void *src;
    const int8_t *weight; /* (O, I / groups, KH, KW) */
    struct images from;
    struct window window;
    int64_t group_in, group_out; /* channels of a group */
    bool is_signed;
    struct int8_result result;
};

static inline int32_t group_tap(const struct group_convolution *k, struct place at, const int8_t *weight, int64_t taps) {
    bool inside = at.y >= 0 && at.y < k->from.height && at.x >= 0 && at.x < k->from.width;
    int32_t sum = 0;
    for (int64_t c = 0; inside && c < k->group_in; c++, at.channel++)
        sum += int8_get(k->src, k->is_signed, index_at(&k->from, at)) * weight[c * taps];
    return sum;
}

static inline void group_convolution_element(const struct group_convolution *k, int64_t i) {
    const struct window *w = &k->window;
    struct place p = place_of(&k->result.shape, i);
    int64_t taps = (int64_t)w->kernel[0] * w->kernel[1], first = p.channel / k->group_out * k->group_in;
    const int8_t *weight = k->weight + p.channel * k->group_in * taps;
    int32_t sum = 0;
    for (int64_t tap = 0; tap < taps; tap++) {
        struct place at = {p.image, first, p.y * w->stride[0] + tap / w->kernel[1] - w->pad_before[0],
                                p.x * w->stride[1] + tap % w->kernel[1] - w->pad_before[1]};
        sum += group_tap(k, at, weight + tap, taps);
    }
    int8_finish(&k->result, i, p, sum);
}

/* --- pools, rescaling --- */

/** The largest under each window; padding is never it. An element is one of dst's. */
struct int8_max_pool {
    const void *src;
    void *dst;
    struct images from, to;
    struct window window;
    enum dtype dtype;
};

static inline void int8_max_pool_element(const struct int8_max_pool *k, int64_t i) {
    const struct window *w = &k->window;
    struct place p = place_of(&k->to, i), at = p;
    int32_t most = INT8_MIN;
    for (int tap = 0; tap < w->kernel[0] * w->kernel[1]; tap++) {
        at.y = p.y * w->stride[0] + tap / w->kernel[1] - w->pad_before[0];
        at.x = p.x * w->stride[1] + tap % w->kernel[1] - w->pad_before[1];
        bool inside = at.y >= 0 && at.y < k->from.height && at.x >= 0 && at.x < k->from.width;
        int32_t value = inside ? int8_get(k->src, k->dtype == DTYPE_S8, index_at(&k->from, at)) : INT8_MIN;
        most = value > most ? value : most;
    }
    ((uint8_t *)k->dst)[i] = (uint8_t)most;
}

/** The mean of each plane, from its exact sum. An element is one of dst's, (N, C). */
struct int8_average {
    const void *src;
    float *dst;
    struct images from;
    bool is_signed;
};

static inline void int8_average_element(const struct int8_average *k, int64_t i) {
    struct place p = {i / k->from.channels, i % k->from.channels, 0, 0};
    int64_t sum = 0;
    for (p.y = 0; p.y < k->from.height; p.y++)
        for (p.x = 0; p.x < k->from.width; p.x++)
            sum += int8_get(k->src, k->is_signed, index_at(&k->from, p));
    k->dst[i] = (float)((double)sum / (double)(k->from.height * k->from.width));
}

/** dst = convert(src * factor). An element is one of dst's. */
struct int8_rescale {
    const void *src;
    void *dst;
    struct images from, to;
    enum dtype from_dtype, to_dtype;
    float factor;
};

static inline void int8_rescale_element(const struct int8_rescale *k, int64_t i) {
    int64_t at = k->from.last == k->to.last ? i : index_at(&k->from, place_of(&k->to, i));
    int8_store(k->dst, k->to_dtype, i, rounded_product(int8_load(k->src, k->from_dtype, at), k->factor));
}
