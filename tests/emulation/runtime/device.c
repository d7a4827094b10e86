#include "tests/emulation/runtime/state.h"

#include <stdio.h>
#include <string.h>

enum { DRIVER_VERSION = CUDART_VERSION, WARP = 32, BLOCK_THREADS = 1024, MULTIPROCESSORS = 132 };

static _Thread_local int current;
static _Thread_local cudaError_t last_error;

/* --- errors --- */

static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorIllegalState, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge",
     "operation would result in a merge of separate capture sequences"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "capture was not ended in the same stream as it began"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
    {cudaErrorStreamCaptureWrongThread, "cudaErrorStreamCaptureWrongThread",
     "attempt to terminate a thread-local capture sequence from another thread"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};
enum { ERRORS = sizeof errors / sizeof *errors };

const char *cudaGetErrorName(cudaError_t error) {
    for (int i = 0; i < ERRORS; i++)
        if (errors[i].error == error)
            return errors[i].name;
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error) {
    for (int i = 0; i < ERRORS; i++)
        if (errors[i].error == error)
            return errors[i].text;
    return "unrecognized error code";
}

/** cudaErrorNotReady is kept like any other, as CUDA does: whoever asked and goes on has to take it. */
cudaError_t give(cudaError_t result) {
    if (result != cudaSuccess)
        last_error = result;
    return result;
}

cudaError_t emulation_device_error(int device) {
    cudaError_t error = state_lock()->devices[device].error;
    state_unlock();
    return error;
}

void emulation_set_device_error(int device, cudaError_t error) {
    struct emulated_device *row = &state_lock()->devices[device];
    if (row->error == cudaSuccess)
        row->error = error;
    state_unlock();
}

cudaError_t cudaPeekAtLastError(void) {
    cudaError_t sticky = emulation_device_error(current);
    return sticky != cudaSuccess ? sticky : last_error;
}

cudaError_t cudaGetLastError(void) {
    cudaError_t error = cudaPeekAtLastError();
    last_error = cudaSuccess;
    return error;
}

/* --- devices --- */

int device_current(void) {
    return current;
}

static int device_count(void) {
    int count = state_lock()->device_count;
    state_unlock();
    return count;
}

cudaError_t cudaGetDeviceCount(int *count) {
    *count = device_count();
    return give(*count ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= device_count())
        return give(cudaErrorInvalidDevice);
    current = device;
    return give(emulation_device_error(device));
}

cudaError_t cudaGetDevice(int *device) {
    *device = current;
    return give(device_count() ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device) {
    if (device < 0 || device >= device_count())
        return give(cudaErrorInvalidDevice);
    *out = (struct cudaDeviceProp){.totalGlobalMem = state_lock()->memory_bytes,
                                   .sharedMemPerBlock = 48 << 10,
                                   .regsPerBlock = 1 << 16,
                                   .warpSize = WARP,
                                   .maxThreadsPerBlock = BLOCK_THREADS,
                                   .maxThreadsDim = {BLOCK_THREADS, BLOCK_THREADS, 64},
                                   .maxGridSize = {INT32_MAX, 65535, 65535},
                                   .major = 9,
                                   .minor = 0,
                                   .multiProcessorCount = MULTIPROCESSORS,
                                   .concurrentKernels = 1,
                                   .asyncEngineCount = 3,
                                   .unifiedAddressing = 1,
                                   .canMapHostMemory = 1,
                                   .l2CacheSize = 50 << 20,
                                   .maxThreadsPerMultiProcessor = 2048,
                                   .streamPrioritiesSupported = 1,
                                   .pciBusID = device};
    state_unlock();
    snprintf(out->name, sizeof out->name, "CPU emulation");
    out->uuid.bytes[0] = (char)(device + 1);
    return give(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    static const struct {
        enum cudaDeviceAttr attribute;
        int value;
    } rows[] = {
        {cudaDevAttrMaxThreadsPerBlock, BLOCK_THREADS},
        {cudaDevAttrMultiProcessorCount, MULTIPROCESSORS},
        {cudaDevAttrComputeCapabilityMajor, 9},
        {cudaDevAttrComputeCapabilityMinor, 0},
        {cudaDevAttrWarpSize, WARP},
        {cudaDevAttrMemoryPoolsSupported, 0},
    };
    if (device < 0 || device >= device_count())
        return give(cudaErrorInvalidDevice);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].attribute == attribute) {
            *value = rows[i].value;
            return give(cudaSuccess);
        }
    emulation_finding("cudaDeviceGetAttribute: attribute %d is not emulated", (int)attribute);
    return give(cudaErrorInvalidValue);
}

cudaError_t cudaDeviceGetPCIBusId(char *out, int bytes, int device) {
    if (device < 0 || device >= device_count())
        return give(cudaErrorInvalidDevice);
    snprintf(out, (size_t)bytes, "0000:%02x:00.0", (unsigned)device & 0xFF);
    return give(cudaSuccess);
}

cudaError_t cudaDriverGetVersion(int *version) {
    *version = DRIVER_VERSION;
    return give(cudaSuccess);
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return give(cudaSuccess);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return give(cudaSuccess);
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) {
    *can = 0;
    return give(device == peer || device >= device_count() || peer >= device_count() ? cudaErrorInvalidDevice : cudaSuccess);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    const struct state *state = state_lock();
    size_t used = memory_used(current);
    *total = state->memory_bytes;
    *free_bytes = used < *total ? *total - used : 0;
    state_unlock();
    return give(cudaSuccess);
}
