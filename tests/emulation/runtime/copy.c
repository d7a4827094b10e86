#include "tests/emulation/runtime/state.h"

#include <string.h>

/* Memory from the program's side: allocating, copying and filling it. */

/* --- allocating --- */

static cudaError_t allocate(void **out, size_t bytes, enum memory_kind kind, const char *who) {
    struct state *state = state_lock();
    int device = device_current();
    cudaError_t result = state->device_count ? state->devices[device].error : cudaErrorNoDevice;
    bool full = kind == MEMORY_DEVICE && (bytes > state->memory_bytes || memory_used(device) > state->memory_bytes - bytes);
    bool ordered = failure_is_due(kind == MEMORY_DEVICE ? EMULATION_FAIL_ALLOCATION : EMULATION_FAIL_HOST_ALLOCATION);
    struct allocation *made = NULL;
    *out = NULL;
    if (result == cudaSuccess)
        result = capture_forbids(who);
    if (result == cudaSuccess && bytes) {
        made = full || ordered ? NULL : memory_create(bytes, kind, device);
        result = made ? cudaSuccess : cudaErrorMemoryAllocation;
    }
    if (made)
        *out = made->memory;
    state_unlock();
    return give(result);
}

cudaError_t cudaMalloc(void **out, size_t bytes) {
    emulation_note(EMULATION_ALLOCATION, "cudaMalloc");
    return allocate(out, bytes, MEMORY_DEVICE, "cudaMalloc");
}

cudaError_t cudaMallocHost(void **out, size_t bytes) {
    emulation_note(EMULATION_HOST_ALLOCATION, "cudaMallocHost");
    return allocate(out, bytes, MEMORY_HOST, "cudaMallocHost");
}

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned flags) {
    (void)flags;
    emulation_note(EMULATION_HOST_ALLOCATION, "cudaHostAlloc");
    return allocate(out, bytes, MEMORY_HOST, "cudaHostAlloc");
}

/** As CUDA does, waits for all work of the device. What that orders is not promised, so it is not counted on here. */
static cudaError_t release(void *memory, enum memory_kind kind, bool registered, const char *who) {
    cudaError_t result = cudaErrorInvalidValue;
    if (!memory)
        return give(cudaSuccess);
    state_lock();
    struct allocation *found = memory_find(memory);
    bool right = found && found->memory == memory && found->kind == kind && registered == (found->mapping == NULL);
    cudaError_t forbidden = capture_forbids(who);
    if (forbidden != cudaSuccess)
        result = forbidden;
    else if (right) {
        int device = found->device;
        streams_settle(device);
        if (memory_find(memory) == found)
            memory_destroy(found);
        result = state_held()->devices[device].error;
    } else
        emulation_finding("%s: %p is not the start of such memory, or it was freed before", who, memory);
    state_unlock();
    return give(result);
}

cudaError_t cudaFree(void *memory) {
    emulation_note(EMULATION_ALLOCATION, "cudaFree");
    return release(memory, MEMORY_DEVICE, false, "cudaFree");
}

cudaError_t cudaFreeHost(void *memory) {
    emulation_note(EMULATION_HOST_ALLOCATION, "cudaFreeHost");
    return release(memory, MEMORY_HOST, false, "cudaFreeHost");
}

cudaError_t cudaHostRegister(void *memory, size_t bytes, unsigned flags) {
    (void)flags;
    emulation_note(EMULATION_HOST_ALLOCATION, "cudaHostRegister");
    state_lock();
    cudaError_t result = capture_forbids("cudaHostRegister");
    if (result == cudaSuccess && (memory_find(memory) || !memory_register(memory, bytes, device_current())))
        result = cudaErrorInvalidValue;
    state_unlock();
    return give(result);
}

cudaError_t cudaHostUnregister(void *memory) {
    emulation_note(EMULATION_HOST_ALLOCATION, "cudaHostUnregister");
    return release(memory, MEMORY_HOST, true, "cudaHostUnregister");
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *out, const void *memory) {
    state_lock();
    const struct allocation *found = memory_find(memory);
    *out = (struct cudaPointerAttributes){.type = cudaMemoryTypeUnregistered, .device = device_current()};
    if (found) {
        out->type = found->kind == MEMORY_HOST ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
        out->device = found->device;
        out->devicePointer = (void *)memory;
        out->hostPointer = found->kind == MEMORY_HOST ? (void *)memory : NULL;
    }
    state_unlock();
    return give(cudaSuccess);
}

/* --- copying --- */

struct copy {
    void *dst;
    const void *src;
    size_t bytes;
    bool asynchronous;
    bool watched; /**< src is the host's: it must still be as it was when the copy was queued */
    uint64_t digest;
};

/** FNV-1a, by words. */
static uint64_t digest_of(const void *memory, size_t bytes) {
    uint64_t digest = 0xCBF29CE484222325u, word;
    for (size_t at = 0; at < bytes; at += sizeof word) {
        word = 0;
        memcpy(&word, (const char *)memory + at, bytes - at < sizeof word ? bytes - at : sizeof word);
        digest = (digest ^ word) * 0x100000001B3u;
    }
    return digest;
}

static void run_copy(void *argument) {
    const struct copy *copy = argument;
    if (copy->watched && digest_of(copy->src, copy->bytes) != copy->digest)
        emulation_finding("the host changed %zu bytes at %p while their upload was still to come", copy->bytes, copy->src);
    memmove(copy->dst, copy->src, copy->bytes);
}

static bool is_device(const void *memory) {
    const struct allocation *found = memory_find(memory);
    return found && found->kind == MEMORY_DEVICE;
}

static bool direction_is_right(const struct copy *copy, enum cudaMemcpyKind kind, const char *who) {
    static const char *const side[] = {"the host", "a device"};
    bool from = is_device(copy->src), to = is_device(copy->dst);
    bool says_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    bool says_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    if (kind == cudaMemcpyDefault || (from == says_from && to == says_to))
        return true;
    emulation_finding("%s says from %s to %s, but copies from %p (%s) to %p (%s)", who, side[says_from], side[says_to],
                      copy->src, side[from], copy->dst, side[to]);
    return false;
}

/**
 * What is not promised is not done: an upload reads its source late, ordinary memory's too, and a download leaves garbage
 * in its destination until it comes. Only what other queued copies have to do with is left alone.
 */
static void prepare_host_side(struct CUstream_st *stream, void *argument) {
    struct copy *copy = argument;
    copy->watched = !is_device(copy->src) && !memory_is_busy(copy->src, copy->bytes, true);
    if (copy->watched)
        copy->digest = digest_of(copy->src, copy->bytes);
    if (copy->asynchronous && !is_device(copy->dst) && !stream->pageable_reads && !memory_is_busy(copy->dst, copy->bytes, false))
        memset(copy->dst, POISON, copy->bytes);
}

/** With the lock. Ranges of ordinary host memory are nobody's to follow. */
static cudaError_t queue_copy(struct CUstream_st *stream, const struct copy *copy, const char *who) {
    struct emulation_range ranges[2];
    int count = 0;
    bool pageable_source = !memory_find(copy->src);
    if (!pageable_source)
        ranges[count++] = (struct emulation_range){copy->src, copy->bytes, false};
    if (memory_find(copy->dst))
        ranges[count++] = (struct emulation_range){copy->dst, copy->bytes, true};
    if ((const char *)copy->src < (char *)copy->dst + copy->bytes &&
        (char *)copy->dst < (const char *)copy->src + copy->bytes)
        emulation_finding("%s: source and destination overlap", who);
    const struct work_spec spec = {.name = who,
                                   .run = run_copy,
                                   .prepare = prepare_host_side,
                                   .argument = copy,
                                   .argument_bytes = sizeof *copy,
                                   .reads_pageable = pageable_source};
    if (stream->capture && (pageable_source || !memory_find(copy->dst)))
        return capture_forbids_stream(stream, "a copy from or to ordinary memory of the host");
    for (int i = 0; i < count; i++)
        if (!memory_use(stream->device, who, &ranges[i]))
            return cudaErrorInvalidValue;
    return stream_enqueue(stream, &spec, ranges, count);
}

static cudaError_t copy_call(struct copy copy, enum cudaMemcpyKind kind, cudaStream_t stream, const char *who) {
    cudaError_t result = cudaErrorInvalidResourceHandle;
    if (!copy.bytes)
        return give(cudaSuccess);
    state_lock();
    struct CUstream_st *found = stream_find(stream, who);
    if (found)
        result = copy.asynchronous ? cudaSuccess : capture_forbids(who);
    if (result == cudaSuccess)
        result = direction_is_right(&copy, kind, who) ? queue_copy(found, &copy, who) : cudaErrorInvalidMemcpyDirection;
    if (result == cudaSuccess && !copy.asynchronous) {
        struct vector_clock clock = found->clock;
        stream_settle(found, found->enqueued);
        host_joins(&clock);
        result = state_held()->devices[found->device].error;
    }
    state_unlock();
    return give(result);
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    emulation_note(EMULATION_COPY, "cudaMemcpyAsync");
    struct copy copy = {.dst = dst, .src = src, .bytes = bytes, .asynchronous = true};
    return copy_call(copy, kind, stream, "cudaMemcpyAsync");
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind) {
    emulation_note(EMULATION_SYNCHRONISATION, "cudaMemcpy");
    return copy_call((struct copy){.dst = dst, .src = src, .bytes = bytes}, kind, NULL, "cudaMemcpy");
}

/* --- filling --- */

struct fill {
    void *dst;
    int value;
    size_t bytes;
};

static void run_fill(void *argument) {
    const struct fill *fill = argument;
    memset(fill->dst, fill->value, fill->bytes);
}

static cudaError_t fill_call(struct fill fill, cudaStream_t stream, const char *who) {
    struct emulation_range range = {fill.dst, fill.bytes, true};
    emulation_note(EMULATION_COPY, who);
    if (!fill.bytes)
        return give(cudaSuccess);
    return give(emulation_enqueue(stream, who, &range, 1, run_fill, &fill, sizeof fill));
}

cudaError_t cudaMemset(void *dst, int value, size_t bytes) {
    state_lock();
    cudaError_t forbidden = capture_forbids("cudaMemset");
    state_unlock();
    return forbidden != cudaSuccess ? give(forbidden) : fill_call((struct fill){dst, value, bytes}, NULL, "cudaMemset");
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream) {
    return fill_call((struct fill){dst, value, bytes}, stream, "cudaMemsetAsync");
}
