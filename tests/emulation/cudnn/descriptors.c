#include "tests/emulation/cudnn/internal.h"

#include <stdio.h>
#include <stdlib.h>

static const char HANDLE[] = "cudnnHandle_t", TENSOR[] = "cudnnTensorDescriptor_t", FILTER[] = "cudnnFilterDescriptor_t",
                  CONVOLUTION[] = "cudnnConvolutionDescriptor_t", ACTIVATION[] = "cudnnActivationDescriptor_t";

/* --- what all handles share --- */

static void *create(const char *kind, size_t bytes) {
    void *made = calloc(1, bytes);
    emulation_note(EMULATION_HANDLE, kind);
    if (made)
        emulation_handle_add(kind, made);
    return made;
}

static cudnnStatus_t created(const void *made) {
    return made ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
}

static cudnnStatus_t destroy(const char *kind, void *handle, const char *who) {
    return emulation_handle_remove(kind, handle, who) ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM;
}

static bool is_set(bool set, const char *kind, const char *who) {
    if (!set)
        emulation_finding("%s: a %s that was never set", who, kind);
    return set;
}

static cudnnStatus_t set(bool right, const char *who) {
    if (right)
        return CUDNN_STATUS_SUCCESS;
    emulation_finding("%s: sizes, types or modes that cuDNN does not take", who);
    return CUDNN_STATUS_BAD_PARAM;
}

/* --- the library's handle --- */

size_t cudnnGetVersion(void) {
    return CUDNN_VERSION;
}

size_t cudnnGetCudartVersion(void) {
    return CUDART_VERSION;
}

const char *cudnnGetErrorString(cudnnStatus_t status) {
    static _Thread_local char text[64];
    if (status == CUDNN_STATUS_SUCCESS)
        return "CUDNN_STATUS_SUCCESS";
    const char *category = status / 1000 == CUDNN_STATUS_BAD_PARAM / 1000       ? "CUDNN_STATUS_BAD_PARAM"
                           : status / 1000 == CUDNN_STATUS_NOT_SUPPORTED / 1000 ? "CUDNN_STATUS_NOT_SUPPORTED"
                                                                                : "CUDNN_STATUS_EXECUTION_FAILED";
    snprintf(text, sizeof text, "%s (%d)", category, (int)status);
    return text;
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *out) {
    int device = 0;
    if (cudaGetDevice(&device) != cudaSuccess)
        return CUDNN_STATUS_NOT_INITIALIZED;
    if ((*out = create(HANDLE, sizeof **out)))
        (*out)->device = device;
    return created(*out);
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
    return destroy(HANDLE, handle, "cudnnDestroy");
}

bool handle_check(cudnnHandle_t handle, const char *who) {
    int current = 0;
    if (!emulation_handle_check(HANDLE, handle, who) || cudaGetDevice(&current) != cudaSuccess)
        return false;
    if (current == handle->device)
        return true;
    emulation_finding("%s: a handle of device %d while device %d is current", who, handle->device, current);
    return false;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
    if (!handle_check(handle, "cudnnSetStream") || emulation_stream_device(stream, "cudnnSetStream") != handle->device)
        return CUDNN_STATUS_BAD_PARAM_STREAM_MISMATCH;
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t *out) {
    bool right = handle_check(handle, "cudnnGetStream");
    *out = right ? handle->stream : NULL;
    return right ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM;
}

/* --- views --- */

enum dtype dtype_of(cudnnDataType_t type) {
    switch (type) {
    case CUDNN_DATA_FLOAT:
        return DTYPE_F32;
    case CUDNN_DATA_HALF:
        return DTYPE_F16;
    case CUDNN_DATA_BFLOAT16:
        return DTYPE_BF16;
    default:
        return DTYPE_NONE;
    }
}

int64_t view_count(const struct view4 *view) {
    return (int64_t)view->dims[0] * view->dims[1] * view->dims[2] * view->dims[3];
}

struct emulation_range view_range(const struct view4 *view, const void *memory, bool written) {
    int64_t last = 0;
    for (int i = 0; i < 4; i++)
        last += (int64_t)(view->dims[i] - 1) * view->strides[i];
    return (struct emulation_range){memory, (size_t)(last + 1) * dtype_size(view->dtype), written};
}

static void pack(struct view4 *view, bool nhwc) {
    static const int orders[2][4] = {{3, 2, 1, 0}, {1, 3, 2, 0}}; /* innermost first */
    int stride = 1;
    for (int i = 0; i < 4; i++) {
        int axis = orders[nhwc][i];
        view->strides[axis] = stride;
        stride *= view->dims[axis];
    }
}

static bool is_packed(const struct view4 *view, bool nhwc) {
    struct view4 packed = *view;
    pack(&packed, nhwc);
    for (int i = 0; i < 4; i++)
        if (view->dims[i] > 1 && view->strides[i] != packed.strides[i])
            return false;
    return true;
}

bool view_is_nhwc(const struct view4 *view) {
    return is_packed(view, true);
}

bool view_is_nchw(const struct view4 *view) {
    return is_packed(view, false);
}

static bool view_is_right(const struct view4 *view) {
    int64_t count = 1;
    for (int i = 0; i < 4; i++) {
        count *= view->dims[i];
        if (view->dims[i] <= 0 || view->strides[i] <= 0 || count > INT32_MAX)
            return false;
    }
    return true;
}

static struct view4 packed_view(cudnnDataType_t type, bool nhwc, int a, int b, int c, int d) {
    struct view4 view = {.dtype = dtype_of(type), .type = type, .dims = {a, b, c, d}};
    pack(&view, nhwc);
    return view;
}

/* --- tensors --- */

cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t *out) {
    *out = create(TENSOR, sizeof **out);
    return created(*out);
}

cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t tensor) {
    return destroy(TENSOR, tensor, "cudnnDestroyTensorDescriptor");
}

bool tensor_check(cudnnTensorDescriptor_t tensor, const char *who) {
    return emulation_handle_check(TENSOR, tensor, who) && is_set(tensor->set, TENSOR, who);
}

static cudnnStatus_t set_tensor(cudnnTensorDescriptor_t tensor, struct view4 view, bool format_is_known, const char *who) {
    bool live = emulation_handle_check(TENSOR, tensor, who);
    cudnnStatus_t status = live ? set(view_is_right(&view) && format_is_known, who) : CUDNN_STATUS_BAD_PARAM;
    if (status == CUDNN_STATUS_SUCCESS)
        *tensor = (struct cudnnTensorStruct){true, view};
    return status;
}

cudnnStatus_t cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t tensor, cudnnTensorFormat_t format, cudnnDataType_t type,
                                         int n, int c, int h, int w) {
    return set_tensor(tensor, packed_view(type, format == CUDNN_TENSOR_NHWC, n, c, h, w), format <= CUDNN_TENSOR_NHWC,
                      "cudnnSetTensor4dDescriptor");
}

cudnnStatus_t cudnnSetTensor4dDescriptorEx(cudnnTensorDescriptor_t tensor, cudnnDataType_t type, int n, int c, int h, int w,
                                           int n_stride, int c_stride, int h_stride, int w_stride) {
    struct view4 view = {
        .dtype = dtype_of(type), .type = type, .dims = {n, c, h, w}, .strides = {n_stride, c_stride, h_stride, w_stride}};
    return set_tensor(tensor, view, true, "cudnnSetTensor4dDescriptorEx");
}

/* --- filters --- */

cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t *out) {
    *out = create(FILTER, sizeof **out);
    return created(*out);
}

cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t filter) {
    return destroy(FILTER, filter, "cudnnDestroyFilterDescriptor");
}

bool filter_check(cudnnFilterDescriptor_t filter, const char *who) {
    return emulation_handle_check(FILTER, filter, who) && is_set(filter->set, FILTER, who);
}

cudnnStatus_t cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t filter, cudnnDataType_t type, cudnnTensorFormat_t format,
                                         int k, int c, int h, int w) {
    static const char who[] = "cudnnSetFilter4dDescriptor";
    struct view4 view = packed_view(type, format == CUDNN_TENSOR_NHWC, k, c, h, w);
    if (!emulation_handle_check(FILTER, filter, who))
        return CUDNN_STATUS_BAD_PARAM;
    cudnnStatus_t status = set(view_is_right(&view) && format <= CUDNN_TENSOR_NHWC, who);
    if (status == CUDNN_STATUS_SUCCESS)
        *filter = (struct cudnnFilterStruct){true, view};
    return status;
}

/* --- convolutions --- */

cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t *out) {
    *out = create(CONVOLUTION, sizeof **out);
    return created(*out);
}

cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t convolution) {
    return destroy(CONVOLUTION, convolution, "cudnnDestroyConvolutionDescriptor");
}

bool convolution_check(cudnnConvolutionDescriptor_t convolution, const char *who) {
    return emulation_handle_check(CONVOLUTION, convolution, who) && is_set(convolution->set, CONVOLUTION, who);
}

cudnnStatus_t cudnnSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t convolution, int pad_h, int pad_w, int stride_h,
                                              int stride_w, int dilation_h, int dilation_w, cudnnConvolutionMode_t mode,
                                              cudnnDataType_t compute) {
    static const char who[] = "cudnnSetConvolution2dDescriptor";
    bool right = pad_h >= 0 && pad_w >= 0 && stride_h > 0 && stride_w > 0 && dilation_h > 0 && dilation_w > 0 &&
                 mode == CUDNN_CROSS_CORRELATION && compute == CUDNN_DATA_FLOAT;
    if (!emulation_handle_check(CONVOLUTION, convolution, who))
        return CUDNN_STATUS_BAD_PARAM;
    cudnnStatus_t status = set(right, who);
    if (status == CUDNN_STATUS_SUCCESS)
        *convolution = (struct cudnnConvolutionStruct){.set = true,
                                                       .pad = {pad_h, pad_w},
                                                       .stride = {stride_h, stride_w},
                                                       .dilation = {dilation_h, dilation_w},
                                                       .groups = 1,
                                                       .compute = compute,
                                                       .math = CUDNN_DEFAULT_MATH};
    return status;
}

cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t convolution, int groups) {
    static const char who[] = "cudnnSetConvolutionGroupCount";
    if (!convolution_check(convolution, who))
        return CUDNN_STATUS_BAD_PARAM;
    cudnnStatus_t status = set(groups > 0, who);
    convolution->groups = status == CUDNN_STATUS_SUCCESS ? groups : convolution->groups;
    return status;
}

cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t convolution, cudnnMathType_t math) {
    static const char who[] = "cudnnSetConvolutionMathType";
    if (!convolution_check(convolution, who))
        return CUDNN_STATUS_BAD_PARAM;
    cudnnStatus_t status = set(math >= CUDNN_DEFAULT_MATH && math <= CUDNN_FMA_MATH, who);
    convolution->math = status == CUDNN_STATUS_SUCCESS ? math : convolution->math;
    return status;
}

/* --- activations --- */

cudnnStatus_t cudnnCreateActivationDescriptor(cudnnActivationDescriptor_t *out) {
    *out = create(ACTIVATION, sizeof **out);
    return created(*out);
}

cudnnStatus_t cudnnDestroyActivationDescriptor(cudnnActivationDescriptor_t activation) {
    return destroy(ACTIVATION, activation, "cudnnDestroyActivationDescriptor");
}

bool activation_check(cudnnActivationDescriptor_t activation, const char *who) {
    return emulation_handle_check(ACTIVATION, activation, who) && is_set(activation->set, ACTIVATION, who);
}

cudnnStatus_t cudnnSetActivationDescriptor(cudnnActivationDescriptor_t activation, cudnnActivationMode_t mode,
                                           cudnnNanPropagation_t nan, double coefficient) {
    if (!emulation_handle_check(ACTIVATION, activation, "cudnnSetActivationDescriptor"))
        return CUDNN_STATUS_BAD_PARAM;
    *activation = (struct cudnnActivationStruct){true, mode, nan, coefficient};
    return CUDNN_STATUS_SUCCESS;
}
