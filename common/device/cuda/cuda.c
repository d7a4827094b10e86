#include "common/device/cuda/cuda.h"
#include "common/device/cuda/algorithm_cache.h"
#include "common/device/cuda/int8.h"
#include "common/op/precision.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_GPUS = 64 };
enum { CUBLAS_WORKSPACE_BYTES = 32 << 20 /* what cuBLAS recommends for Hopper; less is enough before */ };

static const struct cuda_row *const rows[OP_KIND_COUNT] = {
    [OP_CONV2D] = &cuda_conv2d,
    [OP_BATCH_NORM] = &cuda_batch_norm,
    [OP_BATCH_NORM_SUMS] = &cuda_batch_norm_sums,
    [OP_ACTIVATION] = &cuda_activation,
    [OP_ADD] = &cuda_add,
    [OP_MAX_POOL] = &cuda_max_pool,
    [OP_GLOBAL_AVERAGE_POOL] = &cuda_global_average_pool,
    [OP_LINEAR] = &cuda_linear,
    [OP_DROPOUT] = &cuda_dropout,
    [OP_SOFTMAX_CROSS_ENTROPY] = &cuda_softmax_cross_entropy,
    [OP_VARY] = &cuda_vary,
    [OP_REORDER] = &cuda_reorder,
    [OP_GRADIENT_NORM] = &cuda_gradient_norm,
    [OP_SGD] = &cuda_sgd,
    [OP_ADAMW] = &cuda_adamw,
};

/** The forms for 8-bit integers. */
static const struct cuda_row *const int8_rows[OP_KIND_COUNT] = {
    [OP_CONV2D] = &cuda_int8_conv2d,
    [OP_MAX_POOL] = &cuda_int8_max_pool,
    [OP_GLOBAL_AVERAGE_POOL] = &cuda_int8_average_pool,
    [OP_RESCALE] = &cuda_rescale,
};

static const struct cuda_row *row_of(const struct kernel_request *request) {
    const struct tensor_desc *desc = request->args.desc;
    if (request->op.kind == OP_REORDER && desc[ARG_DST].layout == &cuda_packed)
        return &cuda_packing;
    if (request->op.kind == OP_REORDER && dtype_size(desc[ARG_SRC].dtype) == 1)
        return &cuda_int8_reorder;
    return (op_is_int8(&request->op) ? int8_rows : rows)[request->op.kind];
}

struct cuda_device *cuda_device_of(struct device *device) {
    return (struct cuda_device *)device;
}

cudaStream_t cuda_stream_of(const struct cuda_device *device, struct stream *stream) {
    return stream ? (cudaStream_t)stream : device->stream;
}

/* --- errors --- */

bool cuda_check(struct cuda_device *device, cudaError_t result, const char *what, struct error *err) {
    if (result == cudaSuccess)
        return true;
    struct error cause = {0};
    cudaGetLastError(); /* it is reported here: nobody should find it later */
    cuda_ok(result, what, &cause);
    error_prefix(&cause, "GPU %d", device->index);
    if (device->failure.code != ERROR_NONE)
        cause = device->failure;
    else if (cuda_error_is_final(result)) {
        cause.code = ERROR_LOST;
        error_hint(&cause, "the process cannot use this GPU any more: start it anew");
        device->failure = cause;
    }
    if (err)
        *err = cause;
    return false;
}

bool cuda_enter(struct cuda_device *device, struct error *err) {
    if (device->failure.code != ERROR_NONE) {
        if (err)
            *err = device->failure;
        return false;
    }
    return cuda_check(device, cudaSetDevice(device->index), "cudaSetDevice", err);
}

/* --- opening --- */

static bool available(struct error *err) {
    int count = 0;
    if (!cuda_ok(cudaGetDeviceCount(&count), "no usable NVIDIA GPU", err)) {
        cudaGetLastError();
        return false;
    }
    return count > 0 || error_set(err, ERROR_UNSUPPORTED, "no usable NVIDIA GPU: the driver lists none");
}

static int count_devices(void) {
    int count = 0;
    return cuda_ok(cudaGetDeviceCount(&count), "cudaGetDeviceCount", NULL) ? count : 0;
}

static bool describe(struct cuda_device *device, struct error *err) {
    struct cudaDeviceProp properties;
    int driver = 0;
    if (!cuda_check(device, cudaGetDeviceProperties(&properties, device->index), "cudaGetDeviceProperties",
                    err) ||
        !cuda_check(device, cudaDriverGetVersion(&driver), "cudaDriverGetVersion", err))
        return false;
    device->memory_bytes = properties.totalGlobalMem;
    int length = snprintf(device->name, sizeof device->name, "cuda %d.%d cudnn %zu%s %s sm_%d%d", driver / 1000,
                          driver % 1000 / 10, cudnnGetVersion(), device->tf32 ? " tf32" : "", properties.name,
                          properties.major, properties.minor);
    return length > 0 || error_set(err, ERROR_INTERNAL, "the GPU cannot be described");
}

/** cuBLAS multiplies f32 as f32 unless told; cuDNN is told for each convolution. */
static bool open_libraries(struct cuda_device *device, struct error *err) {
    cublasMath_t math = device->tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH;
    return cudnn_ok(cudnnCreate(&device->cudnn), "cudnnCreate", err) &&
           cudnn_ok(cudnnSetStream(device->cudnn, device->stream), "cudnnSetStream", err) &&
           cublas_ok(cublasCreate(&device->cublas), "cublasCreate", err) &&
           cublas_ok(cublasSetMathMode(device->cublas, math), "cublasSetMathMode", err) &&
           (device->cublas_workspace = cuda_alloc(&device->base, CUBLAS_WORKSPACE_BYTES, err));
}

/*
 * In a captured graph cuBLAS would allocate its workspace anew at each launch. To set the stream is to lose the workspace.
 */
bool cuda_cublas_on(struct cuda_device *device, cudaStream_t stream, struct error *err) {
    return cublas_ok(cublasSetStream(device->cublas, stream), "cublasSetStream", err) &&
           cublas_ok(cublasSetWorkspace(device->cublas, device->cublas_workspace, CUBLAS_WORKSPACE_BYTES),
                     "cublasSetWorkspace", err);
}

static void close_device(struct device *device) {
    struct cuda_device *cuda = cuda_device_of(device);
    if (cuda_enter(cuda, NULL)) {
        if (cuda->stream)
            cudaStreamSynchronize(cuda->stream);
        if (cuda->cublas)
            cublasDestroy(cuda->cublas);
        if (cuda->cudnn)
            cudnnDestroy(cuda->cudnn);
        cudaFree(cuda->cublas_workspace);
        algorithm_cache_close(cuda->algorithms);
        cuda_staging_fini(cuda);
        if (cuda->stream)
            cudaStreamDestroy(cuda->stream);
    }
    free(cuda);
}

/** All memory of one GPU is one, and layouts are the same objects for all devices: whoever is on the same GPU shares. */
static bool join_family(struct cuda_device *device, const struct device *share, struct error *err) {
    static const char families[MAX_GPUS];
    device->base.family = &families[device->index];
    return !share || share->family == device->base.family ||
           error_set(err, ERROR_UNSUPPORTED, "GPU %d cannot share with a device on another GPU", device->index);
}

static bool set_up(struct cuda_device *device, struct error *err) {
    int count = 0;
    if (!cuda_check(device, cudaGetDeviceCount(&count), "cudaGetDeviceCount", err))
        return false;
    if (device->index >= count)
        return error_set(err, ERROR_NOT_FOUND, "there is no GPU %d: this machine has %d (0 to %d)",
                         device->index, count, count - 1);
    if (device->index >= MAX_GPUS)
        return error_set(err, ERROR_UNSUPPORTED, "GPU %d: the first %d can be used", device->index, MAX_GPUS);
    return cuda_enter(device, err) && describe(device, err) &&
           cuda_check(device, cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking),
                      "cudaStreamCreateWithFlags", err) &&
           cuda_staging_init(device, err) && open_libraries(device, err);
}

static struct device *open_device(const struct device_spec *spec, struct error *err) {
    struct cuda_device *device = calloc(1, sizeof *device);
    if (!device) {
        error_set(err, ERROR_MEMORY, "out of memory for a device");
        return NULL;
    }
    device->base.ops = &cuda_device_ops;
    device->index = spec->index;
    device->deterministic = spec->deterministic;
    device->kernel_by_kernel = spec->kernel_by_kernel;
    device->tf32 = spec->tf32;
    bool measures = spec->algorithm_cache && *spec->algorithm_cache;
    if (set_up(device, err) && join_family(device, spec->share, err) &&
        (!measures || (device->algorithms = algorithm_cache_open(spec->algorithm_cache, err))))
        return &device->base;
    close_device(&device->base);
    return NULL;
}

static void info(struct device *device, struct device_info *out) {
    struct cuda_device *cuda = cuda_device_of(device);
    *out = (struct device_info){.memory_bytes = cuda->memory_bytes,
                                .int8_weight_bits = 8,
                                .rounds_sums = true,
                                .records = !cuda->kernel_by_kernel};
    size_t total;
    if (!cuda_enter(cuda, NULL) || cudaMemGetInfo(&out->free_bytes, &total) != cudaSuccess)
        cudaGetLastError();
    snprintf(out->name, sizeof out->name, "%s", cuda->name);
}

/* --- kernels --- */

static bool is_real(enum dtype dtype) {
    return dtype == DTYPE_F32 || dtype == DTYPE_BF16 || dtype == DTYPE_F16;
}

static bool dtypes_fit(const struct kernel_request *request) {
    static const enum arg doubles[] = {ARG_NORM, ARG_SUMS};
    const struct op_args *args = &request->args;
    if (request->op.kind == OP_REORDER)
        return is_real(args->desc[ARG_SRC].dtype) && is_real(args->desc[ARG_DST].dtype);
    for (int i = 0; i < 2; i++)
        if (args->direction[doubles[i]] != ARG_ABSENT && args->desc[doubles[i]].dtype != DTYPE_F64)
            return false;
    return precision_fits(PRECISION_F32, &request->op, args) || precision_fits(PRECISION_BF16, &request->op, args) ||
           precision_fits(PRECISION_F16, &request->op, args);
}

/** Canonical, open, channels last, or the packed weights of an 8-bit convolution. */
static bool layout_fits(const struct tensor_desc *desc) {
    return !desc->layout || desc->layout == LAYOUT_ANY || desc->layout == &cuda_nhwc ||
           (desc->layout == &cuda_packed && desc->dtype == DTYPE_S8);
}

static bool supports(struct device *device, const struct kernel_request *request) {
    const struct cuda_row *row = row_of(request);
    (void)device;
    if (!row || !row->run[request->pass] || !(row->integers || dtypes_fit(request)))
        return false;
    for (enum arg arg = ARG_NONE + 1; arg < ARG_COUNT; arg++) {
        if (request->args.direction[arg] != ARG_ABSENT && !layout_fits(&request->args.desc[arg]))
            return false;
    }
    return !row->supports || row->supports(request);
}

static void release(struct kernel *kernel) {
    struct cuda_kernel *cuda = (struct cuda_kernel *)kernel;
    if (cuda->row->release && cuda_enter(cuda_device_of(kernel->device), NULL))
        cuda->row->release(cuda);
    free(cuda);
}

static struct kernel *prepare(struct device *device, const struct kernel_request *request,
                              struct error *err) {
    const struct cuda_row *row = row_of(request);
    struct cuda_kernel *kernel = calloc(1, row->kernel_size ? row->kernel_size : sizeof *kernel);
    if (!kernel) {
        error_set(err, ERROR_MEMORY, "out of memory for a kernel");
        return NULL;
    }
    kernel->row = row;
    kernel->base = (struct kernel){.device = device,
                                   .op = request->op,
                                   .pass = request->pass,
                                   .args = request->args,
                                   .implementation = "thorax"};
    cuda_set_layouts(kernel, !row->canonical && cuda_request_is_last(request));
    if (cuda_enter(cuda_device_of(device), err) && (!row->prepare || row->prepare(kernel, request, err)))
        return &kernel->base;
    release(&kernel->base);
    return NULL;
}

static bool run(struct kernel *kernel, void *const buffers[ARG_COUNT], struct stream *stream,
                struct error *err) {
    struct cuda_device *device = cuda_device_of(kernel->device);
    struct cuda_kernel *cuda = (struct cuda_kernel *)kernel;
    struct cuda_call call = {cuda, device, buffers, cuda_stream_of(device, stream)};
    return cuda_enter(device, err) && cuda->row->run[kernel->pass](&call, err);
}

void *cuda_buffer(const struct cuda_call *call, enum arg arg) {
    return call->kernel->base.args.direction[arg] != ARG_ABSENT ? call->buffers[arg] : NULL;
}

const int64_t *cuda_dims(const struct cuda_call *call, enum arg arg) {
    return call->kernel->base.args.desc[arg].shape.dims;
}

int64_t cuda_count(const struct cuda_call *call, enum arg arg) {
    return shape_count(&call->kernel->base.args.desc[arg].shape);
}

enum dtype cuda_dtype(const struct cuda_call *call, enum arg arg) {
    return call->kernel->base.args.desc[arg].dtype;
}

void cuda_set_private(struct cuda_kernel *kernel, enum arg arg, size_t bytes) {
    struct shape shape = shape_of(1, (int64_t)bytes);
    struct op_args *args = &kernel->base.args;
    if (arg == ARG_SCRATCH)
        args->direction[arg] = bytes ? ARG_OUT : ARG_ABSENT;
    if (args->direction[arg] != ARG_ABSENT)
        args->desc[arg] = tensor_desc_dense(DTYPE_U8, &shape);
}

bool cuda_launched(const struct cuda_call *call, cudaError_t result, struct error *err) {
    return cuda_check(call->device, result, op_kind_name(call->kernel->base.op.kind), err);
}

const struct device_ops cuda_device_ops = {
    .name = "cuda",
    .shares = true,
    .available = available,
    .count = count_devices,
    .open = open_device,
    .close = close_device,
    .info = info,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .host_alloc = cuda_host_alloc,
    .host_free = cuda_host_free,
    .upload = cuda_upload,
    .download = cuda_download,
    .copy = cuda_copy,
    .zero = cuda_zero,
    .stream_create = cuda_stream_create,
    .stream_destroy = cuda_stream_destroy,
    .event_create = cuda_event_create,
    .event_destroy = cuda_event_destroy,
    .event_record = cuda_event_record,
    .stream_wait = cuda_stream_wait,
    .event_done = cuda_event_done,
    .synchronise = cuda_synchronise,
    .record_begin = cuda_record_begin,
    .record_end = cuda_record_end,
    .recording_launch = cuda_recording_launch,
    .recording_destroy = cuda_recording_destroy,
    .supports = supports,
    .prepare = prepare,
    .run = run,
    .release = release,
    .layout_text = cuda_layout_text,
};
