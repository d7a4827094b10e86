#include "common/device/cuda/internal.h"

/* --- activation, add --- */

static bool pointwise_run(const struct cuda_call *call, enum activation activation, struct error *err) {
    int64_t count = cuda_count(call, ARG_DST);
    struct pointwise k = {.a = cuda_buffer(call, ARG_SRC),
                          .b = cuda_buffer(call, ARG_SRC2),
                          .dst = cuda_buffer(call, ARG_DST),
                          .dtype = cuda_dtype(call, ARG_DST),
                          .activation = activation,
                          .width = cuda_width(count)};
    return cuda_launched(call, launch_pointwise(&k, count / k.width, call->stream), err);
}

static bool forward(const struct cuda_call *call, struct error *err) {
    return pointwise_run(call, call->kernel->base.op.activation, err);
}

static bool backward(const struct cuda_call *call, struct error *err) {
    int64_t count = cuda_count(call, ARG_DIFF_SRC);
    struct gate k = {.dst = cuda_buffer(call, ARG_DST),
                     .diff_dst = cuda_buffer(call, ARG_DIFF_DST),
                     .diff_src = cuda_buffer(call, ARG_DIFF_SRC),
                     .dtype = cuda_dtype(call, ARG_DIFF_SRC),
                     .activation = call->kernel->base.op.activation,
                     .width = cuda_width(count)};
    return cuda_launched(call, launch_gate(&k, count / k.width, call->stream), err);
}

const struct cuda_row cuda_activation = {
    .run = {[PASS_INFER] = forward, [PASS_FORWARD] = forward, [PASS_BACKWARD_DATA] = backward}};

const struct cuda_row cuda_add = {
    .run = {[PASS_INFER] = forward, [PASS_FORWARD] = forward, [PASS_BACKWARD_DATA] = backward}};

/* --- dropout --- */

static bool drop(const struct cuda_call *call, enum arg from, enum arg to, struct error *err) {
    struct drop k = {.src = cuda_buffer(call, from),
                     .dst = cuda_buffer(call, to),
                     .seed = cuda_buffer(call, ARG_SEED),
                     .shape = cuda_images(call, to),
                     .dropout = call->kernel->base.op.dropout,
                     .dtype = cuda_dtype(call, to)};
    return cuda_launched(call, launch_drop(&k, cuda_count(call, to), call->stream), err);
}

static bool dropout_infer(const struct cuda_call *call, struct error *err) {
    return pointwise_run(call, ACTIVATION_NONE, err);
}

static bool dropout_forward(const struct cuda_call *call, struct error *err) {
    return drop(call, ARG_SRC, ARG_DST, err);
}

static bool dropout_backward(const struct cuda_call *call, struct error *err) {
    return drop(call, ARG_DIFF_DST, ARG_DIFF_SRC, err);
}

const struct cuda_row cuda_dropout = {.run = {[PASS_INFER] = dropout_infer,
                                              [PASS_FORWARD] = dropout_forward,
                                              [PASS_BACKWARD_DATA] = dropout_backward}};

/* --- reorder: another dtype, another order of the channels, or both --- */

struct reorder {
    struct cuda_kernel base;
    bool from_last, to_last;
};

/** Each side keeps the layout that was asked for; one that is left open is the other one's. */
static bool reorder_prepare(struct cuda_kernel *kernel, const struct kernel_request *request, struct error *err) {
    struct reorder *reorder = (struct reorder *)kernel;
    struct tensor_desc *desc = kernel->base.args.desc;
    const struct layout *from = request->args.desc[ARG_SRC].layout, *to = request->args.desc[ARG_DST].layout;
    (void)err;
    from = from == LAYOUT_ANY ? to : from;
    to = to == LAYOUT_ANY ? from : to;
    desc[ARG_SRC].layout = cuda_layout_of(&desc[ARG_SRC].shape, from == &cuda_nhwc);
    desc[ARG_DST].layout = cuda_layout_of(&desc[ARG_DST].shape, to == &cuda_nhwc);
    reorder->from_last = desc[ARG_SRC].layout != NULL;
    reorder->to_last = desc[ARG_DST].layout != NULL;
    return true;
}

static bool permute(const struct cuda_call *call, struct error *err) {
    const struct reorder *reorder = (const struct reorder *)call->kernel;
    struct permute k = {.src = cuda_buffer(call, ARG_SRC),
                        .dst = cuda_buffer(call, ARG_DST),
                        .from_dtype = cuda_dtype(call, ARG_SRC),
                        .to_dtype = cuda_dtype(call, ARG_DST),
                        .to = cuda_channels_of(&reorder->base.base.args.desc[ARG_DST].shape, reorder->to_last)};
    return cuda_launched(call, launch_permute(&k, cuda_count(call, ARG_DST), call->stream), err);
}

static bool reorder_run(const struct cuda_call *call, struct error *err) {
    const struct reorder *reorder = (const struct reorder *)call->kernel;
    const struct tensor_desc *desc = call->kernel->base.args.desc;
    int64_t count = cuda_count(call, ARG_DST);
    struct cast k = {.src = cuda_buffer(call, ARG_SRC),
                     .dst = cuda_buffer(call, ARG_DST),
                     .from = desc[ARG_SRC].dtype,
                     .to = desc[ARG_DST].dtype,
                     .width = cuda_width(count)};
    if (reorder->from_last != reorder->to_last)
        return permute(call, err);
    if (k.from == k.to)
        return cuda_copy(&call->device->base, k.dst, k.src, desc[ARG_DST].bytes, (struct stream *)call->stream, err);
    return cuda_launched(call, launch_cast(&k, count / k.width, call->stream), err);
}

const struct cuda_row cuda_reorder = {
    .kernel_size = sizeof(struct reorder), .prepare = reorder_prepare, .run = {[PASS_FORWARD] = reorder_run}};
