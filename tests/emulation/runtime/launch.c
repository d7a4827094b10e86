#include "tests/emulation/runtime/kernels.h"
#include "tests/emulation/runtime/state.h"

#include <stdio.h>
#include <string.h>
#include <vector_types.h>

/* What nvcc's host code calls: kernels are registered by their names, and launched by the addresses of their stubs. */

enum { MOST_FUNCTIONS = 256, MOST_ARGUMENT_BYTES = 512, BLOCK_THREADS = 1024 };

void **__cudaRegisterFatBinary(void *image);
void __cudaRegisterFatBinaryEnd(void **handle);
void __cudaUnregisterFatBinary(void **handle);
char __cudaInitModule(void **handle);
void __cudaRegisterFunction(void **handle, const char *stub, char *device_function, const char *device_name, int thread_limit,
                            uint3 *tid, uint3 *bid, dim3 *block, dim3 *grid, int *warp);
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, struct CUstream_st *stream);
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared_bytes, void *stream);
cudaError_t __cudaGetKernel(cudaKernel_t *out, const void *stub);
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared_bytes,
                               cudaStream_t stream);

/* --- registration; under the lock --- */

struct CUkern_st {
    const void *stub;
    const char *name;
    const struct kernel_row *row; /* NULL: there is no body for the CPU */
};

static struct {
    struct CUkern_st rows[MOST_FUNCTIONS];
    int count;
} functions;

/** Nothing needs the code for GPUs, so all images are one. */
void **__cudaRegisterFatBinary(void *image) {
    static void *only;
    only = image;
    return &only;
}

void __cudaRegisterFatBinaryEnd(void **handle) {
    (void)handle;
}

void __cudaUnregisterFatBinary(void **handle) {
    (void)handle;
}

char __cudaInitModule(void **handle) {
    return handle != NULL;
}

void __cudaRegisterFunction(void **handle, const char *stub, char *device_function, const char *device_name, int thread_limit,
                            uint3 *tid, uint3 *bid, dim3 *block, dim3 *grid, int *warp) {
    (void)handle, (void)device_function, (void)thread_limit, (void)tid, (void)bid, (void)block, (void)grid, (void)warp;
    if (functions.count < MOST_FUNCTIONS) /* the loader runs constructors one by one */
        functions.rows[functions.count++] = (struct CUkern_st){stub, device_name, kernel_find(device_name)};
}

cudaError_t __cudaGetKernel(cudaKernel_t *out, const void *stub) {
    for (int i = 0; i < functions.count; i++)
        if (functions.rows[i].stub == stub) {
            *out = &functions.rows[i];
            return give(cudaSuccess);
        }
    emulation_finding("a kernel was launched that nobody registered");
    return give(cudaErrorInvalidDeviceFunction);
}

/* --- the configuration between <<< and >>> --- */

static _Thread_local struct {
    dim3 grid, block;
    size_t shared_bytes;
    struct CUstream_st *stream;
} pushed;

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, struct CUstream_st *stream) {
    pushed.grid = grid;
    pushed.block = block;
    pushed.shared_bytes = shared_bytes;
    pushed.stream = stream;
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared_bytes, void *stream) {
    *grid = pushed.grid;
    *block = pushed.block;
    *shared_bytes = pushed.shared_bytes;
    *(struct CUstream_st **)stream = pushed.stream;
    return cudaSuccess;
}

/* --- launching --- */

struct launch {
    const struct kernel_row *row;
    int64_t count;
    int device;
    bool backwards, faults;
    _Alignas(16) char arguments[MOST_ARGUMENT_BYTES];
};

static void run_launch(void *argument) {
    const struct launch *launch = argument;
    if (launch->faults)
        emulation_set_device_error(launch->device, cudaErrorIllegalAddress);
    else
        launch->row->run(launch->arguments, launch->count, launch->backwards);
}

/** What may differ between launches of a graph: the order of the elements, and whether a failure is due. With the lock. */
static void prepare_launch(struct CUstream_st *stream, void *argument) {
    struct launch *launch = argument;
    (void)stream;
    launch->backwards = emulation_random() % 2;
    launch->faults = failure_is_due(EMULATION_FAIL_LAUNCH);
}

static bool configuration_is_right(dim3 grid, dim3 block) {
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    bool blocks = grid.x > 0 && grid.x <= INT32_MAX && grid.y > 0 && grid.y < 1 << 16 && grid.z > 0 && grid.z < 1 << 16;
    return blocks && threads > 0 && threads <= BLOCK_THREADS;
}

/** With the lock. The current device must be the stream's. */
static cudaError_t queue_launch(const struct kernel_row *row, const struct launch *launch, const struct declaration *uses,
                                cudaStream_t stream) {
    const struct work_spec spec = {.name = row->name,
                                   .run = run_launch,
                                   .prepare = prepare_launch,
                                   .argument = launch,
                                   .argument_bytes = sizeof *launch};
    struct CUstream_st *found = stream_find(stream, row->name);
    if (!found)
        return cudaErrorInvalidResourceHandle;
    if (found->device != device_current()) {
        emulation_finding("%s: launched on a stream of device %d while device %d is current", row->name, found->device,
                          device_current());
        return cudaErrorInvalidResourceHandle;
    }
    return stream_enqueue(found, &spec, uses->ranges, uses->count);
}

/** Every kernel of ours takes its struct and the number of elements. */
static cudaError_t launch(const struct kernel_row *row, void **arguments, cudaStream_t stream) {
    struct launch launch = {.row = row};
    struct declaration uses = {.kernel = row->name, .right = true};
    memcpy(launch.arguments, arguments[0], row->argument_bytes);
    memcpy(&launch.count, arguments[1], sizeof launch.count);
    row->declare(launch.arguments, launch.count, &uses);
    if (!uses.right)
        return cudaErrorMisalignedAddress;
    state_lock();
    launch.device = device_current();
    cudaError_t result = queue_launch(row, &launch, &uses, stream);
    state_unlock();
    return result;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared_bytes,
                               cudaStream_t stream) {
    (void)shared_bytes;
    emulation_note(EMULATION_LAUNCH, kernel->name);
    if (!configuration_is_right(grid, block))
        return give(cudaErrorInvalidConfiguration);
    if (!kernel->row || kernel->row->argument_bytes > MOST_ARGUMENT_BYTES) {
        emulation_finding("%s has no body for the CPU, or its arguments are too long", kernel->name);
        return give(cudaErrorInvalidDeviceFunction);
    }
    return give(launch(kernel->row, arguments, stream));
}

cudaError_t cudaLaunchKernel(const void *stub, dim3 grid, dim3 block, void **arguments, size_t shared_bytes,
                             cudaStream_t stream) {
    cudaKernel_t kernel;
    cudaError_t result = __cudaGetKernel(&kernel, stub);
    return result == cudaSuccess ? __cudaLaunchKernel(kernel, grid, block, arguments, shared_bytes, stream) : result;
}
