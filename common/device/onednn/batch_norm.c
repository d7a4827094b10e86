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
 * Synchronised, the two sweeps are two kernels: OP_BATCH_NORM_SUMS gathers a rank's sums, and once the ranks have
 * added theirs up the batch norm applies what follows from them; the second sweep finds nothing in the cache.
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
    double *sums;     /* ARG_SUMS, (3, channels) */
};

static struct norm_arrays arrays_of(const struct norm_kernel *kernel, void *const buffers[ARG_COUNT]) {
    return (struct norm_arrays){&kernel->base.base.op.batch_norm, (float *const *)buffers, buffers[ARG_SUMS]};
}

static bool has(const struct norm_kernel *kernel, enum arg arg) {
    return kernel->base.base.args.direction[arg] != ARG_ABSENT;
}

/* In planar layouts all lanes of a tile are of one channel: the first speaks for them. */
static bool publishes(const struct sweep *sweep, int lane) {
    return lane == 0 || !sweep->view.planar;
}

static void put_sums(const struct sweep *sweep, int64_t channel, double count, double first, double second) {
    double *sums = ((const struct norm_arrays *)sweep->context)->sums + channel;
    int64_t channels = sweep->view.channels;
    sums[0] = count;
    sums[channels] = first;
    sums[2 * channels] = second;
}

/* --- forward --- */

/* Of a channel's batch; the variance is biased. */
struct statistics {
    double count, mean, variance;
};

static void set_forward_lane(const struct norm_arrays *arrays, int64_t channel, double mean, double variance,
                             int lane, struct norm_lanes *numbers) {
    double inverse = 1 / sqrt(variance + (double)arrays->attributes->epsilon);
    numbers->mean[lane] = (float)mean;
    numbers->gain[lane] = (float)((double)arrays->of[ARG_SCALE][channel] * inverse);
    numbers->shift[lane] = arrays->of[ARG_SHIFT][channel];
}

/* As PyTorch: the running variance is unbiased, the one that normalises is not. */
static void publish_statistics(const struct norm_arrays *arrays, int64_t channel, const struct statistics *batch) {
    float *running_mean = arrays->of[ARG_RUNNING_MEAN], *running_variance = arrays->of[ARG_RUNNING_VARIANCE];
    double momentum = (double)arrays->attributes->momentum, count = batch->count;
    double unbiased = count > 1 ? batch->variance * count / (count - 1) : batch->variance;
    running_mean[channel] = (float)((1 - momentum) * (double)running_mean[channel] + momentum * batch->mean);
    running_variance[channel] =
        (float)((1 - momentum) * (double)running_variance[channel] + momentum * unbiased);
    arrays->of[ARG_SAVED_MEAN][channel] = (float)batch->mean;
    arrays->of[ARG_SAVED_VARIANCE][channel] = (float)batch->variance;
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
        struct statistics batch = {folded.count[lane], folded.first[lane], folded.second[lane] / folded.count[lane]};
        set_forward_lane(arrays, channel, batch.mean, batch.variance, lane, numbers);
        if (publish && publishes(sweep, lane))
            publish_statistics(arrays, channel, &batch);
    }
}

/* From the sums of all ranks. */
static void finish_synchronised(const struct sweep *sweep, int64_t tile, const struct lane_sums *sums,
                                bool publish, struct norm_lanes *numbers) {
    const struct norm_arrays *arrays = sweep->context;
    int64_t channels = sweep->view.channels;
    (void)sums;
    for (int lane = 0; lane < LANES; lane++) {
        int64_t channel = sweep_channel(&sweep->view, tile, lane);
        if (channel < 0)
            continue;
        const double *all = arrays->sums + channel;
        double mean = all[channels] / all[0], variance = all[2 * channels] / all[0] - mean * mean;
        struct statistics batch = {all[0], mean, fmax(variance, 0)};
        set_forward_lane(arrays, channel, batch.mean, batch.variance, lane, numbers);
        if (publish && publishes(sweep, lane))
            publish_statistics(arrays, channel, &batch);
    }
}

/* Moments become sums about zero, which other ranks can add theirs to. */
static void finish_sums(const struct sweep *sweep, int64_t tile, const struct lane_sums *sums, bool publish,
                        struct norm_lanes *numbers) {
    struct lane_sums folded = *sums;
    (void)numbers;
    sweep_fold(sweep, &folded);
    for (int lane = 0; publish && lane < LANES; lane++) {
        int64_t channel = sweep_channel(&sweep->view, tile, lane);
        double count = folded.count[lane], mean = folded.first[lane];
        if (channel >= 0 && publishes(sweep, lane))
            put_sums(sweep, channel, count, count * mean, folded.second[lane] + count * mean * mean);
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

/* What makes a batch norm's statistics in that pass. */
static void choose_statistics(const struct norm_kernel *kernel, struct sweep *sweep) {
    const struct batch_norm *norm = &kernel->base.base.op.batch_norm;
    bool batch = kernel->base.base.pass != PASS_INFER && !norm->frozen;
    sweep->gather = batch && !norm->synchronised ? kernel->loops->moments : NULL;
    sweep->merge = sweep_merge_moments;
    sweep->finish = !batch ? finish_running : norm->synchronised ? finish_synchronised : finish_training;
}

static bool norm_forward(struct onednn_kernel *base, void *const buffers[ARG_COUNT], struct error *err) {
    struct norm_kernel *kernel = (struct norm_kernel *)base;
    const struct norm_arrays arrays = arrays_of(kernel, buffers);
    struct sweep sweep = {
        .device = base->device,
        .view = kernel->view,
        .loops = kernel->loops,
        .base = {.src = buffers[ARG_SRC],
                 .residual = has(kernel, ARG_SRC2) ? buffers[ARG_SRC2] : NULL,
                 .dst = buffers[ARG_DST],
                 .mask_out = has(kernel, ARG_WORKSPACE) ? buffers[ARG_WORKSPACE] : NULL,
                 .activation = arrays.attributes->activation,
                 .stream = sweep_streams(&kernel->view, kernel->loops->element_bytes, buffers[ARG_DST])},
        .leftover = buffers[ARG_SCRATCH],
        .context = &arrays,
        .apply = kernel->loops->normalise,
    };
    (void)err;
    choose_statistics(kernel, &sweep);
    sweep_run(&sweep);
    return true;
}

static bool sums_forward(struct onednn_kernel *base, void *const buffers[ARG_COUNT], struct error *err) {
    struct norm_kernel *kernel = (struct norm_kernel *)base;
    const struct norm_arrays arrays = arrays_of(kernel, buffers);
    struct sweep sweep = {
        .device = base->device,
        .view = kernel->view,
        .loops = kernel->loops,
        .base = {.src = buffers[ARG_SRC]},
        .leftover = buffers[ARG_SCRATCH],
        .context = &arrays,
        .gather = kernel->loops->moments,
        .merge = sweep_merge_moments,
        .finish = finish_sums,
    };
    (void)err;
    sweep_run(&sweep);
    return true;
}

/* --- backward --- */

/* What the statistics of a channel say in the backward pass. */
struct scaling {
    double mean, inverse;
};

static struct scaling scaling_of(const struct norm_arrays *arrays, int64_t channel) {
    bool frozen = arrays->attributes->frozen;
    double variance = (double)arrays->of[frozen ? ARG_RUNNING_VARIANCE : ARG_SAVED_VARIANCE][channel];
    double inverse = 1 / sqrt(variance + (double)arrays->attributes->epsilon);
    return (struct scaling){(double)arrays->of[frozen ? ARG_RUNNING_MEAN : ARG_SAVED_MEAN][channel], inverse};
}

/* sums: n, sum g, sum g (x - mean), over all that the statistics are of. */
static void set_backward_lane(const struct norm_arrays *arrays, int64_t channel, const double sums[3], int lane,
                              struct norm_lanes *numbers) {
    struct scaling is = scaling_of(arrays, channel);
    double gain = (double)arrays->of[ARG_SCALE][channel] * is.inverse;
    double share = arrays->attributes->frozen ? 0 : gain / sums[0];
    numbers->mean[lane] = (float)is.mean;
    numbers->gain[lane] = (float)gain;
    numbers->slope[lane] = (float)(share * is.inverse * is.inverse * sums[2]);
    numbers->offset[lane] = (float)(share * sums[1]);
}

static void publish_gradients(const struct norm_arrays *arrays, int64_t channel, const double sums[3]) {
    arrays->of[ARG_DIFF_SCALE][channel] = (float)(sums[2] * scaling_of(arrays, channel).inverse);
    arrays->of[ARG_DIFF_SHIFT][channel] = (float)sums[1];
}

static void finish_gradients(const struct sweep *sweep, int64_t tile, const struct lane_sums *sums,
                             bool publish, struct norm_lanes *numbers) {
    const struct norm_arrays *arrays = sweep->context;
    struct lane_sums folded = *sums;
    sweep_fold(sweep, &folded);
    for (int lane = 0; lane < LANES; lane++) {
        int64_t channel = sweep_channel(&sweep->view, tile, lane);
        const double own[3] = {(double)(sweep->view.images * sweep->view.pixels), folded.first[lane], folded.second[lane]};
        if (channel < 0)
            continue;
        set_backward_lane(arrays, channel, own, lane, numbers);
        if (publish && publishes(sweep, lane))
            publish_gradients(arrays, channel, own);
    }
}

static void finish_synchronised_gradients(const struct sweep *sweep, int64_t tile, const struct lane_sums *sums,
                                          bool publish, struct norm_lanes *numbers) {
    const struct norm_arrays *arrays = sweep->context;
    int64_t channels = sweep->view.channels;
    (void)sums;
    (void)publish;
    for (int lane = 0; lane < LANES; lane++) {
        int64_t channel = sweep_channel(&sweep->view, tile, lane);
        if (channel < 0)
            continue;
        const double *at = arrays->sums + channel, all[3] = {at[0], at[channels], at[2 * channels]};
        set_backward_lane(arrays, channel, all, lane, numbers);
    }
}

static void finish_gradient_sums(const struct sweep *sweep, int64_t tile, const struct lane_sums *sums,
                                 bool publish, struct norm_lanes *numbers) {
    const struct norm_arrays *arrays = sweep->context;
    struct lane_sums folded = *sums;
    sweep_fold(sweep, &folded);
    for (int lane = 0; lane < LANES; lane++) {
        int64_t channel = sweep_channel(&sweep->view, tile, lane);
        const double own[3] = {(double)(sweep->view.images * sweep->view.pixels), folded.first[lane], folded.second[lane]};
        if (channel < 0)
            continue;
        numbers->mean[lane] = (float)scaling_of(arrays, channel).mean;
        if (publish && publishes(sweep, lane)) {
            publish_gradients(arrays, channel, own);
            put_sums(sweep, channel, own[0], own[1], own[2]);
        }
    }
}

static bool norm_backward(struct onednn_kernel *base, void *const buffers[ARG_COUNT], struct error *err) {
    struct norm_kernel *kernel = (struct norm_kernel *)base;
    const struct norm_arrays arrays = arrays_of(kernel, buffers);
    bool synchronised = has(kernel, ARG_SUMS), in_place = buffers[ARG_DIFF_SRC] == buffers[ARG_DIFF_DST];
    struct sweep sweep = {
        .device = base->device,
        .view = kernel->view,
        .loops = kernel->loops,
        .base = {.src = buffers[ARG_SRC],
                 .diff_dst = buffers[ARG_DIFF_DST],
                 .diff_src = buffers[ARG_DIFF_SRC],
                 .diff_residual = has(kernel, ARG_DIFF_SRC2) ? buffers[ARG_DIFF_SRC2] : NULL,
                 .mask = has(kernel, ARG_WORKSPACE) ? buffers[ARG_WORKSPACE] : NULL,
                 .stream = !in_place && sweep_streams(&kernel->view, kernel->loops->element_bytes, buffers[ARG_DIFF_SRC])},
        .leftover = buffers[ARG_SCRATCH],
        .context = &arrays,
        .gather = synchronised ? NULL : kernel->loops->gradient_sums,
        .merge = sweep_merge_sums,
        .finish = synchronised ? finish_synchronised_gradients : finish_gradients,
        .apply = kernel->loops->gradient,
    };
    (void)err;
    sweep_run(&sweep);
    return true;
}

static bool sums_backward(struct onednn_kernel *base, void *const buffers[ARG_COUNT], struct error *err) {
    struct norm_kernel *kernel = (struct norm_kernel *)base;
    const struct norm_arrays arrays = arrays_of(kernel, buffers);
    struct sweep sweep = {
        .device = base->device,
        .view = kernel->view,
        .loops = kernel->loops,
        .base = {.src = buffers[ARG_SRC],
                 .diff_dst = buffers[ARG_DIFF_DST],
                 .mask = has(kernel, ARG_WORKSPACE) ? buffers[ARG_WORKSPACE] : NULL},
        .leftover = buffers[ARG_SCRATCH],
        .context = &arrays,
        .gather = kernel->loops->gradient_sums,
        .merge = sweep_merge_sums,
        .finish = finish_gradient_sums,
    };
    (void)err;
    sweep_run(&sweep);
    return true;
}

/* --- preparing --- */

typedef bool norm_run(struct onednn_kernel *kernel, void *const buffers[ARG_COUNT], struct error *err);

static struct onednn_kernel *prepare(struct onednn_device *device, const struct kernel_request *request, norm_run *run,
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
    kernel->base.run = run;
    kernel_set_private(&kernel->base, ARG_WORKSPACE, sweep_mask_bytes(&kernel->view));
    kernel_set_private(&kernel->base, ARG_SCRATCH, sweep_scratch_bytes(device, &kernel->view));
    return &kernel->base;
}

static struct onednn_kernel *norm_prepare(struct onednn_device *device, const struct kernel_request *request,
                                          struct error *err) {
    return prepare(device, request, request->pass == PASS_BACKWARD_DATA ? norm_backward : norm_forward, err);
}

static struct onednn_kernel *sums_prepare(struct onednn_device *device, const struct kernel_request *request,
                                          struct error *err) {
    return prepare(device, request, request->pass == PASS_BACKWARD_DATA ? sums_backward : sums_forward, err);
}

const struct onednn_kind onednn_batch_norm = {.supports = kernel_precision_fits, .prepare = norm_prepare};
const struct onednn_kind onednn_batch_norm_sums = {.supports = kernel_precision_fits, .prepare = sums_prepare};
