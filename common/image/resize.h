#pragma once
#include "common/base/error.h"
#include <stdint.h>

/**
 * One axis of an antialiased resize with a triangle filter, in fixed point with 22 fraction bits: bit for bit
 * what Pillow's resize(..., BILINEAR) does to 8-bit pictures (its Resample.c,
 * ImagingResampleHorizontal_8bpc). Horizontal first, rounded to 8 bits, then vertical. Differs from it only
 * in that the strip between the passes is filled row by row.
 */
struct resize_axis {
    int in, out;
    int taps;         /**< room for weights of each output */
    int *first;       /**< (out) the first input that counts */
    int *count;       /**< (out) how many count, <= taps */
    int32_t *weights; /**< (out, taps) sums to about 2^22 */
};

/** The weights from `in` to `out` pixels, both > 0. Owned by axis. Error: MEMORY. */
bool resize_axis_init(struct resize_axis *axis, int in, int out, struct error *err);
void resize_axis_fini(struct resize_axis *axis);

/** One row: from (in) to (out). */
void resize_row(const struct resize_axis *axis, const uint8_t *from, uint8_t *to);

/** Row `y` of the result of shape (out, width), from strip (in, width). sums: (width), scratch. */
void resize_column_row(const struct resize_axis *axis, const uint8_t *strip, int width, int y, int32_t *sums,
                       uint8_t *to);
