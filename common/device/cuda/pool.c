#include "common/device/cuda/internal.h"

/* --- max pooling; the workspace has each window's winner, an int32 for its place in the plane --- */

/** Neighbours are alike where they are channels of one pixel. */
static int pool_width(const struct images *shape) {
    return shape->last ? cuda_width(shape->channels) : 1;
}

static bool max_forward(const struct cuda_call *call, struct error *err) {
    struct max_pool k = {.src = cuda_buffer(call, ARG_SRC),
                         .dst = cuda_buffer(call, ARG_DST),
                         .winners = cuda_buffer(call, ARG_WORKSPACE),
                         .from = cuda_images(call, ARG_SRC),
                         .to = cuda_images(call, ARG_DST),
                         .window = call->kernel->base.op.max_pool,
                         .dtype = cuda_dtype(call, ARG_DST)};
    k.width = pool_width(&k.to);
    return cuda_launched(call, launch_max_pool(&k, cuda_count(call, ARG_DST) / k.width, call->stream), err);
}

static bool max_backward(const struct cuda_call *call, struct error *err) {
    struct max_pool_gradient k = {.diff_dst = cuda_buffer(call, ARG_DIFF_DST),
                                  .winners = cuda_buffer(call, ARG_WORKSPACE),
                                  .diff_src = cuda_buffer(call, ARG_DIFF_SRC),
                                  .from = cuda_images(call, ARG_DIFF_SRC),
                                  .to = cuda_images(call, ARG_DIFF_DST),
                                  .window = call->kernel->base.op.max_pool,
                                  .dtype = cuda_dtype(call, ARG_DIFF_SRC)};
    k.width = pool_width(&k.from);
    return cuda_launched(call, launch_max_pool_gradient(&k, cuda_count(call, ARG_DIFF_SRC) / k.width, call->stream), err);
}

static bool max_prepare(struct cuda_kernel *kernel, const struct kernel_request *request, struct error *err) {
    (void)request;
    (void)err;
    enum arg dst = kernel->base.pass == PASS_BACKWARD_DATA ? ARG_DIFF_DST : ARG_DST;
    cuda_set_private(kernel, ARG_WORKSPACE, (size_t)shape_count(&kernel->base.args.desc[dst].shape) * sizeof(int32_t));
    return true;
}

const struct cuda_row cuda_max_pool = {
    .prepare = max_prepare,
    .run = {[PASS_INFER] = max_forward, [PASS_FORWARD] = max_forward, [PASS_BACKWARD_DATA] = max_backward},
};

/* --- global average pooling --- */

static bool average_forward(const struct cuda_call *call, struct error *err) {
    struct plane_average k = {.src = cuda_buffer(call, ARG_SRC),
                              .dst = cuda_buffer(call, ARG_DST),
                              .shape = cuda_channels(call, ARG_SRC),
                              .src_dtype = cuda_dtype(call, ARG_SRC),
                              .dst_dtype = cuda_dtype(call, ARG_DST)};
    return cuda_launched(call, launch_plane_average(&k, cuda_count(call, ARG_DST), call->stream), err);
}

static bool average_backward(const struct cuda_call *call, struct error *err) {
    struct plane_spread k = {.diff_dst = cuda_buffer(call, ARG_DIFF_DST),
                             .diff_src = cuda_buffer(call, ARG_DIFF_SRC),
                             .shape = cuda_channels(call, ARG_DIFF_SRC),
                             .src_dtype = cuda_dtype(call, ARG_DIFF_SRC),
                             .dst_dtype = cuda_dtype(call, ARG_DIFF_DST)};
    return cuda_launched(call, launch_plane_spread(&k, cuda_count(call, ARG_DIFF_SRC), call->stream), err);
}

const struct cuda_row cuda_global_average_pool = {.run = {[PASS_INFER] = average_forward,
                                                          [PASS_FORWARD] = average_forward,
                                                          [PASS_BACKWARD_DATA] = average_backward}};
