#include "common/device/cuda/internal.h"

/* --- activation, add --- */

static bool pointwise_run(const struct cuda_call *call, enum activation activation, struct error *err) {
    struct pointwise k = {.a = cuda_buffer(call, ARG_SRC),
                          .b = cuda_buffer(call, ARG_SRC2),
                          .dst = cuda_buffer(call, ARG_DST),
                          .activation = activation};
    return cuda_launched(call, launch_pointwise(&k, cuda_count(call, ARG_DST), call->stream), err);
}

static bool forward(const struct cuda_call *call, struct error *err) {
    return pointwise_run(call, call->kernel->base.op.activation, err);
}

static bool backward(const struct cuda_call *call, struct error *err) {
    struct gate k = {.dst = cuda_buffer(call, ARG_DST),
                     .diff_dst = cuda_buffer(call, ARG_DIFF_DST),
                     .diff_src = cuda_buffer(call, ARG_DIFF_SRC),
                     .activation = call->kernel->base.op.activation};
    return cuda_launched(call, launch_gate(&k, cuda_count(call, ARG_DIFF_SRC), call->stream), err);
}

const struct cuda_row cuda_activation = {
    .run = {[PASS_INFER] = forward, [PASS_FORWARD] = forward, [PASS_BACKWARD_DATA] = backward}};

const struct cuda_row cuda_add = {
    .run = {[PASS_INFER] = forward, [PASS_FORWARD] = forward, [PASS_BACKWARD_DATA] = backward}};

/* --- dropout --- */

static bool drop(const struct cuda_call *call, enum arg from, enum arg to, struct error *err) {
    int64_t count = cuda_count(call, to);
    struct drop k = {.src = cuda_buffer(call, from),
                     .dst = cuda_buffer(call, to),
                     .seed = cuda_buffer(call, ARG_SEED),
                     .features = count / cuda_dims(call, to)[0],
                     .dropout = call->kernel->base.op.dropout};
    return cuda_launched(call, launch_drop(&k, count, call->stream), err);
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

/* --- reorder: one layout, so all there is to change is the dtype --- */

static bool reorder(const struct cuda_call *call, struct error *err) {
    const struct tensor_desc *desc = call->kernel->base.args.desc;
    struct cast k = {.src = cuda_buffer(call, ARG_SRC),
                     .dst = cuda_buffer(call, ARG_DST),
                     .from = desc[ARG_SRC].dtype,
                     .to = desc[ARG_DST].dtype};
    if (k.from == k.to)
        return cuda_copy(&call->device->base, k.dst, k.src, desc[ARG_DST].bytes,
                         (struct stream *)call->stream, err);
    return cuda_launched(call, launch_cast(&k, cuda_count(call, ARG_DST), call->stream), err);
}

const struct cuda_row cuda_reorder = {.run = {[PASS_FORWARD] = reorder}};
