#include "common/device/reference/kernels.h"

#include <math.h>

/*
 * One channel at a time, over the n = N*H*W values x of it:
 *   y = activation(scale * xhat + shift + residual),  xhat = (x - mean) / sqrt(variance + epsilon)
 * Batch statistics: mean = sum x / n, variance = sum (x - mean)^2 / n; frozen and inference: the running
 * ones. Backward, with g = dy where the activation lets it pass, else 0: dshift = sum g,  dscale = sum g
 * xhat,  dresidual = g dx = scale / sqrt(variance + epsilon) * (g - dshift / n - xhat dscale / n), without
 * the last two terms where frozen.
 */

/* The elements of one channel in an (N, C, H, W) tensor. */
struct channel {
    int64_t batch, channels, plane, index;
};

static struct channel channel_of(const struct kernel *kernel, int64_t index) {
    const int64_t *dims = dims_of(kernel, ARG_SRC);
    return (struct channel){dims[0], dims[1], dims[2] * dims[3], index};
}

static int64_t channel_count(const struct channel *c) {
    return c->batch * c->plane;
}

/* The position in the tensor of the channel's k-th element. */
static int64_t channel_at(const struct channel *c, int64_t k) {
    return (k / c->plane * c->channels + c->index) * c->plane + k % c->plane;
}

static void batch_statistics(const struct channel *c, struct view src, double *mean, double *variance) {
    int64_t count = channel_count(c);
    double sum = 0, squares = 0;
    for (int64_t k = 0; k < count; k++)
        sum += view_get(src, channel_at(c, k));
    *mean = sum / (double)count;
    for (int64_t k = 0; k < count; k++) {
        double d = view_get(src, channel_at(c, k)) - *mean;
        squares += d * d;
    }
    *variance = squares / (double)count;
}

static void update_running(const struct kernel *kernel, void *const buffers[ARG_COUNT],
                           const struct channel *c, double mean, double variance) {
    struct view running_mean = view_of(kernel, buffers, ARG_RUNNING_MEAN);
    struct view running_variance = view_of(kernel, buffers, ARG_RUNNING_VARIANCE);
    double momentum = (double)kernel->op.batch_norm.momentum, count = (double)channel_count(c);
    double unbiased = count > 1 ? variance * count / (count - 1) : variance;
    view_set(running_mean, c->index, (1 - momentum) * view_get(running_mean, c->index) + momentum * mean);
    view_set(running_variance, c->index,
             (1 - momentum) * view_get(running_variance, c->index) + momentum * unbiased);
    view_set(view_of(kernel, buffers, ARG_SAVED_MEAN), c->index, mean);
    view_set(view_of(kernel, buffers, ARG_SAVED_VARIANCE), c->index, variance);
}

/* dst and, in training, the mask. */
static void normalise(const struct kernel *kernel, void *const buffers[ARG_COUNT], const struct channel *c,
                      double mean, double variance) {
    const struct batch_norm *norm = &kernel->op.batch_norm;
    struct view src = view_of(kernel, buffers, ARG_SRC), residual = view_of(kernel, buffers, ARG_SRC2);
    struct view dst = view_of(kernel, buffers, ARG_DST);
    unsigned char *mask = view_of(kernel, buffers, ARG_WORKSPACE).data;
    double scale =
        view_get(view_of(kernel, buffers, ARG_SCALE), c->index) / sqrt(variance + (double)norm->epsilon);
    double shift = view_get(view_of(kernel, buffers, ARG_SHIFT), c->index);
    for (int64_t k = 0; k < channel_count(c); k++) {
        int64_t at = channel_at(c, k);
        double y = scale * (view_get(src, at) - mean) + shift;
        if (residual.data)
            y += view_get(residual, at);
        if (mask)
            mask[at] = activation_passes(norm->activation, y);
        view_set(dst, at, activation_apply(norm->activation, y));
    }
}

static void infer(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    for (int64_t i = 0; i < dims_of(kernel, ARG_SRC)[1]; i++) {
        struct channel c = channel_of(kernel, i);
        normalise(kernel, buffers, &c, view_get(view_of(kernel, buffers, ARG_RUNNING_MEAN), i),
                  view_get(view_of(kernel, buffers, ARG_RUNNING_VARIANCE), i));
    }
}

static void forward(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    if (kernel->op.batch_norm.frozen) {
        infer(kernel, buffers);
        return;
    }
    for (int64_t i = 0; i < dims_of(kernel, ARG_SRC)[1]; i++) {
        struct channel c = channel_of(kernel, i);
        double mean, variance;
        batch_statistics(&c, view_of(kernel, buffers, ARG_SRC), &mean, &variance);
        update_running(kernel, buffers, &c, mean, variance);
        normalise(kernel, buffers, &c, mean, variance);
    }
}

/* What the backward pass of one channel needs over and over. */
struct backward {
    struct view src, diff_dst, diff_src, diff_residual;
    const unsigned char *mask;
    double mean, inverse_deviation, factor; /* factor = scale * inverse_deviation */
};

static struct backward backward_of(const struct kernel *kernel, void *const buffers[ARG_COUNT], int64_t i) {
    const struct batch_norm *norm = &kernel->op.batch_norm;
    struct view mean = view_of(kernel, buffers, norm->frozen ? ARG_RUNNING_MEAN : ARG_SAVED_MEAN);
    struct view variance = view_of(kernel, buffers, norm->frozen ? ARG_RUNNING_VARIANCE : ARG_SAVED_VARIANCE);
    double inverse = 1 / sqrt(view_get(variance, i) + (double)norm->epsilon);
    return (struct backward){.src = view_of(kernel, buffers, ARG_SRC),
                             .diff_dst = view_of(kernel, buffers, ARG_DIFF_DST),
                             .diff_src = view_of(kernel, buffers, ARG_DIFF_SRC),
                             .diff_residual = view_of(kernel, buffers, ARG_DIFF_SRC2),
                             .mask = view_of(kernel, buffers, ARG_WORKSPACE).data,
                             .mean = view_get(mean, i),
                             .inverse_deviation = inverse,
                             .factor = view_get(view_of(kernel, buffers, ARG_SCALE), i) * inverse};
}

static double gradient_at(const struct backward *b, int64_t at) {
    return b->mask && !b->mask[at] ? 0 : view_get(b->diff_dst, at);
}

static double normalised_at(const struct backward *b, int64_t at) {
    return (view_get(b->src, at) - b->mean) * b->inverse_deviation;
}

static void backward_channel(const struct kernel *kernel, void *const buffers[ARG_COUNT],
                             const struct channel *c) {
    struct backward b = backward_of(kernel, buffers, c->index);
    int64_t count = channel_count(c);
    double diff_scale = 0, diff_shift = 0;
    for (int64_t k = 0; k < count; k++) {
        int64_t at = channel_at(c, k);
        diff_shift += gradient_at(&b, at);
        diff_scale += gradient_at(&b, at) * normalised_at(&b, at);
    }
    view_set(view_of(kernel, buffers, ARG_DIFF_SCALE), c->index, diff_scale);
    view_set(view_of(kernel, buffers, ARG_DIFF_SHIFT), c->index, diff_shift);
    double through_statistics = kernel->op.batch_norm.frozen ? 0 : 1 / (double)count;
    for (int64_t k = 0; k < count; k++) {
        int64_t at = channel_at(c, k);
        double g = gradient_at(&b, at); /* read before either output, which may overlay it */
        double mean_part = (diff_shift + normalised_at(&b, at) * diff_scale) * through_statistics;
        view_set(b.diff_src, at, b.factor * (g - mean_part));
        if (b.diff_residual.data)
            view_set(b.diff_residual, at, g);
    }
}

static void backward(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    for (int64_t i = 0; i < dims_of(kernel, ARG_SRC)[1]; i++) {
        struct channel c = channel_of(kernel, i);
        backward_channel(kernel, buffers, &c);
    }
}

static size_t workspace_bytes(const struct kernel_request *request) {
    return (size_t)shape_count(&request->args.desc[ARG_SRC].shape);
}

const struct reference_row reference_batch_norm = {
    .run = {[PASS_INFER] = infer, [PASS_FORWARD] = forward, [PASS_BACKWARD_DATA] = backward},
    .workspace_bytes = workspace_bytes,
};
