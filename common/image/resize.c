#include "common/image/resize.h"

#include <math.h>
#include <stdlib.h>

enum { PRECISION_BITS = 32 - 8 - 2 };

static double triangle(double x) {
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* The weights of one output, in Pillow's order of operations: the rounding of the doubles is part of the
 * result. */
static void weigh(struct resize_axis *axis, int at, double *scratch) {
    const double scale = (double)axis->in / axis->out;
    const double filter_scale = scale < 1.0 ? 1.0 : scale;
    const double support = filter_scale, inverse = 1.0 / filter_scale;
    const double centre = (at + 0.5) * scale;
    int first = (int)(centre - support + 0.5), end = (int)(centre + support + 0.5);
    first = first < 0 ? 0 : first;
    end = end > axis->in ? axis->in : end;
    double sum = 0.0;
    for (int i = 0; i < end - first; i++) {
        scratch[i] = triangle((i + first - centre + 0.5) * inverse);
        sum += scratch[i];
    }
    int32_t *weights = axis->weights + (size_t)at * (size_t)axis->taps;
    for (int i = 0; i < end - first; i++) {
        double weight = sum != 0.0 ? scratch[i] / sum : scratch[i];
        weights[i] = (int32_t)(0.5 + weight * (1 << PRECISION_BITS));
    }
    axis->first[at] = first;
    axis->count[at] = end - first;
}

bool resize_axis_init(struct resize_axis *axis, int in, int out, struct error *err) {
    const double scale = (double)in / out;
    *axis = (struct resize_axis){.in = in, .out = out, .taps = (int)ceil(scale < 1.0 ? 1.0 : scale) * 2 + 1};
    axis->first = calloc((size_t)out, sizeof *axis->first);
    axis->count = calloc((size_t)out, sizeof *axis->count);
    axis->weights = calloc((size_t)out * (size_t)axis->taps, sizeof *axis->weights);
    double *scratch = calloc((size_t)axis->taps, sizeof *scratch);
    const bool ok = axis->first && axis->count && axis->weights && scratch;
    for (int at = 0; ok && at < out; at++)
        weigh(axis, at, scratch);
    free(scratch);
    if (ok)
        return true;
    resize_axis_fini(axis);
    return error_set(err, ERROR_MEMORY, "no memory to resize %d pixels to %d", in, out);
}

void resize_axis_fini(struct resize_axis *axis) {
    free(axis->first);
    free(axis->count);
    free(axis->weights);
    *axis = (struct resize_axis){0};
}

/* The rounded weights may sum to a little more than 2^22, never to less than 0. */
static uint8_t clip(int32_t sum) {
    int32_t value = sum >> PRECISION_BITS;
    return (uint8_t)(value > 255 ? 255 : value);
}

void resize_row(const struct resize_axis *axis, const uint8_t *from, uint8_t *to) {
    for (int x = 0; x < axis->out; x++) {
        const int32_t *weights = axis->weights + (size_t)x * (size_t)axis->taps;
        const uint8_t *in = from + axis->first[x];
        int32_t sum = 1 << (PRECISION_BITS - 1);
        for (int i = 0; i < axis->count[x]; i++)
            sum += in[i] * weights[i];
        to[x] = clip(sum);
    }
}

void resize_column_row(const struct resize_axis *axis, const uint8_t *strip, int width, int y, int32_t *sums,
                       uint8_t *to) {
    const int32_t *weights = axis->weights + (size_t)y * (size_t)axis->taps;
    for (int x = 0; x < width; x++)
        sums[x] = 1 << (PRECISION_BITS - 1);
    for (int i = 0; i < axis->count[y]; i++) {
        const uint8_t *row = strip + (size_t)(axis->first[y] + i) * (size_t)width;
        const int32_t weight = weights[i];
        for (int x = 0; x < width; x++)
            sums[x] += row[x] * weight;
    }
    for (int x = 0; x < width; x++)
        to[x] = clip(sums[x]);
}
