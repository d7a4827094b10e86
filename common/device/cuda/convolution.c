#include "common/device/cuda/convolution.h"

#include <limits.h>

/*
 * What cuDNN's fused call cannot do (a ReLU6, a residual without a bias, groups) follows in a kernel of ours. cuDNN pads alike
 * on both sides: where before and after differ, the image is copied into a padded one first (or the gradient cut out of one
 * last).
 */

enum { SCRATCH_ALIGNMENT = 256 };

static size_t rounded(size_t bytes) {
    return (bytes + SCRATCH_ALIGNMENT - 1) / SCRATCH_ALIGNMENT * SCRATCH_ALIGNMENT;
}

enum arg convolution_image(enum pass pass) {
    return pass == PASS_BACKWARD_DATA ? ARG_DIFF_SRC : ARG_SRC;
}

enum arg convolution_result(enum pass pass) {
    return pass == PASS_BACKWARD_DATA || pass == PASS_BACKWARD_WEIGHT ? ARG_DIFF_DST : ARG_DST;
}

enum arg convolution_weight(enum pass pass) {
    return pass == PASS_BACKWARD_WEIGHT ? ARG_DIFF_WEIGHT : ARG_WEIGHT;
}

/* --- descriptors --- */

static cudnnDataType_t type_of(enum dtype dtype) {
    return dtype == DTYPE_BF16 ? CUDNN_DATA_BFLOAT16 : dtype == DTYPE_F16 ? CUDNN_DATA_HALF : CUDNN_DATA_FLOAT;
}

static cudnnTensorFormat_t format_of(const struct convolution *c) {
    return c->base.last ? CUDNN_TENSOR_NHWC : CUDNN_TENSOR_NCHW;
}

static bool describe_tensor(const struct convolution *c, const struct shape *shape, cudnnTensorDescriptor_t *out,
                            struct error *err) {
    const int64_t *d = shape->dims;
    return cudnn_ok(cudnnCreateTensorDescriptor(out), "cudnnCreateTensorDescriptor", err) &&
           cudnn_ok(cudnnSetTensor4dDescriptor(*out, format_of(c), type_of(c->dtype), (int)d[0], (int)d[1], (int)d[2],
                                               (int)d[3]),
                    "cudnnSetTensor4dDescriptor", err);
}

static bool describe_weight(struct convolution *c, const struct shape *shape, struct error *err) {
    const int64_t *d = shape->dims;
    return cudnn_ok(cudnnCreateFilterDescriptor(&c->weight), "cudnnCreateFilterDescriptor", err) &&
           cudnn_ok(cudnnSetFilter4dDescriptor(c->weight, type_of(c->dtype), format_of(c), (int)d[0], (int)d[1], (int)d[2],
                                               (int)d[3]),
                    "cudnnSetFilter4dDescriptor", err);
}

/** Sums are in f32, whatever is multiplied. Narrow numbers go to the tensor cores, f32 ones only where TF32 may be. */
static bool describe_convolution(struct convolution *c, struct error *err) {
    const struct conv2d *conv = &c->base.base.op.conv2d;
    const struct window *w = &conv->window;
    bool exact = c->dtype == DTYPE_F32 && !cuda_device_of(c->base.base.device)->tf32;
    int down = c->padded ? 0 : w->pad_before[0], right = c->padded ? 0 : w->pad_before[1];
    return cudnn_ok(cudnnCreateConvolutionDescriptor(&c->descriptor), "cudnnCreateConvolutionDescriptor", err) &&
           cudnn_ok(cudnnSetConvolution2dDescriptor(c->descriptor, down, right, w->stride[0], w->stride[1], 1, 1,
                                                    CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT),
                    "cudnnSetConvolution2dDescriptor", err) &&
           cudnn_ok(cudnnSetConvolutionGroupCount(c->descriptor, conv->groups), "cudnnSetConvolutionGroupCount", err) &&
           cudnn_ok(cudnnSetConvolutionMathType(c->descriptor, exact ? CUDNN_FMA_MATH : CUDNN_TENSOR_OP_MATH),
                    "cudnnSetConvolutionMathType", err);
}

/** Bias and activation of the fused call, which takes a ReLU only in the form that makes 0 of a NaN. */
static bool describe_fused(struct convolution *c, struct error *err) {
    const struct conv2d *conv = &c->base.base.op.conv2d;
    struct shape bias = shape_of(4, (int64_t)1, conv->channels_out, (int64_t)1, (int64_t)1);
    cudnnActivationMode_t mode = conv->activation == ACTIVATION_RELU ? CUDNN_ACTIVATION_RELU : CUDNN_ACTIVATION_IDENTITY;
    return !c->fused ||
           (describe_tensor(c, &bias, &c->bias, err) &&
            cudnn_ok(cudnnCreateActivationDescriptor(&c->activation), "cudnnCreateActivationDescriptor", err) &&
            cudnn_ok(cudnnSetActivationDescriptor(c->activation, mode, CUDNN_NOT_PROPAGATE_NAN, 0),
                     "cudnnSetActivationDescriptor", err));
}

static void destroy_descriptors(struct convolution *c) {
    if (c->src)
        cudnnDestroyTensorDescriptor(c->src);
    if (c->dst)
        cudnnDestroyTensorDescriptor(c->dst);
    if (c->bias)
        cudnnDestroyTensorDescriptor(c->bias);
    if (c->weight)
        cudnnDestroyFilterDescriptor(c->weight);
    if (c->descriptor)
        cudnnDestroyConvolutionDescriptor(c->descriptor);
    if (c->activation)
        cudnnDestroyActivationDescriptor(c->activation);
    c->src = c->dst = c->bias = NULL;
    c->weight = NULL;
    c->descriptor = NULL;
    c->activation = NULL;
}

static void release(struct cuda_kernel *kernel) {
    destroy_descriptors((struct convolution *)kernel);
}

/* --- preparing --- */

/** Decides whether there is a padded image, and how large it is. */
static void plan_padding(struct convolution *c, const struct shape *image) {
    const struct window *w = &c->base.base.op.conv2d.window;
    c->padded = w->pad_before[0] != w->pad_after[0] || w->pad_before[1] != w->pad_after[1];
    c->padded_shape = *image;
    if (!c->padded)
        return;
    for (int axis = 0; axis < 2; axis++)
        c->padded_shape.dims[2 + axis] += w->pad_before[axis] + w->pad_after[axis];
    c->padded_bytes = rounded((size_t)shape_count(&c->padded_shape) * dtype_size(c->dtype));
}

/** Everything for one of the two orders. */
static bool prepare_as(struct convolution *c, bool last, struct error *err) {
    const struct tensor_desc *desc = c->base.base.args.desc;
    enum pass pass = c->base.base.pass;
    cuda_set_layouts(&c->base, last);
    return describe_tensor(c, &c->padded_shape, &c->src, err) &&
           describe_tensor(c, &desc[convolution_result(pass)].shape, &c->dst, err) &&
           describe_weight(c, &desc[convolution_weight(pass)].shape, err) && describe_convolution(c, err) &&
           convolution_choose(c, err) && describe_fused(c, err);
}

/** What is kept in the convolution's own dtype beside f32. */
static size_t copied_elements(const struct convolution *c) {
    const struct op_args *args = &c->base.base.args;
    if (c->dtype == DTYPE_F32)
        return 0;
    if (c->base.base.pass == PASS_BACKWARD_WEIGHT)
        return (size_t)shape_count(&args->desc[ARG_DIFF_WEIGHT].shape);
    return c->fused ? (size_t)shape_count(&args->desc[ARG_BIAS].shape) : 0;
}

static void plan_scratch(struct convolution *c) {
    const struct op_args *args = &c->base.base.args;
    c->copy_bytes = rounded(copied_elements(c) * dtype_size(c->dtype));
    if (args->direction[ARG_DIFF_BIAS] != ARG_ABSENT) {
        struct channels shape = cuda_channels_of(&args->desc[ARG_DIFF_DST].shape, c->base.last);
        struct sliced cut = cuda_sliced(&shape);
        c->sums_bytes = rounded(cuda_sums_bytes(&cut));
    }
    cuda_set_private(&c->base, ARG_SCRATCH, c->padded_bytes + c->copy_bytes + c->sums_bytes + c->workspace_bytes);
}

static const char *implementation_of(const struct convolution *c) {
    static const char *const names[2][2][2] = {
        {{"cudnn nchw", "cudnn nchw fused"}, {"cudnn nchw, padded copy", "cudnn nchw fused, padded copy"}},
        {{"cudnn nhwc", "cudnn nhwc fused"}, {"cudnn nhwc, padded copy", "cudnn nhwc fused, padded copy"}}};
    return names[c->base.last][c->padded][c->fused];
}

/** NHWC where the plan leaves the choice and cuDNN has an algorithm for it, else canonical. */
static bool prepare(struct cuda_kernel *kernel, const struct kernel_request *request, struct error *err) {
    struct convolution *c = (struct convolution *)kernel;
    bool last = cuda_request_may_be_last(request);
    struct error why = {0};
    c->dtype = request->args.desc[convolution_result(request->pass)].dtype;
    plan_padding(c, &request->args.desc[convolution_image(request->pass)].shape);
    bool ready = prepare_as(c, last, &why);
    if (!ready && last && why.code == ERROR_UNSUPPORTED) {
        destroy_descriptors(c);
        ready = prepare_as(c, false, &why);
    }
    if (!ready)
        return error_set(err, why.code, "%s", why.message);
    plan_scratch(c);
    kernel->base.implementation = implementation_of(c);
    return true;
}

/* --- running --- */

static const struct convolution *convolution_of(const struct cuda_call *call) {
    return (const struct convolution *)call->kernel;
}

static void *scratch_at(const struct cuda_call *call, size_t offset) {
    char *scratch = cuda_buffer(call, ARG_SCRATCH);
    return scratch ? scratch + offset : NULL;
}

static void *copy_of(const struct cuda_call *call) {
    return scratch_at(call, convolution_of(call)->padded_bytes);
}

static void *sums_of(const struct cuda_call *call) {
    const struct convolution *c = convolution_of(call);
    return scratch_at(call, c->padded_bytes + c->copy_bytes);
}

static void *workspace_of(const struct cuda_call *call) {
    const struct convolution *c = convolution_of(call);
    return scratch_at(call, c->padded_bytes + c->copy_bytes + c->sums_bytes);
}

static bool use_stream(const struct cuda_call *call, struct error *err) {
    return cudnn_ok(cudnnSetStream(call->device->cudnn, call->stream), "cudnnSetStream", err);
}

static bool cast(const struct cuda_call *call, const void *from, enum dtype from_dtype, void *to, enum dtype to_dtype,
                 int64_t count, struct error *err) {
    struct cast k = {.src = from, .dst = to, .from = from_dtype, .to = to_dtype, .width = cuda_width(count)};
    return cuda_launched(call, launch_cast(&k, count / k.width, call->stream), err);
}

/** Copies the image into the padded one (into = true), or back. */
static bool shift(const struct cuda_call *call, bool into, struct error *err) {
    const struct convolution *c = convolution_of(call);
    const struct window *w = &c->base.base.op.conv2d.window;
    enum arg arg = convolution_image(c->base.base.pass);
    struct images image = cuda_images(call, arg), padded = cuda_images_of(&c->padded_shape, c->base.last);
    void *outer = cuda_buffer(call, ARG_SCRATCH), *inner = cuda_buffer(call, arg);
    struct shift_planes k = {.src = into ? inner : outer,
                             .dst = into ? outer : inner,
                             .from = into ? image : padded,
                             .to = into ? padded : image,
                             .down = into ? w->pad_before[0] : -w->pad_before[0],
                             .right = into ? w->pad_before[1] : -w->pad_before[1],
                             .dtype = c->dtype};
    return cuda_launched(
        call, launch_shift_planes(&k, into ? shape_count(&c->padded_shape) : cuda_count(call, arg), call->stream), err);
}

/** The image as cuDNN is to read it: where it is, or padded. NULL on error. */
static const void *read_image(const struct cuda_call *call, struct error *err) {
    if (!convolution_of(call)->padded)
        return cuda_buffer(call, ARG_SRC);
    return shift(call, true, err) ? cuda_buffer(call, ARG_SCRATCH) : NULL;
}

/** Where the result overlays the residual, cuDNN adds to what is there: behind it the residual would be gone. */
static bool residual_is_result(const struct cuda_call *call) {
    return cuda_buffer(call, ARG_SRC2) && cuda_buffer(call, ARG_SRC2) == cuda_buffer(call, ARG_DST);
}

static bool finish(const struct cuda_call *call, struct error *err) {
    struct epilogue k = {.bias = cuda_buffer(call, ARG_BIAS),
                         .residual = residual_is_result(call) ? NULL : cuda_buffer(call, ARG_SRC2),
                         .dst = cuda_buffer(call, ARG_DST),
                         .shape = cuda_channels(call, ARG_DST),
                         .dtype = convolution_of(call)->dtype,
                         .activation = call->kernel->base.op.conv2d.activation};
    k.width = cuda_channel_width(&k.shape);
    if (!k.bias && !k.residual && k.activation == ACTIVATION_NONE)
        return true;
    return cuda_launched(call, launch_epilogue(&k, cuda_count(call, ARG_DST) / k.width, call->stream), err);
}

static bool forward_in_parts(const struct cuda_call *call, const void *image, struct error *err) {
    const struct convolution *c = convolution_of(call);
    const float one = 1, keep = residual_is_result(call) ? 1 : 0;
    return cudnn_ok(cudnnConvolutionForward(call->device->cudnn, &one, c->src, image, c->weight, cuda_buffer(call, ARG_WEIGHT),
                                            c->descriptor, (cudnnConvolutionFwdAlgo_t)c->algorithm, workspace_of(call),
                                            c->workspace_bytes, &keep, c->dst, cuda_buffer(call, ARG_DST)),
                    "cudnnConvolutionForward", err) &&
           finish(call, err);
}

/** The bias in the convolution's dtype, which is what cuDNN takes. NULL on error. */
static const void *read_bias(const struct cuda_call *call, struct error *err) {
    const struct convolution *c = convolution_of(call);
    const void *bias = cuda_buffer(call, ARG_BIAS);
    if (c->dtype == DTYPE_F32)
        return bias;
    return cast(call, bias, DTYPE_F32, copy_of(call), c->dtype, cuda_count(call, ARG_BIAS), err) ? copy_of(call) : NULL;
}

/** Without a residual z is not read, but has to be described. What cuDNN refuses after all is done in parts. */
static bool forward_fused(const struct cuda_call *call, const void *image, struct error *err) {
    const struct convolution *c = convolution_of(call);
    const float one = 1, keep = cuda_buffer(call, ARG_SRC2) ? 1 : 0;
    void *dst = cuda_buffer(call, ARG_DST);
    const void *bias = read_bias(call, err), *z = keep != 0 ? cuda_buffer(call, ARG_SRC2) : dst;
    if (!bias)
        return false;
    cudnnStatus_t result = cudnnConvolutionBiasActivationForward(
        call->device->cudnn, &one, c->src, image, c->weight, cuda_buffer(call, ARG_WEIGHT), c->descriptor,
        (cudnnConvolutionFwdAlgo_t)c->algorithm, workspace_of(call), c->workspace_bytes, &keep, c->dst, z, c->bias, bias,
        c->activation, c->dst, dst);
    if (result / 1000 == CUDNN_STATUS_NOT_SUPPORTED / 1000)
        return forward_in_parts(call, image, err);
    return cudnn_ok(result, "cudnnConvolutionBiasActivationForward", err);
}

static bool forward(const struct cuda_call *call, struct error *err) {
    const void *image = read_image(call, err);
    if (!image || !use_stream(call, err))
        return false;
    return convolution_of(call)->fused ? forward_fused(call, image, err) : forward_in_parts(call, image, err);
}

static bool backward_data(const struct cuda_call *call, struct error *err) {
    const struct convolution *c = convolution_of(call);
    const float one = 1, zero = 0;
    void *image = cuda_buffer(call, c->padded ? ARG_SCRATCH : ARG_DIFF_SRC);
    return use_stream(call, err) &&
           cudnn_ok(cudnnConvolutionBackwardData(call->device->cudnn, &one, c->weight, cuda_buffer(call, ARG_WEIGHT), c->dst,
                                                 cuda_buffer(call, ARG_DIFF_DST), c->descriptor,
                                                 (cudnnConvolutionBwdDataAlgo_t)c->algorithm, workspace_of(call),
                                                 c->workspace_bytes, &zero, c->src, image),
                    "cudnnConvolutionBackwardData", err) &&
           (!c->padded || shift(call, false, err));
}

static bool backward_bias(const struct cuda_call *call, struct error *err) {
    struct channels shape = cuda_channels(call, ARG_DIFF_DST);
    float *sum = cuda_buffer(call, ARG_DIFF_BIAS);
    return !sum || cuda_channel_sum(call, &shape, convolution_of(call)->dtype, cuda_buffer(call, ARG_DIFF_DST), sums_of(call),
                                    sum, err);
}

/** cuDNN gives gradients of weights in the dtype of what it multiplies; the optimiser wants f32. */
static bool backward_weight(const struct cuda_call *call, struct error *err) {
    const struct convolution *c = convolution_of(call);
    const float one = 1, zero = 0;
    const void *image = read_image(call, err);
    void *gradient = cuda_buffer(call, ARG_DIFF_WEIGHT), *result = c->dtype == DTYPE_F32 ? gradient : copy_of(call);
    return image && use_stream(call, err) &&
           cudnn_ok(cudnnConvolutionBackwardFilter(call->device->cudnn, &one, c->src, image, c->dst,
                                                   cuda_buffer(call, ARG_DIFF_DST), c->descriptor,
                                                   (cudnnConvolutionBwdFilterAlgo_t)c->algorithm, workspace_of(call),
                                                   c->workspace_bytes, &zero, c->weight, result),
                    "cudnnConvolutionBackwardFilter", err) &&
           (result == gradient ||
            cast(call, result, c->dtype, gradient, DTYPE_F32, cuda_count(call, ARG_DIFF_WEIGHT), err)) &&
           backward_bias(call, err);
}

/** The legacy calls count in ints; so does the padded image, where there is one. */
static bool supports(const struct kernel_request *request) {
    const struct window *w = &request->op.conv2d.window;
    struct shape padded = request->args.desc[convolution_image(request->pass)].shape;
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
