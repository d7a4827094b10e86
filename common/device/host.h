#pragma once
#include "common/device/device.h"

/**
 * What all CPU devices share: memory of this process, work that is done when the call returns, streams and
 * events that are trivial. Each function fits the slot of the same name in struct device_ops; none looks at
 * the device.
 */

/** Zeroed, aligned to 64 bytes; large blocks are aligned to and backed by huge pages where the system has
 * them. */
void *host_memory_alloc(struct device *device, size_t bytes, struct error *err);
void host_memory_free(struct device *device, void *memory);

/** upload, download and copy alike. Regions that are one and the same are left alone. */
bool host_copy(struct device *device, void *dst, const void *src, size_t bytes, struct stream *stream,
               struct error *err);
bool host_zero(struct device *device, void *dst, size_t bytes, struct stream *stream, struct error *err);

bool host_stream_create(struct device *device, struct stream **out, struct error *err);
void host_stream_destroy(struct device *device, struct stream *stream);
bool host_event_create(struct device *device, struct event **out, struct error *err);
void host_event_destroy(struct device *device, struct event *event);
bool host_event_record(struct device *device, struct event *event, struct stream *stream, struct error *err);
bool host_stream_wait(struct device *device, struct stream *stream, struct event *event, struct error *err);
int host_event_done(struct device *device, struct event *event, struct error *err);
bool host_synchronise(struct device *device, struct stream *stream, struct error *err);
