#include "common/device/reference/kernels.h"
#include "common/op/variation.h"

/* Pictures with their variations -> images: each step on the whole picture, one pixel at a time. */

static size_t picture_pixels(const struct vary *vary) {
    return (size_t)vary->height * (size_t)vary->width;
}

static size_t vary_scratch_bytes(const struct kernel_request *request) {
    return 2 * picture_pixels(&request->op.vary);
}

static void warp(const struct vary *vary, const struct variation *v, const uint8_t *grey, uint8_t *out) {
    for (int32_t y = 0; y < vary->height; y++) {
        int32_t start[2];
        variation_row(v, vary->height, y, start);
        for (int32_t x = 0; x < vary->width; x++)
            *out++ = variation_sample(grey, vary->width, vary->height, start[0] + x * v->step[0], start[1] + x * v->step[1]);
    }
}

/* Along the rows to `between`, down the columns back again. */
static void blur(const struct vary *vary, const struct variation *v, uint8_t *pixels, uint8_t *between) {
    const int32_t width = vary->width, height = vary->height;
    for (int32_t y = 0; y < height; y++)
        for (int32_t x = 0; x < width; x++)
            between[y * width + x] = variation_blurred(v, pixels + y * width, 1, width, x);
    for (int32_t y = 0; y < height; y++)
        for (int32_t x = 0; x < width; x++)
            pixels[y * width + x] = variation_blurred(v, between + x, width, height, y);
}

static uint8_t finished(const struct vary *vary, const struct variation *v, uint8_t shade, int32_t at) {
    const struct rng_block noise = variation_noise(v, at - at % 4);
    shade = variation_noisy(v, v->table[shade], noise.v[at % 4]);
    return variation_erases(v, at % vary->width, at / vary->width) ? v->erase_shade : shade;
}

static void vary_forward(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    const struct vary *vary = &kernel->op.vary;
    const struct view dst = view_of(kernel, buffers, ARG_DST);
    const int64_t *src = dims_of(kernel, ARG_SRC);
    const int32_t pixels = (int32_t)picture_pixels(vary);
    uint8_t *varied = buffers[ARG_SCRATCH];
    for (int64_t n = 0; n < src[0]; n++) {
        const uint8_t *row = (const uint8_t *)buffers[ARG_SRC] + n * src[1];
        const struct variation *v = (const struct variation *)(const void *)row;
        warp(vary, v, row + sizeof *v, varied);
        if (v->blur_radius)
            blur(vary, v, varied, varied + pixels);
        for (int32_t at = 0; at < pixels; at++)
            varied[at] = finished(vary, v, varied[at], at);
        for (int c = 0; c < vary->channels; c++)
            for (int32_t at = 0; at < pixels; at++)
                view_set(dst, (n * vary->channels + c) * pixels + at,
                         (double)variation_normalised(varied[at], vary->mean[c], vary->stddev[c]));
    }
}

const struct reference_row reference_vary = {.run = {[PASS_FORWARD] = vary_forward}, .scratch_bytes = vary_scratch_bytes};
