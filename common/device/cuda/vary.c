#include "common/device/cuda/internal.h"

#include <string.h>

/* Pictures with their variations -> images. The scratch holds the warped pictures, and those blurred along their rows. */

static bool vary_supports(const struct kernel_request *request) {
    const struct op_args *args = &request->args;
    enum dtype dst = args->desc[ARG_DST].dtype;
    return args->desc[ARG_SRC].dtype == DTYPE_U8 && (dst == DTYPE_F32 || dst == DTYPE_BF16 || dst == DTYPE_F16);
}

static int64_t all_pixels(const struct kernel *kernel) {
    const int64_t *dst = kernel->args.desc[ARG_DST].shape.dims;
    return dst[0] * dst[2] * dst[3];
}

/** Channels go last unless asked not to: that is how the convolution behind it reads them. */
static bool vary_prepare(struct cuda_kernel *kernel, const struct kernel_request *request, struct error *err) {
    (void)err;
    cuda_set_layouts(kernel, cuda_request_may_be_last(request));
    cuda_set_private(kernel, ARG_SCRATCH, 2 * (size_t)all_pixels(&kernel->base));
    return true;
}

static bool vary(const struct cuda_call *call, struct error *err) {
    const struct vary *op = &call->kernel->base.op.vary;
    int64_t pixels = all_pixels(&call->kernel->base), pictures = cuda_dims(call, ARG_SRC)[0];
    uint8_t *scratch = cuda_buffer(call, ARG_SCRATCH);
    struct varied in = {.rows = cuda_buffer(call, ARG_SRC), .row_bytes = cuda_dims(call, ARG_SRC)[1], .height = op->height,
                        .width = op->width};
    struct vary_warp warp = {.in = in, .dst = scratch};
    struct vary_blur blur = {.in = in, .warped = scratch, .dst = scratch + pixels};
    struct vary_finish finish = {.in = in, .warped = scratch, .blurred = blur.dst, .dst = cuda_buffer(call, ARG_DST),
                                 .to = cuda_images(call, ARG_DST), .dtype = cuda_dtype(call, ARG_DST)};
    memcpy(finish.mean, op->mean, sizeof finish.mean);
    memcpy(finish.stddev, op->stddev, sizeof finish.stddev);
    return cuda_launched(call, launch_vary_warp(&warp, pixels, call->stream), err) &&
           cuda_launched(call, launch_vary_blur(&blur, pixels, call->stream), err) &&
           cuda_launched(call, launch_vary_finish(&finish, pictures * vary_finish_count(&in), call->stream), err);
}

const struct cuda_row cuda_vary = {
    .integers = true, .supports = vary_supports, .prepare = vary_prepare, .run = {[PASS_FORWARD] = vary}};
