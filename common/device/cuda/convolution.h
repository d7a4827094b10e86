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

/** An algorithm that cuDNN offers, for any of the passes. */
struct candidate {
    int algorithm;
    cudnnStatus_t status;
    size_t bytes; /**< of workspace */
    bool deterministic;
    cudnnMathType_t math;
};
enum { CONVOLUTION_CANDIDATES = 16 };

/** From cuDNN's three kinds of results, which differ in the enumeration alone. */
#define CONVOLUTION_COPY_CANDIDATES(found, count, out)                                                                       \
    for (int i = 0; i < (count); i++)                                                                                        \
    (out)[i] = (struct candidate){(int)(found)[i].algo, (found)[i].status, (found)[i].memory,                                \
                                  (found)[i].determinism == CUDNN_DETERMINISTIC, (found)[i].mathType}

/** Keeps those that may be used here, in their order, and returns how many. */
int convolution_usable(const struct convolution *c, struct candidate *rows, int count);
/** Which of the usable ones is the fastest: as the device's cache says, or measured; 0 where that is not possible. */
int convolution_search(struct convolution *c, const struct candidate *rows, int count);

/** Chooses algorithm, fused and workspace_bytes; the descriptors are set, and get the algorithm's math type. */
bool convolution_choose(struct convolution *c, struct error *err);
