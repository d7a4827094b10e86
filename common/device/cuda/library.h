#pragma once
#include "common/base/error.h"

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

/**
 * What the libraries report, as our errors: true for success, else err says what failed ("cudaMalloc: out of
 * memory (cudaErrorMemoryAllocation)"). Memory that is missing is ERROR_MEMORY, no usable GPU
 * ERROR_UNSUPPORTED, what a library cannot do ERROR_UNSUPPORTED, the rest ERROR_INTERNAL. Any thread.
 */
bool cuda_ok(cudaError_t result, const char *what, struct error *err);
bool cudnn_ok(cudnnStatus_t result, const char *what, struct error *err);
bool cublas_ok(cublasStatus_t result, const char *what, struct error *err);

/** True where the error leaves the process without a usable GPU context: only a fresh process helps. */
bool cuda_error_is_final(cudaError_t result);
