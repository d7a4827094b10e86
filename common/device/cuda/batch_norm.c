#include "common/device/cuda/internal.h"

/* See README.md for why this is not cuDNN's. Scratch: the channels' terms, and behind them the sums. */

enum { SCRATCH_ALIGNMENT = 256, BACKWARD_TERMS = 3 };

static size_t terms_bytes(const struct kernel *kernel, int64_t channels) {
    size_t bytes = (size_t)channels * sizeof(float) * (kernel->pass == PASS_BACKWARD_DATA ? BACKWARD_TERMS : 1);
    return (bytes + SCRATCH_ALIGNMENT - 1) / SCRATCH_ALIGNMENT * SCRATCH_ALIGNMENT;
}

static struct pair *sums_of(const struct cuda_call *call, const struct channels *shape) {
    char *scratch = cuda_buffer(call, ARG_SCRATCH);
    return (struct pair *)(void *)(scratch + terms_bytes(&call->kernel->base, shape->count));
}

static int64_t slice_count(const struct sliced *cut) {
    return cut->slices * (cut->shape.last ? cut->shape.count / cut->width : cut->shape.count);
}

static unsigned char *mask_of(const struct cuda_call *call) {
    return call->kernel->base.op.batch_norm.activation == ACTIVATION_NONE ? NULL : cuda_buffer(call, ARG_WORKSPACE);
}

/* --- forward --- */

static bool normalise(const struct cuda_call *call, enum arg mean, struct error *err) {
    struct normalise k = {.shape = cuda_channels(call, ARG_SRC),
                          .src = cuda_buffer(call, ARG_SRC),
                          .residual = cuda_buffer(call, ARG_SRC2),
                          .shift = cuda_buffer(call, ARG_SHIFT),
                          .mean = cuda_buffer(call, mean),
                          .terms = cuda_buffer(call, ARG_SCRATCH),
                          .dst = cuda_buffer(call, ARG_DST),
                          .mask = mask_of(call),
                          .dtype = cuda_dtype(call, ARG_SRC),
                          .activation = call->kernel->base.op.batch_norm.activation};
    k.width = cuda_channel_width(&k.shape);
    return cuda_launched(call, launch_normalise(&k, cuda_count(call, ARG_SRC) / k.width, call->stream), err);
}

static bool infer(const struct cuda_call *call, struct error *err) {
    struct norm_terms k = {.scale = cuda_buffer(call, ARG_SCALE),
                           .variance = cuda_buffer(call, ARG_RUNNING_VARIANCE),
                           .terms = cuda_buffer(call, ARG_SCRATCH),
                           .epsilon = call->kernel->base.op.batch_norm.epsilon};
    return cuda_launched(call, launch_norm_terms(&k, cuda_count(call, ARG_SCALE), call->stream), err) &&
           normalise(call, ARG_RUNNING_MEAN, err);
}

/** Sums of this rank's images. */
static bool moments(const struct cuda_call *call, const struct channels *shape, struct channel_pairs *out, struct error *err) {
    struct channel_moments k = {.cut = cuda_sliced(shape),
                                .src = cuda_buffer(call, ARG_SRC),
                                .sums = sums_of(call, shape),
                                .dtype = cuda_dtype(call, ARG_SRC)};
    return cuda_launched(call, launch_channel_moments(&k, slice_count(&k.cut), call->stream), err) &&
           cuda_fold(call, &k.cut, k.sums, out, err);
}

static bool forward(const struct cuda_call *call, struct error *err) {
    const struct batch_norm *norm = &call->kernel->base.op.batch_norm;
    struct channels shape = cuda_channels(call, ARG_SRC);
    if (norm->frozen)
        return infer(call, err);
    struct finish_moments finish = {.sums.channels = shape.count,
                                    .all = cuda_buffer(call, ARG_SUMS),
                                    .scale = cuda_buffer(call, ARG_SCALE),
                                    .mean = cuda_buffer(call, ARG_SAVED_MEAN),
                                    .variance = cuda_buffer(call, ARG_SAVED_VARIANCE),
                                    .running_mean = cuda_buffer(call, ARG_RUNNING_MEAN),
                                    .running_variance = cuda_buffer(call, ARG_RUNNING_VARIANCE),
                                    .terms = cuda_buffer(call, ARG_SCRATCH),
                                    .count = (double)(shape.batch * shape.plane),
                                    .momentum = norm->momentum,
                                    .epsilon = norm->epsilon};
    return (norm->synchronised || moments(call, &shape, &finish.sums, err)) &&
           cuda_launched(call, launch_finish_moments(&finish, shape.count, call->stream), err) &&
           normalise(call, ARG_SAVED_MEAN, err);
}

/* --- sums for all ranks --- */

/** ARG_SUMS from this rank's; variance: backward, that of the batch. */
static bool publish(const struct cuda_call *call, const struct channels *shape, const struct channel_pairs *sums,
                    const float *variance, struct error *err) {
    struct publish_sums k = {.sums = *sums,
                             .all = cuda_buffer(call, ARG_SUMS),
                             .count = (double)(shape->batch * shape->plane),
                             .variance = variance,
                             .epsilon = call->kernel->base.op.batch_norm.epsilon};
    return cuda_launched(call, launch_publish_sums(&k, shape->count, call->stream), err);
}

static bool forward_sums(const struct cuda_call *call, struct error *err) {
    struct channels shape = cuda_channels(call, ARG_SRC);
    struct channel_pairs sums;
    return moments(call, &shape, &sums, err) && publish(call, &shape, &sums, NULL, err);
}

/* --- backward --- */

static struct norm_backward incoming_of(const struct cuda_call *call) {
    const struct batch_norm *norm = &call->kernel->base.op.batch_norm;
    return (struct norm_backward){.src = cuda_buffer(call, ARG_SRC),
                                  .diff_dst = cuda_buffer(call, ARG_DIFF_DST),
                                  .mean = cuda_buffer(call, norm->frozen ? ARG_RUNNING_MEAN : ARG_SAVED_MEAN),
                                  .mask = mask_of(call),
                                  .dtype = cuda_dtype(call, ARG_SRC)};
}

static const float *variance_of(const struct cuda_call *call) {
    return cuda_buffer(call, call->kernel->base.op.batch_norm.frozen ? ARG_RUNNING_VARIANCE : ARG_SAVED_VARIANCE);
}

/** Where there is a diff_src its terms go to the scratch. */
static struct gradient_terms terms_of(const struct cuda_call *call, const struct channels *shape) {
    const struct batch_norm *norm = &call->kernel->base.op.batch_norm;
    return (struct gradient_terms){.scale = cuda_buffer(call, ARG_SCALE),
                                   .variance = variance_of(call),
                                   .terms = cuda_buffer(call, ARG_DIFF_SRC) ? cuda_buffer(call, ARG_SCRATCH) : NULL,
                                   .channels = shape->count,
                                   .through = norm->frozen ? 0 : 1 / (double)(shape->batch * shape->plane),
                                   .epsilon = norm->epsilon};
}

/** diff_scale and diff_shift, and the terms. */
static bool parameter_gradients(const struct cuda_call *call, const struct channels *shape, struct channel_pairs *sums,
                                struct error *err) {
    struct norm_gradient_sums k = {.cut = cuda_sliced(shape),
                                   .in = incoming_of(call),
                                   .sums = sums_of(call, shape),
                                   .variance = variance_of(call),
                                   .epsilon = call->kernel->base.op.batch_norm.epsilon};
    struct finish_norm_gradient finish = {.diff_shift = cuda_buffer(call, ARG_DIFF_SHIFT),
                                          .diff_scale = cuda_buffer(call, ARG_DIFF_SCALE),
                                          .out = terms_of(call, shape)};
    if (!cuda_launched(call, launch_norm_gradient_sums(&k, slice_count(&k.cut), call->stream), err) ||
        !cuda_fold(call, &k.cut, k.sums, sums, err))
        return false;
    finish.sums = *sums;
    return cuda_launched(call, launch_finish_norm_gradient(&finish, shape->count, call->stream), err);
}

/** The terms from all ranks' sums; a rank's parameters' gradients came with those sums. */
static bool total_terms(const struct cuda_call *call, const struct channels *shape, struct error *err) {
    struct total_norm_gradient k = {.all = cuda_buffer(call, ARG_SUMS), .out = terms_of(call, shape)};
    return cuda_launched(call, launch_total_norm_gradient(&k, shape->count, call->stream), err);
}

static bool backward(const struct cuda_call *call, struct error *err) {
    struct channel_pairs sums;
    struct norm_gradient k = {.shape = cuda_channels(call, ARG_SRC),
                              .in = incoming_of(call),
                              .terms = cuda_buffer(call, ARG_SCRATCH),
                              .diff_src = cuda_buffer(call, ARG_DIFF_SRC),
                              .diff_residual = cuda_buffer(call, ARG_DIFF_SRC2)};
    k.width = cuda_channel_width(&k.shape);
    bool ready = cuda_buffer(call, ARG_SUMS) ? total_terms(call, &k.shape, err)
                                             : parameter_gradients(call, &k.shape, &sums, err);
    return ready && cuda_launched(call, launch_norm_gradient(&k, cuda_count(call, ARG_SRC) / k.width, call->stream), err);
}

static bool backward_sums(const struct cuda_call *call, struct error *err) {
    struct channels shape = cuda_channels(call, ARG_SRC);
    struct channel_pairs sums;
    return parameter_gradients(call, &shape, &sums, err) &&
           publish(call, &shape, &sums, cuda_buffer(call, ARG_SAVED_VARIANCE), err);
}

/** Whether a pass sums over images itself. */
static bool gathers(const struct kernel *kernel) {
    const struct batch_norm *norm = &kernel->op.batch_norm;
    bool taken = norm->synchronised && !norm->frozen && kernel->op.kind == OP_BATCH_NORM;
    return !taken && (kernel->pass == PASS_BACKWARD_DATA || (kernel->pass == PASS_FORWARD && !norm->frozen));
}

static bool prepare(struct cuda_kernel *kernel, const struct kernel_request *request, struct error *err) {
    struct channels shape = cuda_channels_of(&kernel->base.args.desc[ARG_SRC].shape, kernel->last);
    struct sliced cut = cuda_sliced(&shape);
    bool masked = kernel->base.op.batch_norm.activation != ACTIVATION_NONE;
    (void)request;
    (void)err;
    cuda_set_private(kernel, ARG_SCRATCH,
                     terms_bytes(&kernel->base, shape.count) + (gathers(&kernel->base) ? cuda_sums_bytes(&cut) : 0));
    cuda_set_private(kernel, ARG_WORKSPACE, masked ? (size_t)(shape.batch * shape.count * shape.plane / cut.width) : 0);
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
