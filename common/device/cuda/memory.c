#include "common/device/cuda/internal.h"

#include <string.h>

/** Puts what was asked for and what there was before an error, where the GPU can still be asked. */
static void say_free_memory(const struct cuda_device *device, size_t bytes, struct error *err) {
    size_t left = 0, total = 0;
    if (cudaMemGetInfo(&left, &total) == cudaSuccess) {
        error_prefix(err, "%zu bytes on GPU %d, which has %zu of %zu left", bytes, device->index, left, total);
    } else {
        cudaGetLastError();
        error_prefix(err, "%zu bytes on GPU %d", bytes, device->index);
    }
}

void *cuda_alloc(struct device *device, size_t bytes, struct error *err) {
    struct cuda_device *cuda = cuda_device_of(device);
    void *memory = NULL;
    if (!cuda_enter(cuda, err))
        return NULL;
    if (!cuda_check(cuda, cudaMalloc(&memory, bytes ? bytes : 1), "cudaMalloc", err)) {
        say_free_memory(cuda, bytes, err);
        return NULL;
    }
    /* Waited for, so that it is zero on every stream. */
    if (cuda_zero(device, memory, bytes, NULL, err) && cuda_synchronise(device, NULL, err))
        return memory;
    cudaFree(memory);
    return NULL;
}

void cuda_free(struct device *device, void *memory) {
    if (cuda_enter(cuda_device_of(device), NULL))
        cudaFree(memory);
}

void *cuda_host_alloc(struct device *device, size_t bytes, struct error *err) {
    struct cuda_device *cuda = cuda_device_of(device);
    void *memory = NULL;
    if (!cuda_enter(cuda, err) ||
        !cuda_check(cuda, cudaMallocHost(&memory, bytes ? bytes : 1), "cudaMallocHost", err)) {
        error_prefix(err, "%zu bytes of page-locked memory", bytes);
        return NULL;
    }
    return memset(memory, 0, bytes);
}

void cuda_host_free(struct device *device, void *memory) {
    if (cuda_enter(cuda_device_of(device), NULL))
        cudaFreeHost(memory);
}

bool cuda_staging_init(struct cuda_device *device, struct error *err) {
    struct staging *staging = &device->staging;
    bool ok =
        cuda_check(device, cudaMallocHost((void **)&staging->memory, STAGING_SLOTS * STAGING_SLOT_BYTES),
                   "cudaMallocHost", err);
    for (int i = 0; ok && i < STAGING_SLOTS; i++)
        ok = cuda_check(device, cudaEventCreateWithFlags(&staging->done[i], cudaEventDisableTiming),
                        "cudaEventCreateWithFlags", err);
    return ok;
}

void cuda_staging_fini(struct cuda_device *device) {
    struct staging *staging = &device->staging;
    for (int i = 0; i < STAGING_SLOTS; i++)
        if (staging->done[i])
            cudaEventDestroy(staging->done[i]);
    cudaFreeHost(staging->memory);
}

/** Asks before it waits: in a step nearly every slot is free. */
static bool await_slot(struct cuda_device *device, cudaEvent_t done, struct error *err) {
    cudaError_t state = cudaEventQuery(done);
    if (state == cudaErrorNotReady) {
        cudaGetLastError();
        state = cudaEventSynchronize(done);
    }
    return cuda_check(device, state, "cudaEventSynchronize", err);
}

/** Through the next slot; waits only where that slot's last upload is still on its way. */
static bool upload_staged(struct cuda_device *device, void *dst, const void *src, size_t bytes,
                          cudaStream_t stream, struct error *err) {
    struct staging *staging = &device->staging;
    int slot = staging->next;
    char *memory = staging->memory + (size_t)slot * STAGING_SLOT_BYTES;
    staging->next = (slot + 1) % STAGING_SLOTS;
    if (!await_slot(device, staging->done[slot], err))
        return false;
    memcpy(memory, src, bytes);
    return cuda_check(device, cudaMemcpyAsync(dst, memory, bytes, cudaMemcpyHostToDevice, stream), "upload",
                      err) &&
           cuda_check(device, cudaEventRecord(staging->done[slot], stream), "cudaEventRecord", err);
}

static bool is_page_locked(const void *memory) {
    struct cudaPointerAttributes attributes;
    bool known = cudaPointerGetAttributes(&attributes, memory) == cudaSuccess;
    if (!known)
        cudaGetLastError();
    return known && attributes.type == cudaMemoryTypeHost;
}

bool cuda_upload(struct device *device, void *dst, const void *src, size_t bytes, struct stream *stream,
                 struct error *err) {
    struct cuda_device *cuda = cuda_device_of(device);
    cudaStream_t on = cuda_stream_of(cuda, stream);
    if (!cuda_enter(cuda, err))
        return false;
    bool page_locked = is_page_locked(src);
    if (!page_locked && bytes <= STAGING_SLOT_BYTES)
        return upload_staged(cuda, dst, src, bytes, on, err);
    /* Ordinary memory may be the caller's stack: some systems read it later, so it is waited for. */
    return cuda_check(cuda, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, on), "upload", err) &&
           (page_locked || cuda_synchronise(device, stream, err));
}

bool cuda_download(struct device *device, void *dst, const void *src, size_t bytes, struct stream *stream,
                   struct error *err) {
    struct cuda_device *cuda = cuda_device_of(device);
    return cuda_enter(cuda, err) &&
           cuda_check(cuda,
                      cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, cuda_stream_of(cuda, stream)),
                      "download", err);
}

bool cuda_copy(struct device *device, void *dst, const void *src, size_t bytes, struct stream *stream,
               struct error *err) {
    struct cuda_device *cuda = cuda_device_of(device);
    return dst == src ||
           (cuda_enter(cuda, err) && cuda_check(cuda,
                                                cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice,
                                                                cuda_stream_of(cuda, stream)),
                                                "copy", err));
}

bool cuda_zero(struct device *device, void *dst, size_t bytes, struct stream *stream, struct error *err) {
    struct cuda_device *cuda = cuda_device_of(device);
    return cuda_enter(cuda, err) &&
           cuda_check(cuda, cudaMemsetAsync(dst, 0, bytes, cuda_stream_of(cuda, stream)), "cudaMemsetAsync",
                      err);
}
