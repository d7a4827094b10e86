#pragma once
#include "common/device/cuda/kernels_input_body.h"
#include "common/device/cuda/kernels_int8_body.h"
#include "common/device/cuda/kernels_training_body.h"

#include <cuda_runtime_api.h>

/** Every kernel of ours, once: their bodies are in kernels_body.h and its siblings. */
#define CUDA_KERNELS(X)                                                                                                      \
    X(pointwise)                                                                                                             \
    X(gate)                                                                                                                  \
    X(drop)                                                                                                                  \
    X(cast)                                                                                                                  \
    X(permute)                                                                                                               \
    X(shift_planes)                                                                                                          \
    X(epilogue)                                                                                                              \
    X(max_pool)                                                                                                              \
    X(max_pool_gradient)                                                                                                     \
    X(plane_average)                                                                                                         \
    X(plane_spread)                                                                                                          \
    X(fold_pairs)                                                                                                            \
    X(channel_moments)                                                                                                       \
    X(finish_channel_sum)                                                                                                    \
    X(publish_sums)                                                                                                          \
    X(norm_terms)                                                                                                            \
    X(finish_moments)                                                                                                        \
    X(normalise)                                                                                                             \
    X(norm_gradient_sums)                                                                                                    \
    X(finish_norm_gradient)                                                                                                  \
    X(total_norm_gradient)                                                                                                   \
    X(norm_gradient)                                                                                                         \
    X(softmax_loss)                                                                                                          \
    X(finish_loss)                                                                                                           \
    X(softmax_gradient)                                                                                                      \
    X(sum_squares)                                                                                                           \
    X(patches)                                                                                                               \
    X(pack_weight)                                                                                                           \
    X(sum_weight)                                                                                                            \
    X(requantise)                                                                                                            \
    X(group_convolution)                                                                                                     \
    X(int8_max_pool)                                                                                                         \
    X(int8_average)                                                                                                          \
    X(int8_rescale)                                                                                                          \
    X(vary_warp)                                                                                                             \
    X(vary_blur)                                                                                                             \
    X(vary_finish)                                                                                                           \
    X(sgd)                                                                                                                   \
    X(adamw)

/**
 * launch_NAME(arguments, count, stream): queues NAME for the elements 0 .. count - 1; nothing where count is
 * 0. The arguments are copied before it returns. On the GPU its name is NAME_kernel.
 */
#ifdef __cplusplus
extern "C" {
#endif
#define CUDA_DECLARE_LAUNCH(name)                                                                            \
    cudaError_t launch_##name(const struct name *arguments, int64_t count, cudaStream_t stream);
CUDA_KERNELS(CUDA_DECLARE_LAUNCH)
#ifdef __cplusplus
}
#endif
