// The bodies are plain C for the host's compilers; here "inline" makes them the device's, and inlined in fact, so that widths are
// constants. Their own includes come first, so that no other header is read with the word changed.
#include "common/op/op.h"
#include <math.h>
#include <stdint.h>
#include <string.h>
#define rounded_product __fmul_rn // a plain product and the sum behind it become one rounding
#define rounded_double_product __dmul_rn
#define inline __device__ __forceinline__
#include "common/device/cuda/kernels_input_body.h"
#include "common/device/cuda/kernels_int8_body.h"
#include "common/device/cuda/kernels_training_body.h"
#undef inline
#include "common/device/cuda/kernels.h"

// A thread takes every (grid)th element, so that any count fits into a grid of bounded size.
#define CUDA_DEFINE_KERNEL(name)                                                                             \
    extern "C" __global__ void name##_kernel(const struct name arguments, int64_t count) {                   \
        int64_t threads = (int64_t)gridDim.x * blockDim.x;                                                   \
        for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += threads)            \
            name##_element(&arguments, i);                                                                   \
    }                                                                                                        \
    extern "C" cudaError_t launch_##name(const struct name *arguments, int64_t count, cudaStream_t stream) { \
        if (count <= 0)                                                                                      \
            return cudaSuccess;                                                                              \
        cudaGetLastError(); /* what an earlier call left is not this launch's */                             \
        name##_kernel<<<grid_for(count), BLOCK_THREADS, 0, stream>>>(*arguments, count);                     \
        return cudaGetLastError();                                                                           \
    }

static const int BLOCK_THREADS = 256;
static const int64_t MOST_BLOCKS = 1 << 20;

static unsigned grid_for(int64_t count) {
    int64_t blocks = (count + BLOCK_THREADS - 1) / BLOCK_THREADS;
    return (unsigned)(blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS);
}

CUDA_KERNELS(CUDA_DEFINE_KERNEL)
