#include "common/device/reference/kernels.h"

#include <math.h>

/*
 * One channel at a time, over the n = N*H*W values x of it:
 *   y = activation(scale * xhat + shift + residual),  xhat = (x - mean) / sqrt(variance + epsilon)
 * Batch statistics: mean = sum x / n, variance = sum (x - mean)^2 / n; frozen and inference: the running
 * ones. Backward, with g = dy where the activation lets it pass, else 0: dshift = sum g,  dscale = sum g
 * xhat,  dresidual = g dx = scale / sqrt(variance + epsilon) * (g - dshift / n - xhat dscale / n), without
 * the last two terms where frozen. Synchronised, n and all sums but those that end as dscale and dshift are over
 * the images of all ranks: ARG_SUMS, which OP_BATCH_NORM_SUMS makes, has them.
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

/* Of a batch; variance is biased. */
struct statistics {
    double count, mean, variance;
};

static struct statistics batch_statistics(const struct channel *c, struct view src) {
    int64_t count = channel_count(c);
    struct statistics of = {.count = (double)count};
    double sum = 0, squares = 0;
    for (int64_t k = 0; k < count; k++)
        sum += view_get(src, channel_at(c, k));
    of.mean = sum / of.count;
    for (int64_t k = 0; k < count; k++) {
        double d = view_get(src, channel_at(c, k)) - of.mean;
        squares += d * d;
    }
    of.variance = squares / of.count;
    return of;
}

/* One of the three rows of ARG_SUMS, at a channel. */
static double sum_at(const struct kernel *kernel, void *const buffers[ARG_COUNT], int row, int64_t channel) {
    return view_get(view_of(kernel, buffers, ARG_SUMS), row * dims_of(kernel, ARG_SUMS)[1] + channel);
}

static void set_sums(const struct kernel *kernel, void *const buffers[ARG_COUNT], int64_t channel, const double sums[3]) {
    for (int row = 0; row < 3; row++)
        view_set(view_of(kernel, buffers, ARG_SUMS), row * dims_of(kernel, ARG_SUMS)[1] + channel, sums[row]);
}

static struct statistics summed_statistics(const struct kernel *kernel, void *const buffers[ARG_COUNT], int64_t channel) {
    double count = sum_at(kernel, buffers, 0, channel), mean = sum_at(kernel, buffers, 1, channel) / count;
    return (struct statistics){count, mean, fmax(sum_at(kernel, buffers, 2, channel) / count - mean * mean, 0)};
}

static void update_running(const struct kernel *kernel, void *const buffers[ARG_COUNT], int64_t channel,
                           const struct statistics *batch) {
    struct view running_mean = view_of(kernel, buffers, ARG_RUNNING_MEAN);
    struct view running_variance = view_of(kernel, buffers, ARG_RUNNING_VARIANCE);
    double momentum = (double)kernel->op.batch_norm.momentum, count = batch->count;
    double unbiased = count > 1 ? batch->variance * count / (count - 1) : batch->variance;
    view_set(running_mean, channel, (1 - momentum) * view_get(running_mean, channel) + momentum * batch->mean);
    view_set(running_variance, channel, (1 - momentum) * view_get(running_variance, channel) + momentum * unbiased);
    view_set(view_of(kernel, buffers, ARG_SAVED_MEAN), channel, batch->mean);
    view_set(view_of(kernel, buffers, ARG_SAVED_VARIANCE), channel, batch->variance);
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
        struct statistics batch = kernel->op.batch_norm.synchronised ? summed_statistics(kernel, buffers, i)
                                                                     : batch_statistics(&c, view_of(kernel, buffers, ARG_SRC));
        update_running(kernel, buffers, i, &batch);
        normalise(kernel, buffers, &c, batch.mean, batch.variance);
    }
}

/* Another rank's sums can be added only where all are about the same point: about zero. */
static void forward_sums(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    struct view src = view_of(kernel, buffers, ARG_SRC);
    for (int64_t i = 0; i < dims_of(kernel, ARG_SRC)[1]; i++) {
        struct channel c = channel_of(kernel, i);
        double sums[3] = {(double)channel_count(&c)};
        for (int64_t k = 0; k < channel_count(&c); k++) {
            double x = view_get(src, channel_at(&c, k));
            sums[1] += x;
            sums[2] += x * x;
        }
        set_sums(kernel, buffers, i, sums);
    }
}

/* What the backward pass of one channel needs over and over. */
struct backward {
    struct view src, diff_dst, diff_src, diff_residual;
    const unsigned char *mask;
    double mean, inverse_deviation;
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
                             .inverse_deviation = inverse};
}

static double gradient_at(const struct backward *b, int64_t at) {
    return b->mask && !b->mask[at] ? 0 : view_get(b->diff_dst, at);
}

static double normalised_at(const struct backward *b, int64_t at) {
    return (view_get(b->src, at) - b->mean) * b->inverse_deviation;
}

/* n, sum g and sum g (x - mean) of one channel. */
static void gather_gradients(const struct backward *b, const struct channel *c, double sums[3]) {
    sums[0] = (double)channel_count(c);
    sums[1] = sums[2] = 0;
    for (int64_t k = 0; k < channel_count(c); k++) {
        double g = gradient_at(b, channel_at(c, k));
        sums[1] += g;
        sums[2] += g * (view_get(b->src, channel_at(c, k)) - b->mean);
    }
}

static void set_parameter_gradients(const struct kernel *kernel, void *const buffers[ARG_COUNT], int64_t channel,
                                    double inverse_deviation, const double sums[3]) {
    view_set(view_of(kernel, buffers, ARG_DIFF_SCALE), channel, sums[2] * inverse_deviation);
    view_set(view_of(kernel, buffers, ARG_DIFF_SHIFT), channel, sums[1]);
}

static void backward_channel(const struct kernel *kernel, void *const buffers[ARG_COUNT], const struct channel *c,
                             const double sums[3]) {
    struct backward b = backward_of(kernel, buffers, c->index);
    double factor = view_get(view_of(kernel, buffers, ARG_SCALE), c->index) * b.inverse_deviation;
    double share = kernel->op.batch_norm.frozen ? 0 : 1 / sums[0];
    for (int64_t k = 0; k < channel_count(c); k++) {
        int64_t at = channel_at(c, k);
        double g = gradient_at(&b, at); /* read before either output, which may overlay it */
        double mean_part = (sums[1] + normalised_at(&b, at) * sums[2] * b.inverse_deviation) * share;
        view_set(b.diff_src, at, factor * (g - mean_part));
        if (b.diff_residual.data)
            view_set(b.diff_residual, at, g);
    }
}

static void backward(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    bool synchronised = kernel->op.batch_norm.synchronised && !kernel->op.batch_norm.frozen;
    for (int64_t i = 0; i < dims_of(kernel, ARG_SRC)[1]; i++) {
        struct channel c = channel_of(kernel, i);
        struct backward b = backward_of(kernel, buffers, i);
        double sums[3];
        if (synchronised) {
            for (int row = 0; row < 3; row++)
                sums[row] = sum_at(kernel, buffers, row, i);
        } else {
            gather_gradients(&b, &c, sums);
            set_parameter_gradients(kernel, buffers, i, b.inverse_deviation, sums);
        }
        backward_channel(kernel, buffers, &c, sums);
    }
}

static void backward_sums(const struct kernel *kernel, void *const buffers[ARG_COUNT]) {
    for (int64_t i = 0; i < dims_of(kernel, ARG_SRC)[1]; i++) {
        struct channel c = channel_of(kernel, i);
        struct backward b = backward_of(kernel, buffers, i);
        double sums[3];
        gather_gradients(&b, &c, sums);
        set_parameter_gradients(kernel, buffers, i, b.inverse_deviation, sums);
        set_sums(kernel, buffers, i, sums);
    }
}

static size_t workspace_bytes(const struct kernel_request *request) {
    return (size_t)shape_count(&request->args.desc[ARG_SRC].shape);
}

const struct reference_row reference_batch_norm = {
    .run = {[PASS_INFER] = infer, [PASS_FORWARD] = forward, [PASS_BACKWARD_DATA] = backward},
    .workspace_bytes = workspace_bytes,
};

const struct reference_row reference_batch_norm_sums = {
    .run = {[PASS_FORWARD] = forward_sums, [PASS_BACKWARD_DATA] = backward_sums},
    .workspace_bytes = workspace_bytes,
};
