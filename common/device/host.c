#include "common/device/host.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

void *host_memory_alloc(struct device *device, size_t bytes, struct error *err) {
    size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    void *memory = NULL;
    (void)device;
    if (bytes <= SIZE_MAX - alignment) {
        size_t rounded = bytes ? (bytes + alignment - 1) / alignment * alignment : alignment;
        memory = aligned_alloc(alignment, rounded);
        if (memory && alignment == HUGE_PAGE)
            (void)madvise(memory, rounded,
                          MADV_HUGEPAGE); /* only a wish: small pages do as well, more slowly */
        if (memory)
            memset(memory, 0, rounded);
    }
    if (!memory)
        error_set(err, ERROR_MEMORY, "out of memory for %zu bytes", bytes);
    return memory;
}

void host_memory_free(struct device *device, void *memory) {
    (void)device;
    free(memory);
}

bool host_copy(struct device *device, void *dst, const void *src, size_t bytes, struct stream *stream,
               struct error *err) {
    (void)device;
    (void)stream;
    (void)err;
    if (dst != src && bytes)
        memcpy(dst, src, bytes);
    return true;
}

bool host_zero(struct device *device, void *dst, size_t bytes, struct stream *stream, struct error *err) {
    (void)device;
    (void)stream;
    (void)err;
    if (bytes)
        memset(dst, 0, bytes);
    return true;
}

/* A stream or event only has to be something that is not NULL: all work is done when its call returns. */

bool host_stream_create(struct device *device, struct stream **out, struct error *err) {
    (void)err;
    *out = (struct stream *)(void *)device;
    return true;
}

void host_stream_destroy(struct device *device, struct stream *stream) {
    (void)device;
    (void)stream;
}

bool host_event_create(struct device *device, struct event **out, struct error *err) {
    (void)err;
    *out = (struct event *)(void *)device;
    return true;
}

void host_event_destroy(struct device *device, struct event *event) {
    (void)device;
    (void)event;
}

bool host_event_record(struct device *device, struct event *event, struct stream *stream, struct error *err) {
    (void)device;
    (void)event;
    (void)stream;
    (void)err;
    return true;
}

bool host_stream_wait(struct device *device, struct stream *stream, struct event *event, struct error *err) {
    (void)device;
    (void)stream;
    (void)event;
    (void)err;
    return true;
}

int host_event_done(struct device *device, struct event *event, struct error *err) {
    (void)device;
    (void)event;
    (void)err;
    return 1;
}

bool host_synchronise(struct device *device, struct stream *stream, struct error *err) {
    (void)device;
    (void)stream;
    (void)err;
    return true;
}
