#include "tests/emulation/cudnn/internal.h"

#include <string.h>

/*
 * Sums over rows of the image, one tap of the filter at a time: the inner loops are over a row's pixels, which is good where
 * groups have few channels. A filter of one pixel without padding or steps sees the plane as a single row.
 */

struct span {
    int first, last; /* of the result's pixels that see the image with this tap: first <= i < last */
    int offset;      /* the image's pixel is i * stride + offset */
};

static int divide_up(int a, int b) {
    return a >= 0 ? (a + b - 1) / b : -(-a / b);
}

static struct span span_of(const struct sizes *s, int axis, int tap) {
    struct span span = {.offset = tap * s->dilation[axis] - s->pad[axis]};
    int last = divide_up(s->in[axis] - span.offset, s->stride[axis]);
    span.first = span.offset < 0 ? divide_up(-span.offset, s->stride[axis]) : 0;
    span.last = last < s->out[axis] ? last : s->out[axis];
    return span;
}

static struct sizes flattened(const struct sizes *s) {
    struct sizes flat = *s;
    bool pointwise =
        s->kernel[0] == 1 && s->kernel[1] == 1 && s->stride[0] == 1 && s->stride[1] == 1 && !s->pad[0] && !s->pad[1];
    if (pointwise) {
        flat.in[1] = flat.out[1] = s->in[0] * s->in[1];
        flat.in[0] = flat.out[0] = 1;
    }
    return flat;
}

/** Where things lie for one (sample, output channel, channel within the group). */
struct place {
    size_t x, w, y;
};

static struct place place_of(const struct sizes *s, int n, int k, int c) {
    int channels = s->channels / s->groups, group = k / (s->outputs / s->groups);
    size_t in = (size_t)s->in[0] * (size_t)s->in[1], out = (size_t)s->out[0] * (size_t)s->out[1];
    return (struct place){
        .x = ((size_t)n * (size_t)s->channels + (size_t)(group * channels + c)) * in,
        .w = ((size_t)k * (size_t)channels + (size_t)c) * (size_t)s->kernel[0] * (size_t)s->kernel[1],
        .y = ((size_t)n * (size_t)s->outputs + (size_t)k) * out,
    };
}

/** What is done with a row of the image and one of the result, for a weight. */
typedef void row_function(const float *x, int stride, float *y, int count, float *w);

static void row_forward(const float *x, int stride, float *y, int count, float *w) {
    float weight = *w;
    if (stride == 1)
        for (int i = 0; i < count; i++)
            y[i] += weight * x[i];
    else
        for (int i = 0; i < count; i++)
            y[i] += weight * x[i * stride];
}

static void row_data(const float *x, int stride, float *y, int count, float *w) {
    float weight = *w, *dx = (float *)x;
    if (stride == 1)
        for (int i = 0; i < count; i++)
            dx[i] += weight * y[i];
    else
        for (int i = 0; i < count; i++)
            dx[i * stride] += weight * y[i];
}

static void row_filter(const float *x, int stride, float *y, int count, float *w) {
    float sum = 0;
    if (stride == 1)
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < count; i++)
            sum += x[i] * y[i];
    else
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < count; i++)
            sum += x[i * stride] * y[i];
    *w += sum;
}

/** One image plane, one filter plane, one result plane. */
static inline void each_row(const struct sizes *s, const float *x, float *w, float *y, row_function *row) {
    for (int r = 0; r < s->kernel[0]; r++)
        for (int t = 0; t < s->kernel[1]; t++) {
            struct span down = span_of(s, 0, r), right = span_of(s, 1, t);
            for (int p = down.first; p < down.last && right.first < right.last; p++)
                row(x + (size_t)(p * s->stride[0] + down.offset) * (size_t)s->in[1] + right.first * s->stride[1] +
                        right.offset,
                    s->stride[1], y + (size_t)p * (size_t)s->out[1] + right.first, right.last - right.first,
                    &w[r * s->kernel[1] + t]);
        }
}

static inline void each_plane(const struct sizes *sizes, const float *x, float *w, float *y, row_function *row) {
    struct sizes s = flattened(sizes);
    for (int n = 0; n < s.batch; n++)
        for (int k = 0; k < s.outputs; k++)
            for (int c = 0; c < s.channels / s.groups; c++) {
                struct place at = place_of(&s, n, k, c);
                each_row(&s, x + at.x, w + at.w, y + at.y, row);
            }
}

/** Groups of some channels are quicker as matrix products. */
static bool is_product(const struct sizes *s) {
    enum { FEW = 4 };
    return s->outputs / s->groups >= FEW;
}

void loop_forward(const struct sizes *s, const float *x, const float *w, float *y) {
    memset(y, 0, (size_t)s->batch * (size_t)s->outputs * (size_t)s->out[0] * (size_t)s->out[1] * sizeof *y);
    if (is_product(s))
        product_forward(s, x, w, y);
    else
        each_plane(s, x, (float *)w, y, row_forward);
}

void loop_data(const struct sizes *s, const float *w, const float *dy, float *dx) {
    memset(dx, 0, (size_t)s->batch * (size_t)s->channels * (size_t)s->in[0] * (size_t)s->in[1] * sizeof *dx);
    if (is_product(s))
        product_data(s, w, dy, dx);
    else
        each_plane(s, dx, (float *)w, (float *)dy, row_data);
}

void loop_filter(const struct sizes *s, const float *x, const float *dy, float *dw) {
    size_t taps = (size_t)s->kernel[0] * (size_t)s->kernel[1];
    memset(dw, 0, (size_t)s->outputs * (size_t)(s->channels / s->groups) * taps * sizeof *dw);
    if (is_product(s))
        product_filter(s, x, dy, dw);
    else
        each_plane(s, x, dw, (float *)dy, row_filter);
}
