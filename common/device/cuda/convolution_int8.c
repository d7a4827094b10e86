#include "common/device/cuda/int8.h"

#include <limits.h>

/*
 * The 8-bit form of a convolution. In one group it is a product of matrices: what each window sees, a row each, times the packed
 * weights, in exact s32 by cuBLAS, some images at a time; then a kernel of ours scales and rounds. In groups (depthwise) one
 * kernel of ours does it all, from canonical weights.
 */

/* Patches and sums of so many bytes go at once: enough to fill a GPU, and they stay in its cache. */
enum { SCRATCH_LIMIT = 16 << 20, SCRATCH_ALIGNMENT = 256 };

/** More products than that of a u8 and an s8 might not fit into s32. */
enum { MOST_TAPS = INT32_MAX / (UINT8_MAX * 128) };

struct convolution_int8 {
    struct cuda_kernel base;
    struct packing packing;
    int64_t pixels;       /* of a result */
    int64_t images;       /* that are computed at once */
    size_t patches_bytes; /* behind which the sums are in the scratch */
};

static bool is_8_bit(enum dtype dtype) {
    return dtype == DTYPE_U8 || dtype == DTYPE_S8;
}

static bool dtypes_fit(const struct op_args *args) {
    const struct tensor_desc *desc = args->desc;
    enum dtype dst = desc[ARG_DST].dtype;
    return is_8_bit(desc[ARG_SRC].dtype) && desc[ARG_WEIGHT].dtype == DTYPE_S8 && desc[ARG_SCALE].dtype == DTYPE_F32 &&
           (args->direction[ARG_BIAS] == ARG_ABSENT || desc[ARG_BIAS].dtype == DTYPE_F32) &&
           (args->direction[ARG_SRC2] == ARG_ABSENT || is_8_bit(desc[ARG_SRC2].dtype)) &&
           (is_8_bit(dst) || dst == DTYPE_F32 || dst == DTYPE_BF16 || dst == DTYPE_F16);
}

/** cuBLAS counts in ints; sums have to be exact. */
static bool supports(const struct kernel_request *request) {
    const int64_t *weight = request->args.desc[ARG_WEIGHT].shape.dims, *dst = request->args.desc[ARG_DST].shape.dims;
    return dtypes_fit(&request->args) && weight[1] * weight[2] * weight[3] <= MOST_TAPS && dst[2] * dst[3] <= INT_MAX;
}

static size_t aligned(size_t bytes) {
    return (bytes + SCRATCH_ALIGNMENT - 1) / SCRATCH_ALIGNMENT * SCRATCH_ALIGNMENT;
}

static void plan_product(struct convolution_int8 *c) {
    struct op_args *args = &c->base.base.args;
    const int64_t *dst = args->desc[ARG_DST].shape.dims;
    args->desc[ARG_WEIGHT] = cuda_packed_desc(&args->desc[ARG_WEIGHT].shape);
    c->packing = cuda_packing_of(&args->desc[ARG_WEIGHT].shape);
    c->pixels = dst[2] * dst[3];
    int64_t bytes = c->pixels * (c->packing.depth + c->packing.rows * (int64_t)sizeof(int32_t));
    c->images = SCRATCH_LIMIT / bytes < 1 ? 1 : SCRATCH_LIMIT / bytes < dst[0] ? SCRATCH_LIMIT / bytes : dst[0];
    c->patches_bytes = aligned((size_t)(c->images * c->pixels * c->packing.depth));
    size_t sums_bytes = (size_t)(c->images * c->pixels * c->packing.rows) * sizeof(int32_t);
    cuda_set_private(&c->base, ARG_SCRATCH, c->patches_bytes + sums_bytes);
}

/** Images are NHWC wherever a choice is left; grouped weights canonical. */
static bool prepare(struct cuda_kernel *kernel, const struct kernel_request *request, struct error *err) {
    struct convolution_int8 *c = (struct convolution_int8 *)kernel;
    bool product = kernel->base.op.conv2d.groups == 1;
    (void)err;
    cuda_set_layouts(kernel, cuda_request_may_be_last(request));
    kernel->base.args.desc[ARG_WEIGHT].layout = NULL;
    kernel->base.implementation = product ? "cublas s8, patches" : "thorax";
    if (product)
        plan_product(c);
    return true;
}

/** The result from image `first` on. */
static struct int8_result result_of(const struct cuda_call *call, int64_t first) {
    const struct conv2d *conv = &call->kernel->base.op.conv2d;
    const struct tensor_desc *desc = call->kernel->base.args.desc;
    const int64_t *d = desc[ARG_DST].shape.dims;
    char *dst = cuda_buffer(call, ARG_DST);
    const char *residual = cuda_buffer(call, ARG_SRC2);
    int64_t skipped = first * d[1] * d[2] * d[3];
    return (struct int8_result){.factor = cuda_buffer(call, ARG_SCALE),
                                .bias = cuda_buffer(call, ARG_BIAS),
                                .residual = residual ? residual + skipped : NULL,
                                .dst = dst + skipped * (int64_t)dtype_size(desc[ARG_DST].dtype),
                                .residual_shape = residual ? cuda_images(call, ARG_SRC2) : (struct images){0},
                                .shape = cuda_images(call, ARG_DST),
                                .residual_dtype = residual ? desc[ARG_SRC2].dtype : DTYPE_U8,
                                .dtype = desc[ARG_DST].dtype,
                                .activation = conv->activation,
                                .residual_factor = conv->int8.residual_factor};
}

static bool is_signed(const struct cuda_call *call) {
    return call->kernel->base.args.desc[ARG_SRC].dtype == DTYPE_S8;
}

/* --- as a product --- */

static const struct convolution_int8 *convolution_of(const struct cuda_call *call) {
    return (const struct convolution_int8 *)call->kernel;
}

static bool gather(const struct cuda_call *call, int64_t first, int64_t count, struct error *err) {
    const struct convolution_int8 *c = convolution_of(call);
    const int64_t *dst = cuda_dims(call, ARG_DST), *src = cuda_dims(call, ARG_SRC);
    const char *images = cuda_buffer(call, ARG_SRC);
    struct patches k = {.src = images + first * src[1] * src[2] * src[3],
                        .dst = cuda_buffer(call, ARG_SCRATCH),
                        .from = cuda_images(call, ARG_SRC),
                        .to_size = {dst[2], dst[3]},
                        .depth = c->packing.depth,
                        .window = c->base.base.op.conv2d.window,
                        .is_signed = is_signed(call)};
    return cuda_launched(call, launch_patches(&k, count * c->pixels * k.depth / INT8_PATCH_BYTES, call->stream), err);
}

static int32_t *sums_of(const struct cuda_call *call) {
    return (int32_t *)((char *)cuda_buffer(call, ARG_SCRATCH) + convolution_of(call)->patches_bytes);
}

/** By columns, as cuBLAS counts: sums (rows x pixels) = weight^T (depth x rows) patches (depth x pixels). */
static bool multiply(const struct cuda_call *call, int64_t count, struct error *err) {
    const struct convolution_int8 *c = convolution_of(call);
    const int32_t one = 1, zero = 0;
    int rows = (int)c->packing.rows, depth = (int)c->packing.depth, pixels = (int)(count * c->pixels);
    cublasHandle_t cublas = call->device->cublas;
    return cuda_cublas_on(call->device, call->stream, err) &&
           cublas_ok(cublasGemmEx(cublas, CUBLAS_OP_T, CUBLAS_OP_N, rows, pixels, depth, &one, cuda_buffer(call, ARG_WEIGHT),
                                  CUDA_R_8I, depth, cuda_buffer(call, ARG_SCRATCH), CUDA_R_8I, depth, &zero, sums_of(call),
                                  CUDA_R_32I, rows, CUBLAS_COMPUTE_32I, CUBLAS_GEMM_DEFAULT),
                     "cublasGemmEx", err);
}

static bool requantise(const struct cuda_call *call, int64_t first, int64_t count, struct error *err) {
    const struct convolution_int8 *c = convolution_of(call);
    const char *weight = cuda_buffer(call, ARG_WEIGHT);
    struct requantise k = {.sums = sums_of(call),
                           .lacking = is_signed(call) ? NULL : (const int32_t *)(weight + c->packing.sums_at),
                           .rows = c->packing.rows,
                           .result = result_of(call, first)};
    return cuda_launched(call, launch_requantise(&k, count * c->pixels * k.result.shape.channels, call->stream), err);
}

static bool run_product(const struct cuda_call *call, struct error *err) {
    int64_t batch = cuda_dims(call, ARG_DST)[0], images = convolution_of(call)->images;
    bool ok = true;
    for (int64_t first = 0; ok && first < batch; first += images) {
        int64_t count = batch - first < images ? batch - first : images;
        ok = gather(call, first, count, err) && multiply(call, count, err) && requantise(call, first, count, err);
    }
    return ok;
}

/* --- in groups --- */

static bool run_groups(const struct cuda_call *call, struct error *err) {
    const struct conv2d *conv = &call->kernel->base.op.conv2d;
    struct group_convolution k = {.src = cuda_buffer(call, ARG_SRC),
                                  .weight = cuda_buffer(call, ARG_WEIGHT),
                                  .from = cuda_images(call, ARG_SRC),
                                  .window = conv->window,
                                  .group_in = cuda_dims(call, ARG_WEIGHT)[1],
                                  .group_out = conv->channels_out / conv->groups,
                                  .is_signed = is_signed(call),
                                  .result = result_of(call, 0)};
    return cuda_launched(call, launch_group_convolution(&k, cuda_count(call, ARG_DST), call->stream), err);
}

static bool infer(const struct cuda_call *call, struct error *err) {
    return (call->kernel->base.op.conv2d.groups == 1 ? run_product : run_groups)(call, err);
}

const struct cuda_row cuda_int8_conv2d = {.kernel_size = sizeof(struct convolution_int8),
                                          .integers = true,
                                          .supports = supports,
                                          .prepare = prepare,
                                          .run = {[PASS_INFER] = infer}};
