#pragma once
#include "common/device/cuda/cuda.h"
#include "common/device/cuda/kernels.h"
#include "common/device/cuda/layout.h"
#include "common/device/cuda/library.h"

/**
 * Inside the CUDA device. A `struct stream` is a cudaStream_t and a `struct event` a cudaEvent_t, cast:
 * NCCL's collective, in the same shared object, relies on it. A `struct recording` is a cudaGraphExec_t.
 */

/** Page-locked memory through which small uploads from ordinary memory go, so that their source is free at
 * once. */
enum { STAGING_SLOTS = 16, STAGING_SLOT_BYTES = 4096 };
struct staging {
    char *memory;
    cudaEvent_t done[STAGING_SLOTS]; /* the slot's last upload has been read */
    int next;
};

struct cuda_device {
    struct device base;
    int index;
    bool deterministic, tf32, kernel_by_kernel;
    char name[64];
    size_t memory_bytes;
    cudaStream_t stream; /* the default one: what a stream of NULL stands for */
    cudnnHandle_t cudnn;
    cublasHandle_t cublas;
    void *cublas_workspace;
    struct algorithm_cache *algorithms; /* NULL: nothing is measured */
    struct staging staging;
    struct error failure; /* the first final error: all that follows only repeats it */
};

/** The device behind the interface, and the stream that is meant. */
struct cuda_device *cuda_device_of(struct device *device);
cudaStream_t cuda_stream_of(const struct cuda_device *device, struct stream *stream);

/** What each call on the device's thread begins with: makes its GPU the thread's current one. */
bool cuda_enter(struct cuda_device *device, struct error *err);
/** As cuda_ok, on the device's thread; keeps the first final error and reports that one ever after. */
bool cuda_check(struct cuda_device *device, cudaError_t result, const char *what, struct error *err);

/** A prepared kernel; kinds that need more embed it as their first member. */
struct cuda_kernel {
    struct kernel base;
    const struct cuda_row *row;
    bool last; /**< its images have their channels last: NHWC, or canonical ones that are the same bytes */
};

/** One run of a kernel. */
struct cuda_call {
    const struct cuda_kernel *kernel;
    struct cuda_device *device;
    void *const *buffers; /* by enum arg */
    cudaStream_t stream;
};

/** How a kind is computed. */
struct cuda_row {
    size_t kernel_size; /**< bytes of its struct; 0: struct cuda_kernel */
    bool canonical;     /**< all its tensors are; else it takes NHWC where any of them is */
    bool integers;      /**< some tensors are of 8 bits: its `supports` looks at the dtypes, too */
    /** Beyond dtypes and layouts; NULL: all. */
    bool (*supports)(const struct kernel_request *request);
    /**
     * Sets sizes of workspace and scratch, other layouts than kernel->last says, and what else runs need; NULL: nothing. Where
     * it fails, release follows.
     */
    bool (*prepare)(struct cuda_kernel *kernel, const struct kernel_request *request, struct error *err);
    bool (*run[PASS_COUNT])(const struct cuda_call *call, struct error *err);
    /** Frees what prepare made but the struct; NULL: nothing. */
    void (*release)(struct cuda_kernel *kernel);
};
extern const struct cuda_row cuda_conv2d, cuda_batch_norm, cuda_batch_norm_sums, cuda_activation, cuda_add, cuda_max_pool,
    cuda_global_average_pool, cuda_linear, cuda_dropout, cuda_softmax_cross_entropy, cuda_vary, cuda_reorder,
    cuda_gradient_norm, cuda_sgd, cuda_adamw;

/** The buffer of an argument, NULL where it is absent. */
void *cuda_buffer(const struct cuda_call *call, enum arg arg);
const int64_t *cuda_dims(const struct cuda_call *call, enum arg arg);
int64_t cuda_count(const struct cuda_call *call, enum arg arg);
enum dtype cuda_dtype(const struct cuda_call *call, enum arg arg);
/** A tensor of four dimensions as loops over channels see it; as images, one of any rank. */
struct channels cuda_channels(const struct cuda_call *call, enum arg arg);
struct channels cuda_channels_of(const struct shape *shape, bool last);
struct images cuda_images(const struct cuda_call *call, enum arg arg);
struct images cuda_images_of(const struct shape *shape, bool last);
/** How many neighbours a thread takes: LANES where they never leave a run of that many that are treated alike, else 1. */
static inline int cuda_width(int64_t run) {
    return run % LANES == 0 ? LANES : 1;
}
/** The same, of runs of channels (or of the pixels of one). */
int cuda_channel_width(const struct channels *shape);
/** Makes ARG_WORKSPACE or ARG_SCRATCH that many bytes (0: no scratch). */
void cuda_set_private(struct cuda_kernel *kernel, enum arg arg, size_t bytes);
/** Reports what a launch_NAME returned. */
bool cuda_launched(const struct cuda_call *call, cudaError_t result, struct error *err);

/** Sums over the pixels of each channel: how they are cut, and what their scratch takes. See kernels_norm_body.h. */
struct sliced cuda_sliced(const struct channels *shape);
size_t cuda_sums_bytes(const struct sliced *cut);
/** Behind a launch that left `slices` rows of pairs there: folds them to a few rows. */
bool cuda_fold(const struct cuda_call *call, const struct sliced *cut, struct pair *sums, struct channel_pairs *out,
               struct error *err);
/** sum (channels) = the sums of a tensor over all but its channels, in that much scratch. */
bool cuda_channel_sum(const struct cuda_call *call, const struct channels *shape, enum dtype dtype, const void *src,
                      struct pair *scratch, float *sum, struct error *err);

/** Memory, streams and events: the slots of these names in struct device_ops. */
void *cuda_alloc(struct device *device, size_t bytes, struct error *err);
void cuda_free(struct device *device, void *memory);
void *cuda_host_alloc(struct device *device, size_t bytes, struct error *err);
void cuda_host_free(struct device *device, void *memory);
bool cuda_upload(struct device *device, void *dst, const void *src, size_t bytes, struct stream *stream,
                 struct error *err);
bool cuda_download(struct device *device, void *dst, const void *src, size_t bytes, struct stream *stream,
                   struct error *err);
bool cuda_copy(struct device *device, void *dst, const void *src, size_t bytes, struct stream *stream,
               struct error *err);
bool cuda_zero(struct device *device, void *dst, size_t bytes, struct stream *stream, struct error *err);
bool cuda_stream_create(struct device *device, struct stream **out, struct error *err);
void cuda_stream_destroy(struct device *device, struct stream *stream);
bool cuda_event_create(struct device *device, struct event **out, struct error *err);
void cuda_event_destroy(struct device *device, struct event *event);
bool cuda_event_record(struct device *device, struct event *event, struct stream *stream, struct error *err);
bool cuda_stream_wait(struct device *device, struct stream *stream, struct event *event, struct error *err);
int cuda_event_done(struct device *device, struct event *event, struct error *err);
bool cuda_synchronise(struct device *device, struct stream *stream, struct error *err);
bool cuda_record_begin(struct device *device, struct stream *stream, struct error *err);
struct recording *cuda_record_end(struct device *device, struct stream *stream, struct error *err);
bool cuda_recording_launch(struct device *device, struct recording *recording, struct stream *stream, struct error *err);
void cuda_recording_destroy(struct device *device, struct recording *recording);

/** Makes cuBLAS compute on that stream, in a workspace of the device's own. */
bool cuda_cublas_on(struct cuda_device *device, cudaStream_t stream, struct error *err);

/** Staging, for open and close. */
bool cuda_staging_init(struct cuda_device *device, struct error *err);
void cuda_staging_fini(struct cuda_device *device);
