#pragma once
#include "common/op/op.h"

/**
 * A device computes operations: `reference` (plain loops, the oracle), `onednn` (CPUs), `cuda` (GPUs). It is a const table
 * of functions; the first member of each device's object is that table. Callers use the wrappers below, which check.
 *
 * Threads: a device and all that was made from it belong to one thread at a time, but for event_done, which any may ask.
 * Several devices may be open in one process, each with a team of threads of its own.
 * Sharing: a device may be opened beside another one (device_spec.share). Their layouts are then interned together, and each
 * reads and frees what any of them allocated. Each still has a thread of its own; two of them may prepare, run and close at
 * the same time, and in any order. Whoever writes memory that several read does so before the others begin.
 * Asynchrony: run, upload and download return when the work is queued on the stream; an error of earlier work may be
 * reported by any later call, at the latest by synchronise. On CPUs all work is done when the call returns, and streams
 * and events are trivial. The source of an upload is free once it returns; one from host_alloc, when the work is done.
 * Loss: where a device fails for good, synchronise is ERROR_LOST, and so is every later call on it in this process; no work that
 * was under way gives a result. A run before that may fail in a library's own words.
 */
struct device {
    const struct device_ops *ops;
    const void *family; /**< the same in devices that share, NULL in those that cannot */
};
struct stream; /**< an ordered queue of work; NULL is the device's default one */
struct event;  /**< a point in a stream */
struct recording; /**< work that was taken down, to be launched as a whole */

struct device_spec {
    const char *name;   /**< a registry row: "reference", "onednn", "cuda" */
    int index;          /**< which GPU; 0 on CPUs */
    int threads;        /**< compute team of a CPU device; 0: as many as the affinity mask of the caller allows */
    bool deterministic; /**< refuse or avoid kernels whose result varies from run to run */
    /**
     * Never by Winograd's minimal filtering (Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2016), which
     * computes f32 convolutions of 3 x 3 about twice as fast and rounds more
     */
    bool direct_convolutions;
    bool kernel_by_kernel; /**< never make recordings: each kernel is launched by itself */
    bool tf32; /**< GPUs: f32 convolutions and products may round what they multiply to TF32's eleven significant bits */
    /** GPUs: measure which algorithm of a convolution is the fastest, and keep it in this file; NULL, "": take cuDNN's guess */
    const char *algorithm_cache;
    struct device *share; /**< an open device of that name to share layouts and memory with, or NULL; it may be closed first */
};

struct device_info {
    char name[64];        /**< e.g. "onednn 2.6.3 (avx512_amx), 2 threads": what bit-equality of results depends on */
    size_t memory_bytes;  /**< total, 0: unknown */
    size_t free_bytes;    /**< of these, now, and for all processes; 0 where the total is unknown */
    /**
     * Weights of 8-bit convolutions are computed with exactly where they stay within this many bits: 8, or 7 ([-64, 63])
     * where products are added in pairs in 16 bits (CPUs without VNNI); there, beside a source of s8, weights keep 8 bits but
     * have to be even. 0: no 8-bit convolutions.
     */
    int int8_weight_bits;
    /**
     * In bf16 and f16 a convolution's sum is rounded before bias and residual are added to it (or the bias is), and the
     * gradients of its weights before they become f32.
     */
    bool rounds_sums;
    bool host_memory;     /**< buffers can be read and written by the CPU directly (synchronise first) */
    bool records;         /**< makes recordings (record_begin and the others), and was not told not to */
};

/** What prepare is asked for. For each present argument, desc.layout is NULL, a layout of this device, or LAYOUT_ANY. */
struct kernel_request {
    struct op op;
    enum pass pass;
    struct op_args args; /**< from op_arguments, with dtypes and layouts as the plan wants them */
};

/**
 * A prepared kernel: costly to make, cheap to run, any number of times. Devices embed it as their first member.
 * On return from prepare `args` has the layouts and sizes that run expects, workspace and scratch included: the caller
 * brings every buffer. Where a concrete layout was requested and cannot be served directly, prepare still succeeds with the
 * layout that the kernel insists on, and the caller reorders.
 */
struct kernel {
    struct device *device;
    struct op op;
    enum pass pass;
    struct op_args args;
    const char *implementation; /**< for profiles, e.g. "jit:avx512_core"; lives as long as the kernel */
    bool reference_fallback;    /**< the library had no fast kernel: to be said loudly on a hot path */
};

struct device_ops {
    const char *name;
    bool shares; /**< open heeds device_spec.share; else nobody asks for it */
    /** Registry row's probe: can the device be opened here? The error says why not. Called without a device. */
    bool (*available)(struct error *err);
    /** How many there are, by device_spec.index, where available says yes; NULL: one. Called without a device. */
    int (*count)(void);
    struct device *(*open)(const struct device_spec *spec, struct error *err);
    /** All that was made from the device is gone already. */
    void (*close)(struct device *device);
    void (*info)(struct device *device, struct device_info *out);

    /** Device memory, zeroed, aligned to 64 bytes or more. NULL: ERROR_MEMORY says how much was asked. */
    void *(*alloc)(struct device *device, size_t bytes, struct error *err);
    void (*free)(struct device *device, void *memory);
    /** Page-locked host memory for uploads and downloads (ordinary memory on CPUs). */
    void *(*host_alloc)(struct device *device, size_t bytes, struct error *err);
    void (*host_free)(struct device *device, void *memory);
    bool (*upload)(struct device *device, void *dst, const void *src, size_t bytes, struct stream *stream, struct error *err);
    bool (*download)(struct device *device, void *dst, const void *src, size_t bytes, struct stream *stream, struct error *err);
    bool (*copy)(struct device *device, void *dst, const void *src, size_t bytes, struct stream *stream, struct error *err);
    bool (*zero)(struct device *device, void *dst, size_t bytes, struct stream *stream, struct error *err);

    bool (*stream_create)(struct device *device, struct stream **out, struct error *err);
    void (*stream_destroy)(struct device *device, struct stream *stream);
    bool (*event_create)(struct device *device, struct event **out, struct error *err);
    void (*event_destroy)(struct device *device, struct event *event);
    /** The event is reached when all work queued on the stream until now is done. */
    bool (*event_record)(struct device *device, struct event *event, struct stream *stream, struct error *err);
    /** Work queued on the stream from now on waits for the event. */
    bool (*stream_wait)(struct device *device, struct stream *stream, struct event *event, struct error *err);
    /** 1: reached, 0: not yet, -1: failed. Any thread. */
    int (*event_done)(struct device *device, struct event *event, struct error *err);
    /** Waits until all work of the stream is done, and reports its errors. */
    bool (*synchronise)(struct device *device, struct stream *stream, struct error *err);

    /**
     * Optional, all four or none: NULL where device_info.records is false. From record_begin to record_end what this thread
     * runs, copies and zeroes on the stream is not done but taken down; nothing else may be asked of the device. The recording
     * does it each time that it is launched, for a fraction of the host's time, on the same buffers: what they hold then.
     */
    bool (*record_begin)(struct device *device, struct stream *stream, struct error *err);
    /** Always follows record_begin. NULL where something could not be taken down: nothing was done, the stream is as before. */
    struct recording *(*record_end)(struct device *device, struct stream *stream, struct error *err);
    bool (*recording_launch)(struct device *device, struct recording *recording, struct stream *stream, struct error *err);
    /** All its launches are done. */
    void (*recording_destroy)(struct device *device, struct recording *recording);

    /** Whether prepare would succeed for this kind, its attributes, pass and dtypes. Cheap. */
    bool (*supports)(struct device *device, const struct kernel_request *request);
    struct kernel *(*prepare)(struct device *device, const struct kernel_request *request, struct error *err);
    /** buffers[arg] for every present argument, in device memory. Does not allocate. */
    bool (*run)(struct kernel *kernel, void *const buffers[ARG_COUNT], struct stream *stream, struct error *err);
    void (*release)(struct kernel *kernel);
    /** A stable text for a layout of this device (part of the ranks' fingerprint). Returns out. */
    const char *(*layout_text)(struct device *device, const struct tensor_desc *desc, char *out, size_t size);
};

/**
 * Opens the device of that name. NULL: ERROR_NOT_FOUND lists the names; ERROR_UNSUPPORTED says why it cannot be opened here, or
 * not beside the one to share with.
 */
struct device *device_open(const struct device_spec *spec, struct error *err);
/** Takes NULL. */
void device_close(struct device *device);
/** Whether layouts and memory of one are those of the other too. */
bool device_shares(const struct device *a, const struct device *b);

/** How many devices of that name can be opened here, by index; 0 and the error where none can. */
int device_count(const char *name, struct error *err);

/** The i-th registry row, NULL past the last: for listings. */
const struct device_ops *device_registry_row(int i);

/** Prepares a kernel after checking the request against op_arguments and supports. NULL on error. */
struct kernel *kernel_prepare(struct device *device, const struct kernel_request *request, struct error *err);
/** Takes NULL. */
void kernel_release(struct kernel *kernel);
/** Runs it. ERROR_INVALID where an argument that is present has no buffer. */
bool kernel_run(struct kernel *kernel, void *const buffers[ARG_COUNT], struct stream *stream, struct error *err);

/** Prepares a copy from one description to another of the same shape on this device (OP_REORDER). */
struct kernel *kernel_prepare_reorder(struct device *device, const struct tensor_desc *from,
                                      const struct tensor_desc *to, struct error *err);
