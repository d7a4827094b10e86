#pragma once
#include "common/device/cuda/internal.h"

/**
 * A convolution by cuDNN's legacy calls, all of one dtype, NCHW or NHWC. Scratch, in this order, each part that there is: the
 * padded image, a copy in the convolution's dtype (of the bias, or of the gradient of the weights), the sums of a bias's
 * gradient, cuDNN's workspace.
 */
struct convolution {
    struct cuda_kernel base;
    cudnnTensorDescriptor_t src, dst, bias;
    cudnnFilterDescriptor_t weight;
    cudnnConvolutionDescriptor_t descriptor;
    cudnnActivationDescriptor_t activation;
    enum dtype dtype;
    int algorithm; /**< of the pass's own enumeration */
    bool fused;    /**< bias, residual and activation are cuDNN's too */
    bool padded;   /**< src or diff_src goes by way of the scratch */
    struct shape padded_shape;
    size_t padded_bytes, copy_bytes, sums_bytes, workspace_bytes; /**< of the scratch's parts */
};

/** The roles that the image, the result and the weights play in a pass. */
enum arg convolution_image(enum pass pass);
enum arg convolution_result(enum pass pass);
enum arg convolution_weight(enum pass pass);

/** Chooses algorithm, fused and workspace_bytes; the descriptors are set, and get the algorithm's math type. */
bool convolution_choose(struct convolution *c, struct error *err);
