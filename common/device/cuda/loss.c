#include "common/device/cuda/internal.h"

/* Rows are few and classes fewer: a thread to a row, in double. The scratch has the rows' losses. */

static struct target target_of(const struct cuda_call *call, enum arg like) {
    return (struct target){.label = cuda_buffer(call, ARG_LABEL),
                           .class_weight = cuda_buffer(call, ARG_CLASS_WEIGHT),
                           .classes = cuda_dims(call, like)[1],
                           .smoothing = call->kernel->base.op.softmax_cross_entropy.label_smoothing};
}

static bool softmax(const struct cuda_call *call, double *losses, struct error *err) {
    struct softmax_loss k = {.src = cuda_buffer(call, ARG_SRC),
                             .dst = cuda_buffer(call, ARG_DST),
                             .losses = losses,
                             .target = target_of(call, ARG_SRC)};
    return cuda_launched(call, launch_softmax_loss(&k, cuda_dims(call, ARG_SRC)[0], call->stream), err);
}

static bool infer(const struct cuda_call *call, struct error *err) {
    return softmax(call, NULL, err);
}

static bool forward(const struct cuda_call *call, struct error *err) {
    struct finish_loss k = {.losses = cuda_buffer(call, ARG_SCRATCH),
                            .loss = cuda_buffer(call, ARG_LOSS),
                            .rows = cuda_dims(call, ARG_SRC)[0]};
    return softmax(call, cuda_buffer(call, ARG_SCRATCH), err) &&
           cuda_launched(call, launch_finish_loss(&k, 1, call->stream), err);
}

static bool backward(const struct cuda_call *call, struct error *err) {
    struct softmax_gradient k = {.probabilities = cuda_buffer(call, ARG_DST),
                                 .diff_src = cuda_buffer(call, ARG_DIFF_SRC),
                                 .rows = cuda_dims(call, ARG_DST)[0],
                                 .target = target_of(call, ARG_DST)};
    return cuda_launched(call, launch_softmax_gradient(&k, k.rows, call->stream), err);
}

static bool prepare(struct cuda_kernel *kernel, const struct kernel_request *request, struct error *err) {
    (void)request;
    (void)err;
    if (kernel->base.pass == PASS_FORWARD)
        cuda_set_private(kernel, ARG_SCRATCH,
                         (size_t)kernel->base.args.desc[ARG_SRC].shape.dims[0] * sizeof(double));
    return true;
}

const struct cuda_row cuda_softmax_cross_entropy = {
    .canonical = true,
    .prepare = prepare,
    .run = {[PASS_INFER] = infer, [PASS_FORWARD] = forward, [PASS_BACKWARD_DATA] = backward},
};
