#include "common/device/cuda/convolution.h"

/* Which of cuDNN's algorithms a convolution takes. */

enum { CANDIDATES = CONVOLUTION_CANDIDATES };
static const size_t MOST_WORKSPACE_BYTES = (size_t)1 << 30;

/** Transform algorithms (FFT, Winograd) round more coarsely than the sum itself: left out until measured. */
static bool is_direct(enum pass pass, int algorithm) {
    if (pass == PASS_BACKWARD_DATA)
        return algorithm == CUDNN_CONVOLUTION_BWD_DATA_ALGO_0 || algorithm == CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
    if (pass == PASS_BACKWARD_WEIGHT)
        return algorithm == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0 || algorithm == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1 ||
               algorithm == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3;
    return algorithm <= CUDNN_CONVOLUTION_FWD_ALGO_DIRECT;
}

static bool list_forward(const struct convolution *c, cudnnHandle_t cudnn, struct candidate *out, int *count,
                         struct error *err) {
    cudnnConvolutionFwdAlgoPerf_t found[CANDIDATES];
    if (!cudnn_ok(cudnnGetConvolutionForwardAlgorithm_v7(cudnn, c->src, c->weight, c->descriptor, c->dst, CANDIDATES, count,
                                                         found),
                  "cudnnGetConvolutionForwardAlgorithm_v7", err))
        return false;
    CONVOLUTION_COPY_CANDIDATES(found, *count, out);
    return true;
}

static bool list_data(const struct convolution *c, cudnnHandle_t cudnn, struct candidate *out, int *count, struct error *err) {
    cudnnConvolutionBwdDataAlgoPerf_t found[CANDIDATES];
    if (!cudnn_ok(cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnn, c->weight, c->dst, c->descriptor, c->src, CANDIDATES,
                                                              count, found),
                  "cudnnGetConvolutionBackwardDataAlgorithm_v7", err))
        return false;
    CONVOLUTION_COPY_CANDIDATES(found, *count, out);
    return true;
}

static bool list_weight(const struct convolution *c, cudnnHandle_t cudnn, struct candidate *out, int *count,
                        struct error *err) {
    cudnnConvolutionBwdFilterAlgoPerf_t found[CANDIDATES];
    if (!cudnn_ok(cudnnGetConvolutionBackwardFilterAlgorithm_v7(cudnn, c->src, c->dst, c->descriptor, c->weight, CANDIDATES,
                                                                count, found),
                  "cudnnGetConvolutionBackwardFilterAlgorithm_v7", err))
        return false;
    CONVOLUTION_COPY_CANDIDATES(found, *count, out);
    return true;
}

/** f32 that may not be rounded says so by FMA_MATH, and takes no candidate that would. */
static bool math_fits(const struct convolution *c, const struct cuda_device *device, cudnnMathType_t math) {
    bool exact = c->dtype == DTYPE_F32 && !device->tf32;
    return math != CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION && !(exact && math == CUDNN_TENSOR_OP_MATH);
}

static bool is_usable(const struct convolution *c, const struct candidate *row) {
    const struct cuda_device *device = cuda_device_of(c->base.base.device);
    return row->status == CUDNN_STATUS_SUCCESS && row->bytes <= MOST_WORKSPACE_BYTES &&
           is_direct(c->base.base.pass, row->algorithm) && math_fits(c, device, row->math) &&
           (!device->deterministic || row->deterministic);
}

int convolution_usable(const struct convolution *c, struct candidate *rows, int count) {
    int kept = 0;
    for (int i = 0; i < count; i++)
        if (is_usable(c, &rows[i]))
            rows[kept++] = rows[i];
    return kept;
}

/** cuDNN's fused call has bias and ReLU, and one algorithm. Groups are left to where it is sure to have them. */
static bool may_be_fused(const struct convolution *c, const struct candidate *row) {
    const struct kernel *kernel = &c->base.base;
    const struct conv2d *conv = &kernel->op.conv2d;
    return (kernel->pass == PASS_INFER || kernel->pass == PASS_FORWARD) && conv->bias && conv->groups == 1 &&
           conv->activation != ACTIVATION_RELU6 && row->algorithm == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
}

static bool take(struct convolution *c, const struct candidate *row, struct error *err) {
    const struct cuda_device *device = cuda_device_of(c->base.base.device);
    bool exact = c->dtype == DTYPE_F32 && !device->tf32;
    c->algorithm = row->algorithm;
    c->workspace_bytes = row->bytes;
    c->fused = may_be_fused(c, row);
    return exact || cudnn_ok(cudnnSetConvolutionMathType(c->descriptor, row->math), "cudnnSetConvolutionMathType", err);
}

/** The candidates come with the one that cuDNN thinks the fastest in front. */
bool convolution_choose(struct convolution *c, struct error *err) {
    static bool (*const list[PASS_COUNT])(const struct convolution *, cudnnHandle_t, struct candidate *, int *,
                                          struct error *) = {list_forward, list_forward, list_data, list_weight};
    const struct cuda_device *device = cuda_device_of(c->base.base.device);
    enum pass pass = c->base.base.pass;
    struct candidate rows[CANDIDATES];
    int count = 0;
    if (!list[pass](c, device->cudnn, rows, &count, err))
        return false;
    count = convolution_usable(c, rows, count);
    if (count == 0)
        return error_set(err, ERROR_UNSUPPORTED, "cuDNN has no %salgorithm for this convolution's %s pass",
                         device->deterministic ? "deterministic " : "", pass_name(pass));
    for (int i = 0; i < count; i++)
        if (may_be_fused(c, &rows[i]))
            return take(c, &rows[i], err);
    return take(c, &rows[device->algorithms ? convolution_search(c, rows, count) : 0], err);
}
