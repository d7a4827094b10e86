#pragma once
#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * The emulation: a test double for the CUDA runtime, cuBLAS, cuDNN and NCCL on a CPU. These functions are exported by its
 * libcudart.so.13, beside those of CUDA; the other doubles are written on top of them, and tests find them by
 * dlsym(dlopen("libcudart.so.13", RTLD_NOW | RTLD_NOLOAD), NAME). Any thread may call any of them, except work itself
 * (the functions that a stream runs), which may call only those that say so.
 *
 * Time is made of what streams do. A stream has a vector clock; enqueueing work on it, recording and waiting for events and
 * waiting on the host order what happens. Host threads count as one, since their own locks cannot be seen. A finding is
 * something that a program must not do: see emulation_finding.
 */

/** What a double found wrong ends the process with, at its exit, whatever status it would have had. */
enum { EMULATION_EXIT_FINDING = 86 };

/* --- work on streams --- */

/** Memory that a piece of work reads, or writes (and perhaps reads). 0 bytes: nothing. */
struct emulation_range {
    const void *memory;
    size_t bytes;
    bool written;
};

/**
 * Queues work on a stream; NULL is the current device's legacy default stream. It runs later on that stream's own thread, in
 * the order of the stream, and may block, as NCCL's does, as long as what it waits for does not need this stream. ranges:
 * `count` of them, borrowed during the call. Each must lie in one live allocation: device memory of the stream's device, or
 * page-locked host memory. Each is compared with what earlier work on other streams does with the same bytes. name: a string
 * constant, for findings and the log. argument: `argument_bytes` bytes, copied; work gets the copy, aligned to 16 bytes.
 * cudaErrorInvalidResourceHandle where there is no such stream, cudaErrorIllegalAddress where a range is not right (both are
 * findings, and the work is dropped), or the device's sticky error.
 */
cudaError_t emulation_enqueue(cudaStream_t stream, const char *name, const struct emulation_range *ranges, int count,
                              void (*work)(void *argument), const void *argument, size_t argument_bytes);

/** The device that a stream belongs to (NULL: the current one), or -1 where there is no such stream, which is a finding. */
int emulation_stream_device(cudaStream_t stream, const char *who);

/** Whether all bytes lie in one live allocation that this device may use; else a finding in the name of `who`. Queues
 * nothing. */
bool emulation_check_range(int device, const char *who, const struct emulation_range *range);

/** A finding unless memory is a multiple of that many bytes. Returns whether it is. */
bool emulation_check_alignment(const char *who, const void *memory, size_t alignment);

/** The device's first final error, or cudaSuccess. Work may call it. */
cudaError_t emulation_device_error(int device);
/** Every later call on the device reports this error, as after a fault on a GPU. Work may call it. */
void emulation_set_device_error(int device, cudaError_t error);

/* --- findings --- */

/**
 * Prints one line on stderr, "emulation: " and the text, and makes the process end with EMULATION_EXIT_FINDING once it exits.
 * Work may call it.
 */
void emulation_finding(const char *format, ...) __attribute__((format(printf, 1, 2)));
/** How many there were. */
int emulation_findings(void);

/* --- handles: what a program creates and has to destroy --- */

/** Enters a handle of a kind ("cudnnHandle_t", "ncclComm_t"; a string constant). Those that are still there at exit are
 * findings. */
void emulation_handle_add(const char *kind, const void *handle);
/** Takes it out. False, and a finding in the name of `who`, where it is not one of this kind, or not any more. */
bool emulation_handle_remove(const char *kind, const void *handle, const char *who);
/** Whether it is a live handle of this kind; else a finding in the name of `who`. Does not look behind the pointer. */
bool emulation_handle_check(const char *kind, const void *handle, const char *who);

/* --- the log of calls --- */

enum emulation_call {
    EMULATION_LAUNCH,          /**< kernels of ours, by their names */
    EMULATION_ALLOCATION,      /**< of device memory, cudaFree included */
    EMULATION_HOST_ALLOCATION, /**< of page-locked memory, cudaFreeHost included */
    EMULATION_COPY,            /**< copies and fills, either way */
    EMULATION_SYNCHRONISATION, /**< the host waits: for a stream, an event, the device, or in a call that copies at once */
    EMULATION_ORDER,           /**< events recorded and waited for by streams */
    EMULATION_QUERY,           /**< the host asks and does not wait */
    EMULATION_CUDNN,           /**< work that cuDNN queues */
    EMULATION_CUBLAS,          /**< work that cuBLAS queues */
    EMULATION_NCCL,            /**< collectives */
    EMULATION_MATH,            /**< products that may run on tensor cores: "tf32", "narrow" */
    EMULATION_HANDLE,          /**< handles and descriptors made and destroyed, and set up */
    EMULATION_CALL_COUNT
};

/** Counts one call of that kind. name: a string constant, the function or the kernel ("cudaMalloc", "sgd_kernel"). */
void emulation_note(enum emulation_call kind, const char *name);
/** Calls of a kind, and of a name, since the start or the last clearing. */
int64_t emulation_calls(enum emulation_call kind);
int64_t emulation_calls_named(const char *name);
void emulation_clear_calls(void);

/* --- failures to order --- */

enum emulation_failure {
    EMULATION_FAIL_ALLOCATION,      /**< cudaMalloc: cudaErrorMemoryAllocation */
    EMULATION_FAIL_HOST_ALLOCATION, /**< cudaMallocHost: the same */
    EMULATION_FAIL_LAUNCH,          /**< a kernel of ours: a sticky cudaErrorIllegalAddress once the stream comes to it */
    EMULATION_REFUSE_NHWC,          /**< cuDNN has no algorithm for a convolution in NHWC that it is asked about */
    EMULATION_REFUSE_FUSED,         /**< cudnnConvolutionBiasActivationForward: CUDNN_STATUS_NOT_SUPPORTED */
    EMULATION_FAILURE_COUNT
};

/** The n-th such call from now fails, 1 being the next; 0: none does any more. */
void emulation_fail(enum emulation_failure failure, int64_t n);
/** For the doubles: counts down to an ordered failure, true where this call is the one. */
bool emulation_fails(enum emulation_failure failure);

/** A number that follows from THORAX_EMULATION_SEED and the numbers drawn before, for delays. Work may call it. */
uint32_t emulation_random(void);
