#pragma once
#include "common/tensor/half.h"

#include <stdbool.h>
#include <stddef.h>

/**
 * How our kernels read and write tensors: f32, bf16 or f16, one element or LANES neighbours at a time. What a function is told
 * as its `width` is a constant once it is inlined, so that the GPU moves 16 bytes at once and keeps the lanes in registers.
 */
enum { LANES = 8, LANES_ALIGNMENT = 16 };

struct lanes {
    float v[LANES];
};

static inline float load_one(const void *data, enum dtype dtype, int64_t at) {
    return dtype == DTYPE_F32 ? ((const float *)data)[at] : half_decode(dtype, ((const uint16_t *)data)[at]);
}

static inline void store_one(void *data, enum dtype dtype, int64_t at, float value) {
    if (dtype == DTYPE_F32)
        ((float *)data)[at] = value;
    else
        ((uint16_t *)data)[at] = half_encode(dtype, value);
}

/** The `width` elements from `at` on: 1, or LANES, which then lie at a multiple of LANES_ALIGNMENT bytes. */
static inline struct lanes load_lanes(const void *data, enum dtype dtype, int64_t at, int width) {
    struct lanes out = {{0}};
    uint16_t halves[LANES];
    const void *from = (const char *)data + at * (dtype == DTYPE_F32 ? 4 : 2);
    if (width == 1) {
        out.v[0] = load_one(data, dtype, at);
    } else if (dtype == DTYPE_F32) {
        memcpy(out.v, __builtin_assume_aligned(from, LANES_ALIGNMENT), sizeof out.v);
    } else {
        memcpy(halves, __builtin_assume_aligned(from, LANES_ALIGNMENT), sizeof halves);
        for (int l = 0; l < LANES; l++)
            out.v[l] = half_decode(dtype, halves[l]);
    }
    return out;
}

static inline void store_lanes(void *data, enum dtype dtype, int64_t at, int width, const struct lanes *values) {
    uint16_t halves[LANES];
    void *to = (char *)data + at * (dtype == DTYPE_F32 ? 4 : 2);
    if (width == 1) {
        store_one(data, dtype, at, values->v[0]);
    } else if (dtype == DTYPE_F32) {
        memcpy(__builtin_assume_aligned(to, LANES_ALIGNMENT), values->v, sizeof values->v);
    } else {
        for (int l = 0; l < LANES; l++)
            halves[l] = half_encode(dtype, values->v[l]);
        memcpy(__builtin_assume_aligned(to, LANES_ALIGNMENT), halves, sizeof halves);
    }
}

/** NAME_element of a kernel whose elements are `width` neighbours: NAME_lanes(arguments, first of them, width). */
#define DEFINE_LANES_ELEMENT(name)                                                                                           \
    static inline void name##_element(const struct name *k, int64_t i) {                                                     \
        if (k->width == LANES)                                                                                               \
            name##_lanes(k, i * LANES, LANES);                                                                               \
        else                                                                                                                 \
            name##_lanes(k, i, 1);                                                                                           \
    }

/* --- layouts --- */

/** An (N, C, H, W) tensor by its channels: planes behind one another (NCHW), or pixels, channels last (NHWC). */
struct channels {
    int64_t batch, count, plane;
    bool last;
};

/** The channel of the element at `at`. Of LANES neighbours: the first one's; where channels are last, they have one each. */
static inline int64_t channel_at(const struct channels *s, int64_t at) {
    return s->last ? at % s->count : at / s->plane % s->count;
}

/** Where the element lies that is `pixel` (counted over the batch) of channel c. */
static inline int64_t pixel_at(const struct channels *s, int64_t c, int64_t pixel) {
    return s->last ? pixel * s->count + c : (pixel / s->plane * s->count + c) * s->plane + pixel % s->plane;
}

/** A vector of one f32 a channel, for the lanes that begin with channel c. */
static inline struct lanes load_channels(const float *vector, const struct channels *s, int64_t c, int width) {
    struct lanes out = {{0}};
    if (s->last)
        return load_lanes(vector, DTYPE_F32, c, width);
    for (int l = 0; l < width; l++)
        out.v[l] = vector[c];
    return out;
}

/** As struct channels, of planes with two sides. */
struct images {
    int64_t channels, height, width;
    bool last;
};

struct place {
    int64_t image, channel, y, x;
};

/** What the i-th element in memory is. */
static inline struct place place_of(const struct images *s, int64_t i) {
    int64_t inner = s->last ? s->channels : s->width, middle = s->last ? s->width : s->height;
    int64_t a = i % inner, b = i / inner % middle, rest = i / (inner * middle);
    int64_t outer = s->last ? s->height : s->channels, c = rest % outer, n = rest / outer;
    struct place nchw = {n, c, b, a}, nhwc = {n, a, c, b};
    return s->last ? nhwc : nchw;
}

/** And where it lies. */
static inline int64_t index_of(const struct images *s, int64_t image, int64_t channel, int64_t y, int64_t x) {
    return s->last ? ((image * s->height + y) * s->width + x) * s->channels + channel
                   : ((image * s->channels + channel) * s->height + y) * s->width + x;
}
