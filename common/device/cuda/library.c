#include "common/device/cuda/library.h"

#include <stddef.h>

static enum error_code code_of_cuda(cudaError_t result) {
    switch (result) {
    case cudaErrorMemoryAllocation:
        return ERROR_MEMORY;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorNoKernelImageForDevice:
        return ERROR_UNSUPPORTED;
    default:
        return ERROR_INTERNAL;
    }
}

bool cuda_ok(cudaError_t result, const char *what, struct error *err) {
    return result == cudaSuccess || error_set(err, code_of_cuda(result), "%s: %s (%s)", what,
                                              cudaGetErrorString(result), cudaGetErrorName(result));
}

bool cudnn_ok(cudnnStatus_t result, const char *what, struct error *err) {
    if (result == CUDNN_STATUS_SUCCESS)
        return true;
    enum error_code code = result / 1000 == CUDNN_STATUS_NOT_SUPPORTED / 1000 ? ERROR_UNSUPPORTED
                           : result == CUDNN_STATUS_ALLOC_FAILED              ? ERROR_MEMORY
                                                                              : ERROR_INTERNAL;
    return error_set(err, code, "%s: %s", what, cudnnGetErrorString(result));
}

bool cublas_ok(cublasStatus_t result, const char *what, struct error *err) {
    if (result == CUBLAS_STATUS_SUCCESS)
        return true;
    enum error_code code = result == CUBLAS_STATUS_NOT_SUPPORTED  ? ERROR_UNSUPPORTED
                           : result == CUBLAS_STATUS_ALLOC_FAILED ? ERROR_MEMORY
                                                                  : ERROR_INTERNAL;
    return error_set(err, code, "%s: %s", what, cublasGetStatusString(result));
}

bool cuda_error_is_final(cudaError_t result) {
    static const cudaError_t final[] = {
        cudaErrorIllegalAddress,
        cudaErrorLaunchFailure,
        cudaErrorLaunchTimeout,
        cudaErrorHardwareStackError,
        cudaErrorIllegalInstruction,
        cudaErrorMisalignedAddress,
        cudaErrorInvalidAddressSpace,
        cudaErrorInvalidPc,
        cudaErrorAssert,
        cudaErrorECCUncorrectable,
        cudaErrorNvlinkUncorrectable,
        cudaErrorContextIsDestroyed,
        cudaErrorUnknown,
    };
    for (size_t i = 0; i < sizeof final / sizeof *final; i++)
        if (final[i] == result)
            return true;
    return false;
}
