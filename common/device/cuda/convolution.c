#include "common/device/cuda/internal.h"

#include <limits.h>
#include <string.h>

/*
 * Convolutions through cuDNN's legacy calls, in NCHW and f32 without TF32. Bias, residual and activation
 * follow in a kernel of ours. cuDNN pads alike on both sides: where before and after differ, the image is
 * copied into a padded one first (or the gradient cut out of one last).
 */
struct convolution {
    struct cuda_kernel base;
    cudnnTensorDescriptor_t src, dst;
    cudnnFilterDescriptor_t weight;
    cudnnConvolutionDescriptor_t descriptor;
    int algorithm;          /* of the pass's own enumeration */
    size_t workspace_bytes; /* cuDNN's, at the end of the scratch */
    bool padded;            /* src or diff_src goes by way of the scratch's beginning */
    struct shape padded_shape;
    size_t padded_bytes;
};

enum { SCRATCH_ALIGNMENT = 256, CANDIDATES = 16 };
static const size_t MOST_WORKSPACE_BYTES = (size_t)1 << 30;

/** The roles that the image and the result play in a pass. */
static enum arg image_arg(enum pass pass) {
    return pass == PASS_BACKWARD_DATA ? ARG_DIFF_SRC : ARG_SRC;
}

static enum arg result_arg(enum pass pass) {
    return pass == PASS_BACKWARD_DATA || pass == PASS_BACKWARD_WEIGHT ? ARG_DIFF_DST : ARG_DST;
}

static enum arg weight_arg(enum pass pass) {
    return pass == PASS_BACKWARD_WEIGHT ? ARG_DIFF_WEIGHT : ARG_WEIGHT;
}

/* --- descriptors --- */

static bool describe_tensor(cudnnTensorDescriptor_t *out, const struct shape *shape, struct error *err) {
    const int64_t *d = shape->dims;
    return cudnn_ok(cudnnCreateTensorDescriptor(out), "cudnnCreateTensorDescriptor", err) &&
           cudnn_ok(cudnnSetTensor4dDescriptor(*out, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, (int)d[0],
                                               (int)d[1], (int)d[2], (int)d[3]),
                    "cudnnSetTensor4dDescriptor", err);
}

static bool describe_weight(struct convolution *c, const struct shape *shape, struct error *err) {
    const int64_t *d = shape->dims;
    return cudnn_ok(cudnnCreateFilterDescriptor(&c->weight), "cudnnCreateFilterDescriptor", err) &&
           cudnn_ok(cudnnSetFilter4dDescriptor(c->weight, CUDNN_DATA_FLOAT, CUDNN_TENSOR_NCHW, (int)d[0],
                                               (int)d[1], (int)d[2], (int)d[3]),
                    "cudnnSetFilter4dDescriptor", err);
}

static bool describe_convolution(struct convolution *c, struct error *err) {
    const struct conv2d *conv = &c->base.base.op.conv2d;
    const struct window *w = &conv->window;
    int down = c->padded ? 0 : w->pad_before[0], right = c->padded ? 0 : w->pad_before[1];
    return cudnn_ok(cudnnCreateConvolutionDescriptor(&c->descriptor), "cudnnCreateConvolutionDescriptor",
                    err) &&
           cudnn_ok(cudnnSetConvolution2dDescriptor(c->descriptor, down, right, w->stride[0], w->stride[1], 1,
                                                    1, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT),
                    "cudnnSetConvolution2dDescriptor", err) &&
           cudnn_ok(cudnnSetConvolutionGroupCount(c->descriptor, conv->groups),
                    "cudnnSetConvolutionGroupCount", err) &&
           cudnn_ok(cudnnSetConvolutionMathType(c->descriptor, CUDNN_FMA_MATH), "cudnnSetConvolutionMathType",
                    err);
}

/** Decides whether there is a padded image, and how large it is. */
static void plan_padding(struct convolution *c, const struct shape *image) {
    const struct window *w = &c->base.base.op.conv2d.window;
    c->padded = w->pad_before[0] != w->pad_after[0] || w->pad_before[1] != w->pad_after[1];
    c->padded_shape = *image;
    if (!c->padded)
        return;
    for (int axis = 0; axis < 2; axis++)
        c->padded_shape.dims[2 + axis] += w->pad_before[axis] + w->pad_after[axis];
    size_t bytes = (size_t)shape_count(&c->padded_shape) * sizeof(float);
    c->padded_bytes = (bytes + SCRATCH_ALIGNMENT - 1) / SCRATCH_ALIGNMENT * SCRATCH_ALIGNMENT;
}

/* --- algorithms --- */

/** What the three passes' candidates have in common. */
struct candidate {
    int algorithm;
    cudnnStatus_t status;
    size_t bytes;
    bool deterministic;
    cudnnMathType_t math;
};

/** Transform algorithms (FFT, Winograd) round more coarsely than the sum itself: left out until measured. */
static bool is_direct(enum pass pass, int algorithm) {
    if (pass == PASS_BACKWARD_DATA)
        return algorithm == CUDNN_CONVOLUTION_BWD_DATA_ALGO_0 ||
               algorithm == CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
    if (pass == PASS_BACKWARD_WEIGHT)
        return algorithm == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0 ||
               algorithm == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1 ||
               algorithm == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3;
    return algorithm <= CUDNN_CONVOLUTION_FWD_ALGO_DIRECT;
}

static bool forward_candidates(struct convolution *c, cudnnHandle_t cudnn, struct candidate *out, int *count,
                               struct error *err) {
    cudnnConvolutionFwdAlgoPerf_t found[CANDIDATES];
    if (!cudnn_ok(cudnnGetConvolutionForwardAlgorithm_v7(cudnn, c->src, c->weight, c->descriptor, c->dst,
                                                         CANDIDATES, count, found),
                  "cudnnGetConvolutionForwardAlgorithm_v7", err))
        return false;
    for (int i = 0; i < *count; i++)
        out[i] = (struct candidate){(int)found[i].algo, found[i].status, found[i].memory,
                                    found[i].determinism == CUDNN_DETERMINISTIC, found[i].mathType};
    return true;
}

static bool data_candidates(struct convolution *c, cudnnHandle_t cudnn, struct candidate *out, int *count,
                            struct error *err) {
    cudnnConvolutionBwdDataAlgoPerf_t found[CANDIDATES];
    if (!cudnn_ok(cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnn, c->weight, c->dst, c->descriptor, c->src,
                                                              CANDIDATES, count, found),
                  "cudnnGetConvolutionBackwardDataAlgorithm_v7", err))
        return false;
    for (int i = 0; i < *count; i++)
        out[i] = (struct candidate){(int)found[i].algo, found[i].status, found[i].memory,
                                    found[i].determinism == CUDNN_DETERMINISTIC, found[i].mathType};
    return true;
}

static bool weight_candidates(struct convolution *c, cudnnHandle_t cudnn, struct candidate *out, int *count,
                              struct error *err) {
    cudnnConvolutionBwdFilterAlgoPerf_t found[CANDIDATES];
    if (!cudnn_ok(cudnnGetConvolutionBackwardFilterAlgorithm_v7(cudnn, c->src, c->dst, c->descriptor,
                                                                c->weight, CANDIDATES, count, found),
                  "cudnnGetConvolutionBackwardFilterAlgorithm_v7", err))
        return false;
    for (int i = 0; i < *count; i++)
        out[i] = (struct candidate){(int)found[i].algo, found[i].status, found[i].memory,
                                    found[i].determinism == CUDNN_DETERMINISTIC, found[i].mathType};
    return true;
}

/** The first, which cuDNN thinks the fastest, that may be used. */
static bool choose_algorithm(struct convolution *c, struct error *err) {
    static bool (*const list[PASS_COUNT])(struct convolution *, cudnnHandle_t, struct candidate *, int *,
                                          struct error *) = {forward_candidates, forward_candidates,
                                                             data_candidates, weight_candidates};
    const struct cuda_device *device = cuda_device_of(c->base.base.device);
    enum pass pass = c->base.base.pass;
    struct candidate candidates[CANDIDATES];
    int count = 0;
    if (!list[pass](c, device->cudnn, candidates, &count, err))
        return false;
    for (int i = 0; i < count; i++) {
        const struct candidate *row = &candidates[i];
        bool exact = row->math != CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION && row->math != CUDNN_TENSOR_OP_MATH;
        if (row->status != CUDNN_STATUS_SUCCESS || row->bytes > MOST_WORKSPACE_BYTES || !exact ||
            !is_direct(pass, row->algorithm) || (device->deterministic && !row->deterministic))
            continue;
        c->algorithm = row->algorithm;
        c->workspace_bytes = row->bytes;
        return true;
    }
    return error_set(err, ERROR_UNSUPPORTED, "cuDNN has no %salgorithm for this convolution's %s pass",
                     device->deterministic ? "deterministic " : "", pass_name(pass));
}

static bool prepare(struct cuda_kernel *kernel, struct error *err) {
    struct convolution *c = (struct convolution *)kernel;
    const struct tensor_desc *desc = kernel->base.args.desc;
    enum pass pass = kernel->base.pass;
    plan_padding(c, &desc[image_arg(pass)].shape);
    kernel->base.implementation = c->padded ? "cudnn, padded copy" : "cudnn";
    if (!describe_tensor(&c->src, &c->padded_shape, err) ||
        !describe_tensor(&c->dst, &desc[result_arg(pass)].shape, err) ||
        !describe_weight(c, &desc[weight_arg(pass)].shape, err) || !describe_convolution(c, err) ||
        !choose_algorithm(c, err))
        return false;
    cuda_set_private(kernel, ARG_SCRATCH, c->padded_bytes + c->workspace_bytes);
    return true;
}

static void release(struct cuda_kernel *kernel) {
    struct convolution *c = (struct convolution *)kernel;
    if (c->src)
        cudnnDestroyTensorDescriptor(c->src);
    if (c->dst)
        cudnnDestroyTensorDescriptor(c->dst);
    if (c->weight)
        cudnnDestroyFilterDescriptor(c->weight);
    if (c->descriptor)
        cudnnDestroyConvolutionDescriptor(c->descriptor);
}

/* --- running --- */

static const struct convolution *convolution_of(const struct cuda_call *call) {
    return (const struct convolution *)call->kernel;
}

static void *workspace_of(const struct cuda_call *call) {
    char *scratch = cuda_buffer(call, ARG_SCRATCH);
    return scratch ? scratch + convolution_of(call)->padded_bytes : NULL;
}

static bool use_stream(const struct cuda_call *call, struct error *err) {
    return cudnn_ok(cudnnSetStream(call->device->cudnn, call->stream), "cudnnSetStream", err);
}

/** Copies the image into the padded one (into = true), or back. */
static bool shift(const struct cuda_call *call, bool into, struct error *err) {
    const struct convolution *c = convolution_of(call);
    const struct window *w = &c->base.base.op.conv2d.window;
    const int64_t *image = cuda_dims(call, image_arg(c->base.base.pass)), *padded = c->padded_shape.dims;
    const int64_t *from = into ? image : padded, *to = into ? padded : image;
    void *outer = cuda_buffer(call, ARG_SCRATCH), *inner = cuda_buffer(call, image_arg(c->base.base.pass));
    struct shift_planes k = {.src = into ? inner : outer,
                             .dst = into ? outer : inner,
                             .src_size = {from[2], from[3]},
                             .dst_size = {to[2], to[3]},
                             .down = into ? w->pad_before[0] : -w->pad_before[0],
                             .right = into ? w->pad_before[1] : -w->pad_before[1]};
    return cuda_launched(call, launch_shift_planes(&k, to[0] * to[1] * to[2] * to[3], call->stream), err);
}

/** The image as cuDNN is to read it: where it is, or padded. NULL on error. */
static const void *read_image(const struct cuda_call *call, struct error *err) {
    if (!convolution_of(call)->padded)
        return cuda_buffer(call, ARG_SRC);
    return shift(call, true, err) ? cuda_buffer(call, ARG_SCRATCH) : NULL;
}

/** Where the result overlays the residual, cuDNN adds to what is there: behind it the residual would be gone.
 */
static bool residual_is_result(const struct cuda_call *call) {
    return cuda_buffer(call, ARG_SRC2) && cuda_buffer(call, ARG_SRC2) == cuda_buffer(call, ARG_DST);
}

static bool finish(const struct cuda_call *call, struct error *err) {
    const int64_t *dims = cuda_dims(call, ARG_DST);
    struct epilogue k = {.bias = cuda_buffer(call, ARG_BIAS),
                         .residual = residual_is_result(call) ? NULL : cuda_buffer(call, ARG_SRC2),
                         .dst = cuda_buffer(call, ARG_DST),
                         .channels = dims[1],
                         .plane = dims[2] * dims[3],
                         .activation = call->kernel->base.op.conv2d.activation};
    if (!k.bias && !k.residual && k.activation == ACTIVATION_NONE)
        return true;
    return cuda_launched(call, launch_epilogue(&k, cuda_count(call, ARG_DST), call->stream), err);
}

static bool forward(const struct cuda_call *call, struct error *err) {
    const struct convolution *c = convolution_of(call);
    const float one = 1, keep = residual_is_result(call) ? 1 : 0;
    const void *image = read_image(call, err);
    return image && use_stream(call, err) &&
           cudnn_ok(cudnnConvolutionForward(call->device->cudnn, &one, c->src, image, c->weight,
                                            cuda_buffer(call, ARG_WEIGHT), c->descriptor,
                                            (cudnnConvolutionFwdAlgo_t)c->algorithm, workspace_of(call),
                                            c->workspace_bytes, &keep, c->dst, cuda_buffer(call, ARG_DST)),
                    "cudnnConvolutionForward", err) &&
           finish(call, err);
}

static bool backward_data(const struct cuda_call *call, struct error *err) {
    const struct convolution *c = convolution_of(call);
    const float one = 1, zero = 0;
    void *image = cuda_buffer(call, c->padded ? ARG_SCRATCH : ARG_DIFF_SRC);
    return use_stream(call, err) &&
           cudnn_ok(cudnnConvolutionBackwardData(
                        call->device->cudnn, &one, c->weight, cuda_buffer(call, ARG_WEIGHT), c->dst,
                        cuda_buffer(call, ARG_DIFF_DST), c->descriptor,
                        (cudnnConvolutionBwdDataAlgo_t)c->algorithm, workspace_of(call), c->workspace_bytes,
                        &zero, c->src, image),
                    "cudnnConvolutionBackwardData", err) &&
           (!c->padded || shift(call, false, err));
}

static bool backward_bias(const struct cuda_call *call, struct error *err) {
    const int64_t *dims = cuda_dims(call, ARG_DIFF_DST);
    struct channel_sum k = {.src = cuda_buffer(call, ARG_DIFF_DST),
                            .sum = cuda_buffer(call, ARG_DIFF_BIAS),
                            .batch = dims[0],
                            .channels = dims[1],
                            .plane = dims[2] * dims[3]};
    return !k.sum || cuda_launched(call, launch_channel_sum(&k, k.channels, call->stream), err);
}

static bool backward_weight(const struct cuda_call *call, struct error *err) {
    const struct convolution *c = convolution_of(call);
    const float one = 1, zero = 0;
    const void *image = read_image(call, err);
    return image && use_stream(call, err) &&
           cudnn_ok(cudnnConvolutionBackwardFilter(
                        call->device->cudnn, &one, c->src, image, c->dst, cuda_buffer(call, ARG_DIFF_DST),
                        c->descriptor, (cudnnConvolutionBwdFilterAlgo_t)c->algorithm, workspace_of(call),
                        c->workspace_bytes, &zero, c->weight, cuda_buffer(call, ARG_DIFF_WEIGHT)),
                    "cudnnConvolutionBackwardFilter", err) &&
           backward_bias(call, err);
}

/** The legacy calls count in ints; so does the padded image, where there is one. */
static bool supports(const struct kernel_request *request) {
    const struct window *w = &request->op.conv2d.window;
    struct shape padded = request->args.desc[image_arg(request->pass)].shape;
    for (int axis = 0; axis < 2; axis++)
        padded.dims[2 + axis] += w->pad_before[axis] + w->pad_after[axis];
    for (enum arg arg = ARG_NONE + 1; arg < ARG_COUNT; arg++)
        if (shape_count(&request->args.desc[arg].shape) > INT_MAX)
            return false;
    return shape_count(&padded) <= INT_MAX;
}

const struct cuda_row cuda_conv2d = {
    .kernel_size = sizeof(struct convolution),
    .supports = supports,
    .prepare = prepare,
    .run = {[PASS_INFER] = forward,
            [PASS_FORWARD] = forward,
            [PASS_BACKWARD_DATA] = backward_data,
            [PASS_BACKWARD_WEIGHT] = backward_weight},
    .release = release,
};
