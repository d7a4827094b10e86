#include "common/device/cuda/internal.h"

/* See README.md for why this is not cuDNN's. */

/* Sums are cut into slices until about so many threads have work; the numbers depend on the shape alone. */
enum { SUM_THREADS = 1 << 16, LEAST_SLICES = 8, MOST_SLICES = 256 };

static struct channels channels_of(const struct shape *src) {
    int64_t slices = SUM_THREADS / src->dims[1];
    slices = slices < LEAST_SLICES ? LEAST_SLICES : slices > MOST_SLICES ? MOST_SLICES : slices;
    return (struct channels){src->dims[0], src->dims[1], src->dims[2] * src->dims[3], slices};
}

static struct channels shape_of_call(const struct cuda_call *call) {
    return channels_of(&call->kernel->base.args.desc[ARG_SRC].shape);
}

/** Scratch: (slices, channels) pairs, and behind them the (channels) that they fold to. */
static struct pair *folded_of(const struct cuda_call *call, const struct channels *shape) {
    return (struct pair *)cuda_buffer(call, ARG_SCRATCH) + shape->slices * shape->count;
}

static bool fold(const struct cuda_call *call, const struct channels *shape, struct error *err) {
    struct fold_pairs k = {.from = cuda_buffer(call, ARG_SCRATCH),
                           .to = folded_of(call, shape),
                           .from_count = shape->slices * shape->count,
                           .to_count = shape->count};
    return cuda_launched(call, launch_fold_pairs(&k, k.to_count, call->stream), err);
}

/** Normalises with the statistics in these arguments. */
static bool normalise(const struct cuda_call *call, enum arg mean, enum arg variance, struct error *err) {
    const struct batch_norm *norm = &call->kernel->base.op.batch_norm;
    struct normalise k = {.shape = shape_of_call(call),
                          .src = cuda_buffer(call, ARG_SRC),
                          .residual = cuda_buffer(call, ARG_SRC2),
                          .scale = cuda_buffer(call, ARG_SCALE),
                          .shift = cuda_buffer(call, ARG_SHIFT),
                          .mean = cuda_buffer(call, mean),
                          .variance = cuda_buffer(call, variance),
                          .dst = cuda_buffer(call, ARG_DST),
                          .mask = cuda_buffer(call, ARG_WORKSPACE),
                          .epsilon = norm->epsilon,
                          .activation = norm->activation};
    return cuda_launched(call, launch_normalise(&k, cuda_count(call, ARG_SRC), call->stream), err);
}

static bool infer(const struct cuda_call *call, struct error *err) {
    return normalise(call, ARG_RUNNING_MEAN, ARG_RUNNING_VARIANCE, err);
}

/** Sums of this rank's images, folded: (channels) pairs at folded_of. */
static bool moments(const struct cuda_call *call, struct error *err) {
    struct channel_moments k = {
        .shape = shape_of_call(call), .src = cuda_buffer(call, ARG_SRC), .sums = cuda_buffer(call, ARG_SCRATCH)};
    return cuda_launched(call, launch_channel_moments(&k, k.shape.count * k.shape.slices, call->stream), err) &&
           fold(call, &k.shape, err);
}

static bool forward(const struct cuda_call *call, struct error *err) {
    const struct batch_norm *norm = &call->kernel->base.op.batch_norm;
    struct channels shape = shape_of_call(call);
    if (norm->frozen)
        return infer(call, err);
    struct finish_moments finish = {.sums = norm->synchronised ? NULL : folded_of(call, &shape),
                                    .all = cuda_buffer(call, ARG_SUMS),
                                    .mean = cuda_buffer(call, ARG_SAVED_MEAN),
                                    .variance = cuda_buffer(call, ARG_SAVED_VARIANCE),
                                    .running_mean = cuda_buffer(call, ARG_RUNNING_MEAN),
                                    .running_variance = cuda_buffer(call, ARG_RUNNING_VARIANCE),
                                    .channels = shape.count,
                                    .count = (double)(shape.batch * shape.plane),
                                    .momentum = norm->momentum};
    return (norm->synchronised || moments(call, err)) &&
           cuda_launched(call, launch_finish_moments(&finish, shape.count, call->stream), err) &&
           normalise(call, ARG_SAVED_MEAN, ARG_SAVED_VARIANCE, err);
}

/** ARG_SUMS from the folded sums; variance: backward, that of the batch. */
static bool publish(const struct cuda_call *call, const float *variance, struct error *err) {
    struct channels shape = shape_of_call(call);
    struct publish_sums k = {.sums = folded_of(call, &shape),
                             .all = cuda_buffer(call, ARG_SUMS),
                             .channels = shape.count,
                             .count = (double)(shape.batch * shape.plane),
                             .variance = variance,
                             .epsilon = call->kernel->base.op.batch_norm.epsilon};
    return cuda_launched(call, launch_publish_sums(&k, shape.count, call->stream), err);
}

static bool forward_sums(const struct cuda_call *call, struct error *err) {
    return moments(call, err) && publish(call, NULL, err);
}

static struct norm_backward incoming_of(const struct cuda_call *call) {
    const struct batch_norm *norm = &call->kernel->base.op.batch_norm;
    return (struct norm_backward){
        .shape = shape_of_call(call),
        .src = cuda_buffer(call, ARG_SRC),
        .diff_dst = cuda_buffer(call, ARG_DIFF_DST),
        .scale = cuda_buffer(call, ARG_SCALE),
        .mean = cuda_buffer(call, norm->frozen ? ARG_RUNNING_MEAN : ARG_SAVED_MEAN),
        .variance = cuda_buffer(call, norm->frozen ? ARG_RUNNING_VARIANCE : ARG_SAVED_VARIANCE),
        .mask = cuda_buffer(call, ARG_WORKSPACE),
        .epsilon = norm->epsilon};
}

/** diff_scale and diff_shift. */
static bool parameter_gradients(const struct cuda_call *call, struct error *err) {
    struct norm_gradient_sums sums = {.in = incoming_of(call), .sums = cuda_buffer(call, ARG_SCRATCH)};
    const struct channels *shape = &sums.in.shape;
    struct finish_norm_gradient finish = {.sums = folded_of(call, shape),
                                          .diff_shift = cuda_buffer(call, ARG_DIFF_SHIFT),
                                          .diff_scale = cuda_buffer(call, ARG_DIFF_SCALE)};
    return cuda_launched(call, launch_norm_gradient_sums(&sums, shape->count * shape->slices, call->stream),
                         err) &&
           fold(call, shape, err) &&
           cuda_launched(call, launch_finish_norm_gradient(&finish, shape->count, call->stream), err);
}

static bool backward(const struct cuda_call *call, struct error *err) {
    const struct batch_norm *norm = &call->kernel->base.op.batch_norm;
    struct norm_gradient k = {.in = incoming_of(call),
                              .diff_shift = cuda_buffer(call, ARG_DIFF_SHIFT),
                              .diff_scale = cuda_buffer(call, ARG_DIFF_SCALE),
                              .all = cuda_buffer(call, ARG_SUMS),
                              .diff_src = cuda_buffer(call, ARG_DIFF_SRC),
                              .diff_residual = cuda_buffer(call, ARG_DIFF_SRC2)};
    if (!norm->frozen)
        k.through = (float)(1 / (double)(k.in.shape.batch * k.in.shape.plane));
    return (k.all || parameter_gradients(call, err)) &&
           cuda_launched(call, launch_norm_gradient(&k, cuda_count(call, ARG_SRC), call->stream), err);
}

static bool backward_sums(const struct cuda_call *call, struct error *err) {
    return parameter_gradients(call, err) && publish(call, cuda_buffer(call, ARG_SAVED_VARIANCE), err);
}

/** Whether a pass sums over images itself. */
static bool gathers(const struct kernel *kernel) {
    const struct batch_norm *norm = &kernel->op.batch_norm;
    bool taken = norm->synchronised && !norm->frozen && kernel->op.kind == OP_BATCH_NORM;
    return !taken && (kernel->pass == PASS_BACKWARD_DATA || (kernel->pass == PASS_FORWARD && !norm->frozen));
}

static bool prepare(struct cuda_kernel *kernel, struct error *err) {
    (void)err;
    const struct shape *src = &kernel->base.args.desc[ARG_SRC].shape;
    struct channels shape = channels_of(src);
    if (gathers(&kernel->base))
        cuda_set_private(kernel, ARG_SCRATCH, (size_t)((shape.slices + 1) * shape.count) * sizeof(struct pair));
    cuda_set_private(kernel, ARG_WORKSPACE, (size_t)shape_count(src)); /* the mask */
    return true;
}

const struct cuda_row cuda_batch_norm = {
    .prepare = prepare,
    .run = {[PASS_INFER] = infer, [PASS_FORWARD] = forward, [PASS_BACKWARD_DATA] = backward},
};

const struct cuda_row cuda_batch_norm_sums = {
    .prepare = prepare,
    .run = {[PASS_FORWARD] = forward_sums, [PASS_BACKWARD_DATA] = backward_sums},
};
