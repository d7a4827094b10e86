#pragma once
#include "common/device/cuda/kernels_body.h"
#include "common/op/variation.h"

/**
 * The kernels that make images of pictures with their variations; see kernels_body.h. Every pixel is what
 * common/op/variation.h makes of it. The blur needs what the warp made of a pixel's neighbours, so there are three launches:
 * warp, blur along the rows, and the rest, which reads the columns. Pictures without a blur skip the second.
 */
struct varied {
    const uint8_t *rows; /* (pictures, row_bytes): each a struct variation, and the picture */
    int64_t row_bytes;
    int32_t height, width;
};

static inline int64_t varied_pixels(const struct varied *in) {
    return (int64_t)in->height * in->width;
}

static inline const struct variation *varied_by(const struct varied *in, int64_t picture) {
    return (const struct variation *)(const void *)(in->rows + picture * in->row_bytes);
}

/** An element is a pixel of dst. */
struct vary_warp {
    struct varied in;
    uint8_t *dst; /* (pictures, height, width) */
};

static inline void vary_warp_element(const struct vary_warp *k, int64_t i) {
    int64_t pixels = varied_pixels(&k->in), picture = i / pixels;
    int32_t at = (int32_t)(i % pixels), x = at % k->in.width, y = at / k->in.width, start[2];
    const struct variation *v = varied_by(&k->in, picture);
    const uint8_t *grey = (const uint8_t *)(v + 1);
    variation_row(v, k->in.height, y, start);
    k->dst[i] = variation_sample(grey, k->in.width, k->in.height, start[0] + x * v->step[0], start[1] + x * v->step[1]);
}

/** Along the rows. An element is a pixel of dst; those of pictures that are not blurred are left alone. */
struct vary_blur {
    struct varied in;
    const uint8_t *warped;
    uint8_t *dst;
};

static inline void vary_blur_element(const struct vary_blur *k, int64_t i) {
    const struct variation *v = varied_by(&k->in, i / varied_pixels(&k->in));
    int32_t x = (int32_t)(i % k->in.width);
    if (v->blur_radius)
        k->dst[i] = variation_blurred(v, k->warped + (i - x), 1, k->in.width, x);
}

/** Down the columns, and the rest. An element is VARY_SHARED neighbours, in all channels: noise comes for as many at a time. */
enum { VARY_SHARED = 4 };

struct vary_finish {
    struct varied in;
    const uint8_t *warped, *blurred; /* blurred along the rows, where the picture is blurred */
    void *dst;
    struct images to;
    enum dtype dtype;
    float mean[3], stddev[3];
};

/** Elements of a picture. */
static inline int64_t vary_finish_count(const struct varied *in) {
    return (varied_pixels(in) + VARY_SHARED - 1) / VARY_SHARED;
}

/* Choices, where an index would be: arrays that are indexed lie in memory, not in registers. */
static inline uint32_t vary_bits(const struct rng_block *noise, int l) {
    return l == 0 ? noise->v[0] : l == 1 ? noise->v[1] : l == 2 ? noise->v[2] : noise->v[3];
}

static inline float vary_of_channel(const float of[3], int64_t c) {
    return c == 0 ? of[0] : c == 1 ? of[1] : of[2];
}

static inline uint8_t vary_shade(const struct vary_finish *k, const struct variation *v, int64_t picture, int32_t at,
                                 uint32_t noise) {
    int32_t x = at % k->in.width, y = at / k->in.width;
    int64_t first = picture * varied_pixels(&k->in);
    uint8_t shade = v->blur_radius ? variation_blurred(v, k->blurred + first + x, k->in.width, k->in.height, y)
                                   : k->warped[first + at];
    shade = variation_noisy(v, v->table[shade], noise);
    return variation_erases(v, x, y) ? v->erase_shade : shade;
}

static inline void vary_finish_element(const struct vary_finish *k, int64_t i) {
    int64_t elements = vary_finish_count(&k->in), picture = i / elements, pixels = varied_pixels(&k->in);
    int32_t first = (int32_t)(i % elements) * VARY_SHARED;
    const struct variation *v = varied_by(&k->in, picture);
    struct rng_block noise = {{0}};
    if (v->noise_scale)
        noise = variation_noise(v, first);
    for (int l = 0; l < VARY_SHARED; l++) {
        int32_t at = first + l;
        if (at >= pixels)
            continue;
        uint8_t shade = vary_shade(k, v, picture, at, vary_bits(&noise, l));
        for (int64_t c = 0; c < k->to.channels; c++)
            store_one(k->dst, k->dtype, index_of(&k->to, picture, c, at / k->in.width, at % k->in.width),
                      variation_normalised(shade, vary_of_channel(k->mean, c), vary_of_channel(k->stddev, c)));
    }
}
