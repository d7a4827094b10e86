#include "tests/emulation/cudnn/internal.h"

#include <stdlib.h>
#include <string.h>

/*
 * Convolutions as matrix products, for all but a few channels a group: the image's pixels are laid out by taps ("columns":
 * a row for each channel and tap, a column for each of the result's pixels), some images at a time.
 *   y = w columns,  dcolumns = w^T dy,  dw = dy columns^T
 */

enum { BLOCK_DEPTH = 64, BLOCK_WIDTH = 512, MOST_COLUMN_FLOATS = 1 << 22 };

/** c += a b; a(i, p) = a[i * a_row + p * a_column], b and c by rows. */
struct product {
    int rows, columns, depth;
    const float *a, *b;
    size_t a_row, a_column;
    float *c;
};

/** Two rows of c by four of b at a time: what registers hold. */
static void multiply_tile(const struct product *p, int i, int depth, int first, int count) {
    const float *a0 = p->a + (size_t)i * p->a_row + (size_t)depth * p->a_column, *a1 = a0 + p->a_row;
    const size_t s = p->a_column, n = (size_t)p->columns;
    const float *b = p->b + (size_t)depth * n + (size_t)first;
    float *restrict c0 = p->c + (size_t)i * n + (size_t)first, *restrict c1 = c0 + n;
    const float x0 = a0[0], x1 = a0[s], x2 = a0[2 * s], x3 = a0[3 * s], y0 = a1[0], y1 = a1[s], y2 = a1[2 * s],
                y3 = a1[3 * s];
    for (int j = 0; j < count; j++) {
        float b0 = b[j], b1 = b[n + (size_t)j], b2 = b[2 * n + (size_t)j], b3 = b[3 * n + (size_t)j];
        c0[j] += x0 * b0 + x1 * b1 + x2 * b2 + x3 * b3;
        c1[j] += y0 * b0 + y1 * b1 + y2 * b2 + y3 * b3;
    }
}

static void multiply_row(const struct product *p, int i, int depth, int first, int count) {
    float a = p->a[(size_t)i * p->a_row + (size_t)depth * p->a_column];
    const float *b = p->b + (size_t)depth * (size_t)p->columns + (size_t)first;
    float *restrict c = p->c + (size_t)i * (size_t)p->columns + (size_t)first;
    for (int j = 0; j < count; j++)
        c[j] += a * b[j];
}

static void multiply_block(const struct product *p, int depth, int depth_end, int first, int count) {
    int pairs = p->rows / 2 * 2, fours = depth + (depth_end - depth) / 4 * 4;
    for (int i = 0; i < pairs; i += 2) {
        for (int d = depth; d < fours; d += 4)
            multiply_tile(p, i, d, first, count);
        for (int d = fours; d < depth_end; d++) {
            multiply_row(p, i, d, first, count);
            multiply_row(p, i + 1, d, first, count);
        }
    }
    for (int d = depth; d < depth_end && pairs < p->rows; d++)
        multiply_row(p, pairs, d, first, count);
}

static int smaller(int a, int b) {
    return a < b ? a : b;
}

static void multiply(const struct product *p) {
    for (int first = 0; first < p->columns; first += BLOCK_WIDTH)
        for (int depth = 0; depth < p->depth; depth += BLOCK_DEPTH)
            multiply_block(p, depth, smaller(depth + BLOCK_DEPTH, p->depth), first, smaller(BLOCK_WIDTH, p->columns - first));
}

/* --- columns --- */

/** A group's channels of some images, and the buffers that they are worked on in. */
struct part {
    const struct sizes *s;
    int group, first, images;
    int channels, outputs; /* of the group */
    int taps;              /* rows of columns: channel, then tap */
    int pixels;            /* of one image's result */
    float *columns;        /* (taps, images * pixels), or, turned, (images * pixels, taps) */
    float *results;        /* (outputs, images * pixels) */
};

/** The image's pixel under a tap, or -1. */
static inline int64_t seen(const struct sizes *s, int r, int t, int p, int q) {
    int y = p * s->stride[0] + r * s->dilation[0] - s->pad[0], x = q * s->stride[1] + t * s->dilation[1] - s->pad[1];
    return y >= 0 && y < s->in[0] && x >= 0 && x < s->in[1] ? (int64_t)y * s->in[1] + x : -1;
}

/** What is done with a place of the columns and the pixel that it stands for. */
typedef void place_function(float *place, float *pixel);

static inline void fetch(float *place, float *pixel) {
    *place = pixel ? *pixel : 0;
}

static inline void add_back(float *place, float *pixel) {
    if (pixel)
        *pixel += *place;
}

/** One image, one channel, one tap. step: from one pixel's place to the next one's. */
static inline void each_place(const struct sizes *s, float *plane, int r, int t, float *place, size_t step,
                              place_function *visit) {
    for (int p = 0; p < s->out[0]; p++)
        for (int q = 0; q < s->out[1]; q++, place += step) {
            int64_t at = seen(s, r, t, p, q);
            visit(place, at >= 0 ? plane + at : NULL);
        }
}

static inline void each_column(const struct part *part, float *x, bool turned, place_function *visit) {
    const struct sizes *s = part->s;
    size_t width = (size_t)part->images * (size_t)part->pixels, plane = (size_t)s->in[0] * (size_t)s->in[1];
    size_t step = turned ? (size_t)part->taps : 1;
    for (int row = 0; row < part->taps; row++)
        for (int n = 0; n < part->images; n++) {
            int c = row / (s->kernel[0] * s->kernel[1]), r = row / s->kernel[1] % s->kernel[0], t = row % s->kernel[1];
            float *from =
                x + ((size_t)(part->first + n) * (size_t)s->channels + (size_t)(part->group * part->channels + c)) * plane;
            size_t pixel = (size_t)n * (size_t)part->pixels;
            float *place = part->columns + (turned ? pixel * step + (size_t)row : (size_t)row * width + pixel);
            each_place(s, from, r, t, place, step, visit);
        }
}

/** results <-> y, whose images lie apart. */
static void copy_results(const struct part *part, float *y, bool into_y) {
    size_t pixels = (size_t)part->pixels;
    for (int k = 0; k < part->outputs; k++)
        for (int n = 0; n < part->images; n++) {
            float *result = part->results + ((size_t)k * (size_t)part->images + (size_t)n) * pixels;
            size_t channel = (size_t)(part->first + n) * (size_t)part->s->outputs + (size_t)(part->group * part->outputs + k);
            float *plane = y + channel * pixels;
            memcpy(into_y ? plane : result, into_y ? result : plane, pixels * sizeof *y);
        }
}

/* --- the three directions, on a part --- */

static const float *weights_of(const struct part *part, const float *w) {
    return w + (size_t)part->group * (size_t)part->outputs * (size_t)part->taps;
}

static void part_forward(const struct part *part, float *x, float *w, float *y) {
    struct product p = {part->outputs, part->images * part->pixels, part->taps, weights_of(part, w),
                        part->columns, (size_t)part->taps,          1,          part->results};
    each_column(part, x, false, fetch);
    memset(part->results, 0, (size_t)p.rows * (size_t)p.columns * sizeof *p.c);
    multiply(&p);
    copy_results(part, y, true);
}

static void part_data(const struct part *part, float *dx, float *w, float *dy) {
    struct product p = {part->taps, part->images * part->pixels, part->outputs, weights_of(part, w), part->results,
                        1,          (size_t)part->taps,          part->columns};
    copy_results(part, dy, false);
    memset(part->columns, 0, (size_t)p.rows * (size_t)p.columns * sizeof *p.c);
    multiply(&p);
    each_column(part, dx, false, add_back);
}

static void part_filter(const struct part *part, float *x, float *dw, float *dy) {
    int width = part->images * part->pixels;
    struct product p = {part->outputs, part->taps,    width, part->results,
                        part->columns, (size_t)width, 1,     (float *)weights_of(part, dw)};
    copy_results(part, dy, false);
    each_column(part, x, true, fetch);
    multiply(&p);
}

/** Cuts the batch into parts whose columns stay small. */
static void each_part(const struct sizes *s, float *x, float *w, float *y,
                      void (*work)(const struct part *, float *, float *, float *)) {
    struct part part = {.s = s, .channels = s->channels / s->groups, .outputs = s->outputs / s->groups};
    part.taps = part.channels * s->kernel[0] * s->kernel[1];
    part.pixels = s->out[0] * s->out[1];
    int64_t most = MOST_COLUMN_FLOATS / ((int64_t)part.taps * part.pixels);
    int images = most < 1 ? 1 : most < s->batch ? (int)most : s->batch;
    size_t width = (size_t)images * (size_t)part.pixels;
    part.columns = malloc(width * (size_t)part.taps * sizeof *part.columns);
    part.results = malloc(width * (size_t)part.outputs * sizeof *part.results);
    if (!part.columns || !part.results)
        abort();
    for (part.group = 0; part.group < s->groups; part.group++)
        for (part.first = 0; part.first < s->batch; part.first += images) {
            part.images = smaller(images, s->batch - part.first);
            work(&part, x, w, y);
        }
    free(part.columns);
    free(part.results);
}

void product_forward(const struct sizes *s, const float *x, const float *w, float *y) {
    each_part(s, (float *)x, (float *)w, y, part_forward);
}

void product_data(const struct sizes *s, const float *w, const float *dy, float *dx) {
    each_part(s, dx, (float *)w, (float *)dy, part_data);
}

void product_filter(const struct sizes *s, const float *x, const float *dy, float *dw) {
    each_part(s, (float *)x, dw, (float *)dy, part_filter);
}
