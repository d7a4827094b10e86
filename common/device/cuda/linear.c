#include "common/device/cuda/internal.h"

#include <limits.h>

/*
 * cuBLAS counts by columns, so it sees our row-major src (N, F) as F x N, weight (O, F) as F x O and dst
 * (N, O) as O x N:
 *   dst = weight^T src,  diff_src = weight diff_dst,  diff_weight = src diff_dst^T
 */

/** c (m x n) = op(a) op(b), summed over k; a transposed operand is stored with its k along the columns. */
struct product {
    bool transpose_a, transpose_b;
    int m, n, k;
    const float *a, *b;
    float *c;
};

static bool multiply(const struct cuda_call *call, const struct product *p, struct error *err) {
    const float one = 1, zero = 0;
    return cublas_ok(cublasSetStream(call->device->cublas, call->stream), "cublasSetStream", err) &&
           cublas_ok(cublasSgemm(call->device->cublas, p->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                                 p->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N, p->m, p->n, p->k, &one, p->a,
                                 p->transpose_a ? p->k : p->m, p->b, p->transpose_b ? p->n : p->k, &zero,
                                 p->c, p->m),
                     "cublasSgemm", err);
}

/** The sizes, from the weight's or its gradient's shape and a tensor with the batch. */
struct sizes {
    int batch, features, outputs;
};

static struct sizes sizes_of(const struct cuda_call *call, enum arg weight, enum arg batched) {
    const int64_t *w = cuda_dims(call, weight);
    return (struct sizes){(int)cuda_dims(call, batched)[0], (int)w[1], (int)w[0]};
}

static bool forward(const struct cuda_call *call, struct error *err) {
    struct sizes s = sizes_of(call, ARG_WEIGHT, ARG_SRC);
    struct product product = {.transpose_a = true,
                              .m = s.outputs,
                              .n = s.batch,
                              .k = s.features,
                              .a = cuda_buffer(call, ARG_WEIGHT),
                              .b = cuda_buffer(call, ARG_SRC),
                              .c = cuda_buffer(call, ARG_DST)};
    struct epilogue k = {.bias = cuda_buffer(call, ARG_BIAS),
                         .dst = product.c,
                         .shape = {s.batch, s.outputs, 1, true},
                         .dtype = DTYPE_F32,
                         .width = cuda_width(s.outputs)};
    return multiply(call, &product, err) &&
           (!k.bias || cuda_launched(call, launch_epilogue(&k, cuda_count(call, ARG_DST) / k.width, call->stream), err));
}

static bool backward_data(const struct cuda_call *call, struct error *err) {
    struct sizes s = sizes_of(call, ARG_WEIGHT, ARG_DIFF_DST);
    struct product product = {.m = s.features,
                              .n = s.batch,
                              .k = s.outputs,
                              .a = cuda_buffer(call, ARG_WEIGHT),
                              .b = cuda_buffer(call, ARG_DIFF_DST),
                              .c = cuda_buffer(call, ARG_DIFF_SRC)};
    return multiply(call, &product, err);
}

static bool backward_weight(const struct cuda_call *call, struct error *err) {
    struct sizes s = sizes_of(call, ARG_DIFF_WEIGHT, ARG_SRC);
    struct product product = {.transpose_b = true,
                              .m = s.features,
                              .n = s.outputs,
                              .k = s.batch,
                              .a = cuda_buffer(call, ARG_SRC),
                              .b = cuda_buffer(call, ARG_DIFF_DST),
                              .c = cuda_buffer(call, ARG_DIFF_WEIGHT)};
    struct channels rows = {s.batch, s.outputs, 1, true};
    float *sum = cuda_buffer(call, ARG_DIFF_BIAS);
    return multiply(call, &product, err) &&
           (!sum || cuda_channel_sum(call, &rows, DTYPE_F32, product.b, cuda_buffer(call, ARG_SCRATCH), sum, err));
}

/** cuBLAS's sizes are ints. */
static bool supports(const struct kernel_request *request) {
    for (enum arg arg = ARG_NONE + 1; arg < ARG_COUNT; arg++)
        if (shape_count(&request->args.desc[arg].shape) > INT_MAX)
            return false;
    return true;
}

static bool prepare(struct cuda_kernel *kernel, const struct kernel_request *request, struct error *err) {
    const struct op_args *args = &kernel->base.args;
    (void)request;
    (void)err;
    kernel->base.implementation = "cublas";
    if (args->direction[ARG_DIFF_BIAS] != ARG_ABSENT) {
        const int64_t *dims = args->desc[ARG_DIFF_DST].shape.dims;
        struct channels rows = {dims[0], dims[1], 1, true};
        struct sliced cut = cuda_sliced(&rows);
        cuda_set_private(kernel, ARG_SCRATCH, cuda_sums_bytes(&cut));
    }
    return true;
}

const struct cuda_row cuda_linear = {
    .canonical = true,
    .supports = supports,
    .prepare = prepare,
    .run = {[PASS_INFER] = forward,
            [PASS_FORWARD] = forward,
            [PASS_BACKWARD_DATA] = backward_data,
            [PASS_BACKWARD_WEIGHT] = backward_weight},
};
