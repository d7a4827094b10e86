#include "common/device/onednn/sweep.h"

#include <math.h>

/*
 * Ioffe & Szegedy 2015, fused with the residual and the activation. Over the n = N*H*W values x of a channel,
 * with r = 1 / sqrt(variance + epsilon) and g = dy where the activation passed it on, else 0:
 *   y = activation(scale r (x - mean) + shift + residual)
 *   dshift = sum g,  dscale = r sum g (x - mean),  dresidual = g
 *   dx = scale r g - (scale r^2 dscale / n) (x - mean) - scale r dshift / n      (frozen: the first term
 * alone) Memory is passed over 3 times forward and 5 times backward, 4 and 6 with a residual, and the mask is
 * a bit per element; oneDNN's own primitive reads the source once more, for the variance.
 */
struct norm_kernel {
    struct onednn_kernel base;
    struct channel_view view;
    const struct row_loops *loops;
};

/* What finish_* need: the arrays of the channels. */
struct norm_arrays {
    const struct batch_norm *attributes;
    float *const *of; /* by enum arg */
};

static bool batch_statistics(const struct norm_kernel *kernel) {
    return kernel->base.base.pass != PASS_INFER && !kernel->base.base.op.batch_norm.frozen;
}

/* --- forward --- */

static void set_forward_lane(const struct norm_arrays *arrays, int64_t channel, double mean, double variance,
                             int lane, struct norm_lanes *numbers) {
    double inverse = 1 / sqrt(variance + (double)arrays->attributes->epsilon);
    numbers->mean[lane] = (float)mean;
    numbers->gain[lane] = (float)((double)arrays->of[ARG_SCALE][channel] * inverse);
    numbers->shift[lane] = arrays->of[ARG_SHIFT][channel];
}

/* As PyTorch: the running variance is unbiased, the one that normalises is not. */
static void publish_statistics(const struct norm_arrays *arrays, int64_t channel, double count, double mean,
                               double variance) {
    float *running_mean = arrays->of[ARG_RUNNING_MEAN], *running_variance = arrays->of[ARG_RUNNING_VARIANCE];
    double momentum = (double)arrays->attributes->momentum,
           unbiased = count > 1 ? variance * count / (count - 1) : variance;
    running_mean[channel] = (float)((1 - momentum) * (double)running_mean[channel] + momentum * mean);
    running_variance[channel] =
        (float)((1 - momentum) * (double)running_variance[channel] + momentum * unbiased);
    arrays->of[ARG_SAVED_MEAN][channel] = (float)mean;
    arrays->of[ARG_SAVED_VARIANCE][channel] = (float)variance;
}

static void finish_training(const struct sweep *sweep, int64_t tile, const struct lane_sums *sums,
                            bool publish, struct norm_lanes *numbers) {
    const struct norm_arrays *arrays = sweep->context;
    struct lane_sums folded = *sums;
    sweep_fold(sweep, &folded);
    for (int lane = 0; lane < LANES; lane++) {
        int64_t channel = sweep_channel(&sweep->view, tile, lane);
        if (channel < 0 || folded.count[lane] == 0)
            continue;
        double mean = folded.first[lane], variance = folded.second[lane] / folded.count[lane];
        set_forward_lane(arrays, channel, mean, variance, lane, numbers);
        if (publish && (lane == 0 || !sweep->view.planar))
            publish_statistics(arrays, channel, folded.count[lane], mean, variance);
    }
}

static void finish_running(const struct sweep *sweep, int64_t tile, const struct lane_sums *sums,
                           bool publish, struct norm_lanes *numbers) {
    const struct norm_arrays *arrays = sweep->context;
    (void)sums;
    (void)publish;
    for (int lane = 0; lane < LANES; lane++) {
        int64_t channel = sweep_channel(&sweep->view, tile, lane);
        if (channel >= 0)
            set_forward_lane(arrays, channel, (double)arrays->of[ARG_RUNNING_MEAN][channel],
                             (double)arrays->of[ARG_RUNNING_VARIANCE][channel], lane, numbers);
    }
}

static bool norm_forward(struct onednn_kernel *base, void *const buffers[ARG_COUNT], struct error *err) {
    struct norm_kernel *kernel = (struct norm_kernel *)base;
    const struct norm_arrays arrays = {&base->base.op.batch_norm, (float *const *)buffers};
    bool residual = base->base.args.direction[ARG_SRC2] != ARG_ABSENT;
    bool mask = base->base.args.direction[ARG_WORKSPACE] != ARG_ABSENT;
    struct sweep sweep = {
        .device = base->device,
        .view = kernel->view,
        .loops = kernel->loops,
        .base = {.src = buffers[ARG_SRC],
                 .residual = residual ? buffers[ARG_SRC2] : NULL,
                 .dst = buffers[ARG_DST],
                 .mask_out = mask ? buffers[ARG_WORKSPACE] : NULL,
                 .activation = arrays.attributes->activation,
                 .stream = sweep_streams(&kernel->view, kernel->loops->element_bytes, buffers[ARG_DST])},
        .leftover = buffers[ARG_SCRATCH],
        .context = &arrays,
        .gather = batch_statistics(kernel) ? kernel->loops->moments : NULL,
        .merge = sweep_merge_moments,
        .finish = batch_statistics(kernel) ? finish_training : finish_running,
        .apply = kernel->loops->normalise,
    };
    (void)err;
    sweep_run(&sweep);
    return true;
}

/* --- backward --- */

static void finish_gradients(const struct sweep *sweep, int64_t tile, const struct lane_sums *sums,
                             bool publish, struct norm_lanes *numbers) {
    const struct norm_arrays *arrays = sweep->context;
    const struct channel_view *view = &sweep->view;
    bool frozen = arrays->attributes->frozen;
    struct lane_sums folded = *sums;
    sweep_fold(sweep, &folded);
    for (int lane = 0; lane < LANES; lane++) {
        int64_t channel = sweep_channel(view, tile, lane);
        if (channel < 0)
            continue;
        double mean = (double)arrays->of[frozen ? ARG_RUNNING_MEAN : ARG_SAVED_MEAN][channel];
        double variance = (double)arrays->of[frozen ? ARG_RUNNING_VARIANCE : ARG_SAVED_VARIANCE][channel];
        double inverse = 1 / sqrt(variance + (double)arrays->attributes->epsilon);
        double gain = (double)arrays->of[ARG_SCALE][channel] * inverse;
        double diff_scale = folded.second[lane] * inverse, diff_shift = folded.first[lane];
        double share = frozen ? 0 : gain / (double)(view->images * view->pixels);
        numbers->mean[lane] = (float)mean;
        numbers->gain[lane] = (float)gain;
        numbers->slope[lane] = (float)(share * inverse * diff_scale);
        numbers->offset[lane] = (float)(share * diff_shift);
        if (publish && (lane == 0 || !view->planar)) {
            arrays->of[ARG_DIFF_SCALE][channel] = (float)diff_scale;
            arrays->of[ARG_DIFF_SHIFT][channel] = (float)diff_shift;
        }
    }
}

static bool norm_backward(struct onednn_kernel *base, void *const buffers[ARG_COUNT], struct error *err) {
    struct norm_kernel *kernel = (struct norm_kernel *)base;
    const struct norm_arrays arrays = {&base->base.op.batch_norm, (float *const *)buffers};
    bool residual = base->base.args.direction[ARG_DIFF_SRC2] != ARG_ABSENT;
    bool in_place = buffers[ARG_DIFF_SRC] == buffers[ARG_DIFF_DST];
    bool mask = base->base.args.direction[ARG_WORKSPACE] != ARG_ABSENT;
    struct sweep sweep = {
        .device = base->device,
        .view = kernel->view,
        .loops = kernel->loops,
        .base = {.src = buffers[ARG_SRC],
                 .diff_dst = buffers[ARG_DIFF_DST],
                 .diff_src = buffers[ARG_DIFF_SRC],
                 .diff_residual = residual ? buffers[ARG_DIFF_SRC2] : NULL,
                 .mask = mask ? buffers[ARG_WORKSPACE] : NULL,
                 .stream = !in_place && sweep_streams(&kernel->view, kernel->loops->element_bytes, buffers[ARG_DIFF_SRC])},
        .leftover = buffers[ARG_SCRATCH],
        .context = &arrays,
        .gather = kernel->loops->gradient_sums,
        .merge = sweep_merge_sums,
        .finish = finish_gradients,
        .apply = kernel->loops->gradient,
    };
    (void)err;
    sweep_run(&sweep);
    return true;
}

static struct onednn_kernel *norm_prepare(struct onednn_device *device, const struct kernel_request *request,
                                          struct error *err) {
    struct norm_kernel *kernel = kernel_create(device, request, sizeof *kernel, device->loops->name, err);
    if (!kernel)
        return NULL;
    kernel->loops = loops_of(device->loops, request->args.desc[ARG_SRC].dtype);
    kernel_follow(&kernel->base, kernel_leading_layout(request));
    /* An odd layout is left for the canonical one. */
    if (!channel_view_init(&kernel->view, &kernel->base.base.args.desc[ARG_SRC])) {
        kernel_follow(&kernel->base, NULL);
        (void)channel_view_init(&kernel->view, &kernel->base.base.args.desc[ARG_SRC]);
    }
    kernel->base.run = request->pass == PASS_BACKWARD_DATA ? norm_backward : norm_forward;
    kernel_set_private(&kernel->base, ARG_WORKSPACE, sweep_mask_bytes(&kernel->view));
    kernel_set_private(&kernel->base, ARG_SCRATCH, sweep_scratch_bytes(device, &kernel->view));
    return &kernel->base;
}

const struct onednn_kind onednn_batch_norm = {.supports = kernel_precision_fits, .prepare = norm_prepare};
