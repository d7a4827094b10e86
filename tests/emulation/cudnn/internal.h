#pragma once
#include "common/tensor/dtype.h"
#include "tests/emulation/emulation.h"

#include <cudnn.h>

/** Inside the emulated cuDNN. The memory of destroyed handles and descriptors stays: no later one may look like them. */

struct cudnnContext {
    int device;
    cudaStream_t stream;
};

/** Four dimensions, in the order of their meaning (n, c, h, w or k, c, r, s), with elements from one to the next along each.
 */
struct view4 {
    enum dtype dtype;
    cudnnDataType_t type;
    int dims[4], strides[4];
};

struct cudnnTensorStruct {
    bool set;
    struct view4 view;
};

struct cudnnFilterStruct {
    bool set;
    struct view4 view;
};

struct cudnnConvolutionStruct {
    bool set;
    int pad[2], stride[2], dilation[2], groups;
    cudnnDataType_t compute;
    cudnnMathType_t math;
};

struct cudnnActivationStruct {
    bool set;
    cudnnActivationMode_t mode;
    cudnnNanPropagation_t nan;
    double coefficient;
};

/** Whether the handle is one, and of the current device; else a finding. */
bool handle_check(cudnnHandle_t handle, const char *who);
/** Whether a descriptor is live and set; else a finding. */
bool tensor_check(cudnnTensorDescriptor_t tensor, const char *who);
bool filter_check(cudnnFilterDescriptor_t filter, const char *who);
bool convolution_check(cudnnConvolutionDescriptor_t convolution, const char *who);
bool activation_check(cudnnActivationDescriptor_t activation, const char *who);

/** DTYPE_NONE: not emulated. */
enum dtype dtype_of(cudnnDataType_t type);
int64_t view_count(const struct view4 *view);
/** From the first to behind the last element. */
struct emulation_range view_range(const struct view4 *view, const void *memory, bool written);
/** Packed, channels last; a view that is both (one channel, or one pixel) is called channels last by neither. */
bool view_is_nhwc(const struct view4 *view);
bool view_is_nchw(const struct view4 *view);

/* --- a convolution, its sizes agreed --- */

enum direction { DIRECTION_FORWARD, DIRECTION_DATA, DIRECTION_FILTER, DIRECTION_COUNT };

struct sizes {
    int batch, channels, outputs, groups;
    int kernel[2], in[2], out[2], pad[2], stride[2], dilation[2];
};

/** A convolution between an image x, weights w and a result y (or their gradients). */
struct problem {
    enum direction direction;
    struct sizes sizes;
    struct view4 x, w, y;
    cudnnMathType_t math;
};

/**
 * From checked descriptors. CUDNN_STATUS_BAD_PARAM... and a finding where they contradict each other;
 * CUDNN_STATUS_NOT_SUPPORTED... where cuDNN has no such combination of types and layouts.
 */
cudnnStatus_t problem_make(struct problem *out, enum direction direction, cudnnTensorDescriptor_t x,
                           cudnnFilterDescriptor_t w, cudnnConvolutionDescriptor_t convolution, cudnnTensorDescriptor_t y,
                           const char *who);

struct algorithm {
    int number; /**< in the enumeration of its direction */
    bool deterministic;
    bool nhwc;
    bool (*fits)(const struct sizes *sizes); /**< NULL: all */
    size_t (*workspace)(const struct sizes *sizes);
};

/** The i-th of a direction, fastest first, or NULL. */
const struct algorithm *algorithm_at(enum direction direction, int i);
bool algorithm_fits(const struct algorithm *algorithm, const struct problem *problem);

/* --- loops over dense f32 in NCHW and KCRS; each writes all of its result --- */

void loop_forward(const struct sizes *s, const float *x, const float *w, float *y);
void loop_data(const struct sizes *s, const float *w, const float *dy, float *dx);
void loop_filter(const struct sizes *s, const float *x, const float *dy, float *dw);

/** The same as matrix products; the results of the last two are added to what is there. */
void product_forward(const struct sizes *s, const float *x, const float *w, float *y);
void product_data(const struct sizes *s, const float *w, const float *dy, float *dx);
void product_filter(const struct sizes *s, const float *x, const float *dy, float *dw);
