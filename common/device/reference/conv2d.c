#include "common/device/reference/kernels.h"

#include <math.h>

/*
 * y(n,o,p,q) = activation(b(o) + r(n,o,p,q) + sum_{c,i,j} x(n, c, p*stride + i - pad, q*stride + j - pad)
 * w(o,c,i,j)) with c over the channels of o's group and x zero outside the image. Each pass gathers: it walks
 * over its own outputs and sums in double what contributes to one, so that nothing is ever accumulated in the
 * output's dtype.
 */

struct geometry {
    int64_t batch, in, height, width;   /* x: (N, C, H, W) */
    int64_t out, out_height, out_width; /* y: (N, O, P, Q) */
    int64_t group_in, group_out;        /* channels of one group */
    const struct window *window;
};

static struct geometry geometry_of(const struct kernel *kernel, enum arg source, enum arg destination) {
    const int64_t *x = dims_of(kernel, source), *y = dims_of(kernel, destination);
    const struct conv2d *conv = &kernel->op.conv2d;
    return (struct geometry){.batch = x[0],
                             .in = x[1],
                             .height = x[2],
                             .width = x[3],
                             .out = y[1],
                             .out_height = y[2],
                             .out_width = y[3],
                             .group_in = x[1] / conv->groups,
                             .group_out = y[1] / conv->groups,
                             .window = &conv->window};
}

static int64_t source_index(const struct geometry *g, int64_t n, int64_t c, int64_t y, int64_t x) {
    return ((n * g->in + c) * g->height + y) * g->width + x;
}

static int64_t destination_index(const struct geometry *g, int64_t n, int64_t o, int64_t p, int64_t q) {
    return ((n * g->out + o) * g->out_height + p) * g->out_width + q;
}

static int64_t weight_index(const struct geometry *g, int64_t o, int64_t c, int i, int j) {
    return ((o * g->group_in + c) * g->window->kernel[0] + i) * g->window->kernel[1] + j;
}

/* Where tap i of the window at p reads along an axis of that size; false in the padding. */
static bool tap_reads(const struct window *w, int axis, int64_t p, int i, int64_t size, int64_t *at) {
    *at = p * w->stride[axis] + i - w->pad_before[axis];
    return *at >= 0 && *at < size;
}

/* The window whose tap i reads `at` along an axis; false where there is none. */
static bool tap_read_by(const struct window *w, int axis, int64_t at, int i, int64_t size, int64_t *p) {
    int64_t offset = at + w->pad_before[axis] - i;
    *p = offset / w->stride[axis];
    return offset >= 0 && offset % w->stride[axis] == 0 && *p < size;
}

static double forward_sum(const struct geometry *g, struct view src, struct view weight,
                          const int64_t at[4]) {
    int64_t first = at[1] / g->group_out * g->group_in, y, x;
    double sum = 0;
    for (int64_t c = 0; c < g->group_in; c++)
        for (int i = 0; i < g->window->kernel[0]; i++) {
            if (!tap_reads(g->window, 0, at[2], i, g->height, &y))
                continue;
            for (int j = 0; j < g->window->kernel[1]; j++)
                if (tap_reads(g->window, 1, at[3], j, g->width, &x))
                    sum += view_get(src, source_index(g, at[0], first + c, y, x)) *
                           view_get(weight, weight_index(g, at[1], c, i, j));
        }
    return sum;
}

/* Splits a position in a dense tensor into its four coordinates. */
static void coordinates(int64_t position, const int64_t dims[4], int64_t at[4]) {
    for (int i = 3; i >= 0; i--) {
        at[i] = position % dims[i];
        position /= dims[i];
    }
}

/*
 * The 8-bit form, in the order of struct conv2d_int8. A double holds every sum of products of integers exactly; a statement
 * for each rounding, since a compiler may fuse what stands in one.
 */
static double int8_result(const struct conv2d *conv, double sum, double factor, double bias, double residual) {
    float x = (float)sum;
    x = x * (float)factor;
    x = x + (float)bias;
    x = fmaf(conv->int8.residual_factor, (float)residual, x);
    return activation_apply(conv->activation, (double)x);
}

static void forward_int8(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct geometry g = geometry_of(kernel, ARG_SRC, ARG_DST);
    struct view src = view_of(kernel, buffers, ARG_SRC), weight = view_of(kernel, buffers, ARG_WEIGHT);
    struct view bias = view_of(kernel, buffers, ARG_BIAS), residual = view_of(kernel, buffers, ARG_SRC2);
    struct view factor = view_of(kernel, buffers, ARG_SCALE), dst = view_of(kernel, buffers, ARG_DST);
    int64_t at[4], count = count_of(kernel, ARG_DST);
    for (int64_t k = 0; k < count; k++) {
        coordinates(k, dims_of(kernel, ARG_DST), at);
        double sum = forward_sum(&g, src, weight, at);
        view_set(dst, k, int8_result(&kernel->op.conv2d, sum, view_get(factor, at[1]), bias.data ? view_get(bias, at[1]) : 0,
                                     residual.data ? view_get(residual, k) : 0));
    }
}

static void forward(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct geometry g = geometry_of(kernel, ARG_SRC, ARG_DST);
    struct view src = view_of(kernel, buffers, ARG_SRC), weight = view_of(kernel, buffers, ARG_WEIGHT);
    struct view bias = view_of(kernel, buffers, ARG_BIAS), residual = view_of(kernel, buffers, ARG_SRC2);
    struct view dst = view_of(kernel, buffers, ARG_DST);
    int64_t at[4], count = count_of(kernel, ARG_DST);
    for (int64_t k = 0; k < count; k++) {
        coordinates(k, dims_of(kernel, ARG_DST), at);
        double sum = forward_sum(&g, src, weight, at);
        if (bias.data)
            sum += view_get(bias, at[1]);
        if (residual.data)
            sum += view_get(residual, k);
        view_set(dst, k, activation_apply(kernel->op.conv2d.activation, sum));
    }
}

static void infer(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    if (op_is_int8(&kernel->op))
        forward_int8(kernel, buffers);
    else
        forward(kernel, buffers);
}

/* dx(n,c,y,x) = sum over the o of c's group and the taps (i,j) that read (y,x) of dy(n,o,p,q) w(o,c,i,j) */
static double backward_data_sum(const struct geometry *g, struct view diff_dst, struct view weight,
                                const int64_t at[4]) {
    int64_t group = at[1] / g->group_in, c = at[1] % g->group_in, p, q;
    double sum = 0;
    for (int64_t o = group * g->group_out; o < (group + 1) * g->group_out; o++)
        for (int i = 0; i < g->window->kernel[0]; i++) {
            if (!tap_read_by(g->window, 0, at[2], i, g->out_height, &p))
                continue;
            for (int j = 0; j < g->window->kernel[1]; j++)
                if (tap_read_by(g->window, 1, at[3], j, g->out_width, &q))
                    sum += view_get(diff_dst, destination_index(g, at[0], o, p, q)) *
                           view_get(weight, weight_index(g, o, c, i, j));
        }
    return sum;
}

static void backward_data(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct geometry g = geometry_of(kernel, ARG_DIFF_SRC, ARG_DIFF_DST);
    struct view diff_dst = view_of(kernel, buffers, ARG_DIFF_DST),
                weight = view_of(kernel, buffers, ARG_WEIGHT);
    struct view diff_src = view_of(kernel, buffers, ARG_DIFF_SRC);
    int64_t at[4], count = count_of(kernel, ARG_DIFF_SRC);
    for (int64_t k = 0; k < count; k++) {
        coordinates(k, dims_of(kernel, ARG_DIFF_SRC), at);
        view_set(diff_src, k, backward_data_sum(&g, diff_dst, weight, at));
    }
}

/* dw(o,c,i,j) = sum_{n,p,q} dy(n,o,p,q) x(n, c, p*stride + i - pad, q*stride + j - pad) */
static double backward_weight_sum(const struct geometry *g, struct view src, struct view diff_dst,
                                  const int64_t at[4]) {
    int64_t c = at[0] / g->group_out * g->group_in + at[1], y, x;
    double sum = 0;
    for (int64_t n = 0; n < g->batch; n++)
        for (int64_t p = 0; p < g->out_height; p++) {
            if (!tap_reads(g->window, 0, p, (int)at[2], g->height, &y))
                continue;
            for (int64_t q = 0; q < g->out_width; q++)
                if (tap_reads(g->window, 1, q, (int)at[3], g->width, &x))
                    sum += view_get(diff_dst, destination_index(g, n, at[0], p, q)) *
                           view_get(src, source_index(g, n, c, y, x));
        }
    return sum;
}

/* db(o) = sum_{n,p,q} dy(n,o,p,q) */
static double backward_bias_sum(const struct geometry *g, struct view diff_dst, int64_t o) {
    int64_t plane = g->out_height * g->out_width;
    double sum = 0;
    for (int64_t n = 0; n < g->batch; n++)
        for (int64_t k = 0; k < plane; k++)
            sum += view_get(diff_dst, (n * g->out + o) * plane + k);
    return sum;
}

static void backward_weight(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct geometry g = geometry_of(kernel, ARG_SRC, ARG_DIFF_DST);
    struct view src = view_of(kernel, buffers, ARG_SRC), diff_dst = view_of(kernel, buffers, ARG_DIFF_DST);
    struct view diff_weight = view_of(kernel, buffers, ARG_DIFF_WEIGHT);
    struct view diff_bias = view_of(kernel, buffers, ARG_DIFF_BIAS);
    int64_t at[4], count = count_of(kernel, ARG_DIFF_WEIGHT);
    for (int64_t k = 0; k < count; k++) {
        coordinates(k, dims_of(kernel, ARG_DIFF_WEIGHT), at);
        view_set(diff_weight, k, backward_weight_sum(&g, src, diff_dst, at));
    }
    for (int64_t o = 0; diff_bias.data && o < g.out; o++)
        view_set(diff_bias, o, backward_bias_sum(&g, diff_dst, o));
}

const struct reference_row reference_conv2d = {
    .run = {[PASS_INFER] = infer,
            [PASS_FORWARD] = forward,
            [PASS_BACKWARD_DATA] = backward_data,
            [PASS_BACKWARD_WEIGHT] = backward_weight},
};
