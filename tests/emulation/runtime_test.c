#include "common/device/cuda/kernels_body.h"
#include "tests/emulation/child.h"
#include "tests/emulation/emulation.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector_types.h>

#include <cmocka.h>

/* The emulated runtime: what it does as CUDA does, and that each of its checks fires. */

enum { COUNT = 1000, BYTES = COUNT * sizeof(float) };

static const char *const two_devices[] = {"THORAX_EMULATION_DEVICES=2", NULL};

static void ok(cudaError_t result) {
    child_require(result == cudaSuccess, cudaGetErrorString(result));
}

static float *allocate(void) {
    void *memory;
    ok(cudaMalloc(&memory, BYTES));
    return memory;
}

static cudaStream_t make_stream(void) {
    cudaStream_t stream;
    ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}

static cudaEvent_t make_event(void) {
    cudaEvent_t event;
    ok(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return event;
}

/* --- a kernel of ours, as nvcc's host code would launch it --- */

void __cudaRegisterFunction(void **handle, const char *stub, char *device_function, const char *device_name, int thread_limit,
                            uint3 *tid, uint3 *bid, dim3 *block, dim3 *grid, int *warp);

static cudaError_t launch_named(const char *name, const struct pointwise *k, int64_t count, cudaStream_t stream) {
    static char stubs[2];
    char *stub = &stubs[strcmp(name, "pointwise_kernel") != 0];
    void *arguments[] = {(void *)k, &count};
    __cudaRegisterFunction(NULL, stub, stub, name, -1, NULL, NULL, NULL, NULL, NULL);
    return cudaLaunchKernel(stub, (dim3){1, 1, 1}, (dim3){256, 1, 1}, arguments, 0, stream);
}

static cudaError_t launch(const float *from, float *to, int64_t count, cudaStream_t stream) {
    struct pointwise k = {.a = from, .dst = to, .dtype = DTYPE_F32, .activation = ACTIVATION_RELU, .width = 1};
    return launch_named("pointwise_kernel", &k, count, stream);
}

/* --- what is right --- */

static void behave_well(void) {
    float host[COUNT], back[COUNT];
    cudaStream_t first = make_stream(), second = make_stream();
    cudaEvent_t event = make_event();
    float *a = allocate(), *b = allocate();
    for (int i = 0; i < COUNT; i++)
        host[i] = (float)(i - COUNT / 2);
    ok(cudaMemcpyAsync(a, host, BYTES, cudaMemcpyHostToDevice, first));
    ok(cudaEventRecord(event, first));
    ok(cudaStreamWaitEvent(second, event, 0));
    ok(launch(a, b, COUNT, second));
    ok(cudaMemcpyAsync(back, b, BYTES, cudaMemcpyDeviceToHost, second));
    ok(cudaStreamSynchronize(second));
    for (int i = 0; i < COUNT; i++)
        child_require(back[i] == (host[i] > 0 ? host[i] : 0), "ReLU");
    ok(cudaFree(a));
    ok(cudaFree(b));
    ok(cudaEventDestroy(event));
    ok(cudaStreamDestroy(first));
    ok(cudaStreamDestroy(second));
}

static void a_right_program_is_left_alone(void **state) {
    (void)state;
    for (int seed = 0; seed < 5; seed++) {
        char text[40];
        struct outcome outcome;
        const char *environment[] = {text, NULL};
        snprintf(text, sizeof text, "THORAX_EMULATION_SEED=%d", seed);
        child_run(behave_well, environment, &outcome);
        assert_string_equal(outcome.stderr_text, "");
        assert_int_equal(outcome.status, 0);
    }
}

static void meet(void *argument) {
    pthread_barrier_wait(*(pthread_barrier_t **)argument);
}

/* Each stream's work waits for the other's: they end only where both run at once. */
static void run_at_once(void) {
    pthread_barrier_t barrier, *pointer = &barrier;
    cudaStream_t streams[] = {make_stream(), make_stream()};
    pthread_barrier_init(&barrier, NULL, 2);
    for (int i = 0; i < 2; i++)
        ok(emulation_enqueue(streams[i], "meet", NULL, 0, meet, &pointer, sizeof pointer));
    for (int i = 0; i < 2; i++) {
        ok(cudaStreamSynchronize(streams[i]));
        ok(cudaStreamDestroy(streams[i]));
    }
}

static void streams_run_at_once(void **state) {
    (void)state;
    assert_clean(run_at_once);
}

/* Work of blocking streams and of the default one waits for each other, a non-blocking stream's does not. */
static void use_default_stream(void) {
    cudaStream_t blocking;
    float *a = allocate();
    ok(cudaStreamCreate(&blocking));
    ok(cudaMemsetAsync(a, 0, BYTES, blocking));
    ok(cudaMemset(a, 1, BYTES));
    ok(cudaMemsetAsync(a, 2, BYTES, blocking));
    ok(cudaStreamSynchronize(blocking));
    ok(cudaFree(a));
    ok(cudaStreamDestroy(blocking));
}

static void the_default_stream_orders_blocking_ones(void **state) {
    (void)state;
    assert_clean(use_default_stream);
}

static void read_early(void) {
    float zero = 0, host = 7;
    pthread_barrier_t barrier, *pointer = &barrier;
    cudaStream_t stream = make_stream();
    float *a = allocate();
    pthread_barrier_init(&barrier, NULL, 2);
    ok(cudaMemcpyAsync(a, &zero, sizeof zero, cudaMemcpyHostToDevice, stream));
    ok(cudaStreamSynchronize(stream));
    ok(emulation_enqueue(stream, "meet", NULL, 0, meet, &pointer, sizeof pointer));
    ok(cudaMemcpyAsync(&host, a, sizeof host, cudaMemcpyDeviceToHost, stream));
    child_require(host != host, "a download's destination is garbage until it comes");
    child_require(cudaStreamQuery(stream) == cudaErrorNotReady, "the stream is busy");
    child_require(cudaGetLastError() == cudaErrorNotReady, "which is kept as the last error");
    pthread_barrier_wait(&barrier);
    ok(cudaStreamSynchronize(stream));
    child_require(host == 0, "and then it is there");
    ok(cudaFree(a));
    ok(cudaStreamDestroy(stream));
}

static void a_download_that_is_read_early_is_garbage(void **state) {
    (void)state;
    assert_clean(read_early);
}

static void read_fresh_memory(void) {
    float host = 0;
    float *a = allocate();
    ok(cudaMemcpy(&host, a, sizeof host, cudaMemcpyDeviceToHost));
    child_require(host != host, "fresh memory is garbage");
    ok(cudaFree(a));
}

static void fresh_memory_is_garbage(void **state) {
    (void)state;
    assert_clean(read_fresh_memory);
}

static void ask_attributes(void) {
    struct cudaPointerAttributes attributes;
    struct cudaDeviceProp properties;
    void *pinned;
    int count = 0, ordinary;
    float *a = allocate();
    ok(cudaMallocHost(&pinned, BYTES));
    ok(cudaPointerGetAttributes(&attributes, a + 1));
    child_require(attributes.type == cudaMemoryTypeDevice && attributes.device == 0, "device memory");
    ok(cudaPointerGetAttributes(&attributes, pinned));
    child_require(attributes.type == cudaMemoryTypeHost, "page-locked memory");
    ok(cudaPointerGetAttributes(&attributes, &ordinary));
    child_require(attributes.type == cudaMemoryTypeUnregistered, "ordinary memory");
    ok(cudaGetDeviceCount(&count));
    child_require(count == 2, "two devices");
    ok(cudaGetDeviceProperties(&properties, 1));
    child_require(strstr(properties.name, "emulation") != NULL, "the name says what it is");
    child_require(cudaSetDevice(2) == cudaErrorInvalidDevice, "there is no third");
    ok(cudaFreeHost(pinned));
    ok(cudaFree(a));
}

static void devices_and_pointers_are_described(void **state) {
    struct outcome outcome;
    (void)state;
    child_run(ask_attributes, two_devices, &outcome);
    assert_string_equal(outcome.stderr_text, "");
    assert_int_equal(outcome.status, 0);
}

/* --- memory --- */

static void use_freed(void) {
    float *a = allocate();
    ok(cudaFree(a));
    child_require(cudaMemset(a, 0, BYTES) == cudaErrorIllegalAddress, "an error");
}

static void exceed(void) {
    float *a = allocate(), *b = allocate();
    child_require(launch(a, b, COUNT + 1, NULL) == cudaErrorIllegalAddress, "an error");
}

static void pass_host_memory(void) {
    float host[COUNT];
    launch(host, allocate(), COUNT, NULL);
}

static void misalign(void) {
    float *a = allocate();
    launch((float *)((char *)a + 2), allocate(), COUNT / 2, NULL);
}

static void pass_null(void) {
    launch(NULL, allocate(), COUNT, NULL);
}

static void free_twice(void) {
    float *a = allocate();
    ok(cudaFree(a));
    cudaFree(a);
}

static void confuse_directions(void) {
    float host[COUNT];
    cudaMemcpy(allocate(), host, BYTES, cudaMemcpyDeviceToHost);
}

static void wrong_memory_is_found(void **state) {
    (void)state;
    assert_found(use_freed, "which was freed");
    assert_found(exceed, "pointwise_kernel reads 4004 bytes at 0 of an allocation of 4000: out of bounds");
    assert_found(pass_host_memory, "which is no memory of a device");
    assert_found(misalign, "is not a multiple of 4");
    assert_found(pass_null, "at NULL");
    assert_found(free_twice, "it was freed before");
    assert_found(confuse_directions, "says from a device to the host");
}

static void use_other_device(void) {
    cudaStream_t stream = make_stream();
    ok(cudaSetDevice(1));
    float *a = allocate();
    cudaMemsetAsync(a, 0, BYTES, stream);
}

static void launch_on_other_device(void) {
    cudaStream_t stream = make_stream();
    float *a = allocate(), *b = allocate();
    ok(cudaSetDevice(1));
    child_require(launch(a, b, COUNT, stream) == cudaErrorInvalidResourceHandle, "an error");
}

static void the_wrong_device_is_found(void **state) {
    struct outcome outcome;
    (void)state;
    child_run(use_other_device, two_devices, &outcome);
    assert_int_equal(outcome.status, EMULATION_EXIT_FINDING);
    assert_non_null(strstr(outcome.stderr_text, "on device 0, writes memory of device 1"));
    child_run(launch_on_other_device, two_devices, &outcome);
    assert_int_equal(outcome.status, EMULATION_EXIT_FINDING);
    assert_non_null(strstr(outcome.stderr_text, "on a stream of device 0 while device 1 is current"));
}

/* --- order --- */

/* Writes on one stream, then reads on another; how: what orders them. */
static void across(void (*how)(cudaStream_t from, cudaStream_t to, cudaEvent_t event)) {
    cudaStream_t from = make_stream(), to = make_stream();
    cudaEvent_t event = make_event();
    float *a = allocate(), *b = allocate();
    ok(cudaMemsetAsync(a, 0, BYTES, from));
    how(from, to, event);
    ok(launch(a, b, COUNT, to));
    ok(cudaDeviceSynchronize());
    ok(cudaFree(a));
    ok(cudaFree(b));
    ok(cudaEventDestroy(event));
    ok(cudaStreamDestroy(from));
    ok(cudaStreamDestroy(to));
}

static void by_nothing(cudaStream_t from, cudaStream_t to, cudaEvent_t event) {
    (void)from, (void)to, (void)event;
    usleep(20000); /* long enough for the values to be right, which is no excuse */
}

static void by_event(cudaStream_t from, cudaStream_t to, cudaEvent_t event) {
    ok(cudaEventRecord(event, from));
    ok(cudaStreamWaitEvent(to, event, 0));
}

static void by_wrong_stream(cudaStream_t from, cudaStream_t to, cudaEvent_t event) {
    (void)from;
    ok(cudaEventRecord(event, to));
    ok(cudaStreamWaitEvent(to, event, 0));
}

static void by_unrecorded(cudaStream_t from, cudaStream_t to, cudaEvent_t event) {
    ok(cudaStreamWaitEvent(to, event, 0));
    ok(cudaEventRecord(event, from));
}

static void by_host(cudaStream_t from, cudaStream_t to, cudaEvent_t event) {
    (void)to;
    ok(cudaEventRecord(event, from));
    ok(cudaEventSynchronize(event));
}

static void unordered(void) {
    across(by_nothing);
}

static void ordered_by_event(void) {
    across(by_event);
}

static void ordered_wrongly(void) {
    across(by_wrong_stream);
}

static void ordered_too_late(void) {
    across(by_unrecorded);
}

static void ordered_by_host(void) {
    across(by_host);
}

static void missing_order_between_streams_is_found(void **state) {
    static const char text[] =
        "pointwise_kernel reads bytes 0 to 4000 of an allocation that cudaMemsetAsync writes on another stream";
    (void)state;
    assert_found(unordered, text);
    assert_found(ordered_wrongly, text);
    assert_found(ordered_too_late, "the event was never recorded");
    assert_clean(ordered_by_event);
    assert_clean(ordered_by_host);
}

static void change_source(void) {
    float host[COUNT] = {0};
    pthread_barrier_t barrier, *pointer = &barrier;
    cudaStream_t stream = make_stream();
    pthread_barrier_init(&barrier, NULL, 2);
    ok(emulation_enqueue(stream, "meet", NULL, 0, meet, &pointer, sizeof pointer));
    ok(cudaMemcpyAsync(allocate(), host, BYTES, cudaMemcpyHostToDevice, stream));
    host[COUNT - 1] = 1;
    pthread_barrier_wait(&barrier);
    ok(cudaStreamSynchronize(stream));
}

static void a_source_that_is_changed_too_soon_is_found(void **state) {
    (void)state;
    assert_found(change_source, "while their upload was still to come");
}

/* --- states --- */

static void use_destroyed_stream(void) {
    cudaStream_t stream = make_stream();
    ok(cudaStreamDestroy(stream));
    child_require(cudaStreamSynchronize(stream) == cudaErrorInvalidResourceHandle, "an error");
}

static void use_destroyed_event(void) {
    cudaEvent_t event = make_event();
    ok(cudaEventDestroy(event));
    cudaEventRecord(event, NULL);
}

static void use_no_stream(void) {
    int something;
    cudaStreamQuery((cudaStream_t)&something);
}

static void time_without_timing(void) {
    float ms;
    cudaEventElapsedTime(&ms, make_event(), make_event());
}

static void launch_unknown(void) {
    struct pointwise k = {.a = allocate(), .dst = allocate(), .dtype = DTYPE_F32, .width = 1};
    launch_named("nobodys_kernel", &k, COUNT, NULL);
}

static void use_in_fork(void) {
    int status;
    ok(cudaFree(allocate()));
    pid_t pid = fork();
    if (pid == 0)
        cudaGetLastError();
    waitpid(pid, &status, 0);
    child_require(WEXITSTATUS(status) == EMULATION_EXIT_FINDING, "the fork was ended");
}

static void calls_in_a_wrong_state_are_found(void **state) {
    struct outcome outcome;
    (void)state;
    assert_found(use_destroyed_stream, "is no stream any more: it was destroyed");
    assert_found(use_destroyed_event, "is no event any more: it was destroyed");
    assert_found(use_no_stream, "is no stream");
    assert_found(time_without_timing, "never recorded, or was made without timing");
    assert_found(launch_unknown, "nobodys_kernel has no body for the CPU");
    child_run(use_in_fork, NULL, &outcome);
    assert_non_null(strstr(outcome.stderr_text, "is now used in its fork"));
}

/* --- leaks --- */

static void leak_memory(void) {
    allocate();
}

static void leak_pinned_memory(void) {
    void *memory;
    ok(cudaMallocHost(&memory, BYTES));
}

static void leak_stream(void) {
    make_stream();
}

static void leak_event(void) {
    make_event();
}

static void leaks_are_found_at_exit(void **state) {
    (void)state;
    assert_found(leak_memory, "4000 bytes of device memory were never freed");
    assert_found(leak_pinned_memory, "4000 bytes of page-locked memory were never freed");
    assert_found(leak_stream, "a cudaStream_t");
    assert_found(leak_event, "a cudaEvent_t");
}

/* --- failures to order --- */

static void run_out(void) {
    void *memory;
    emulation_fail(EMULATION_FAIL_ALLOCATION, 2);
    float *a = allocate();
    child_require(cudaMalloc(&memory, BYTES) == cudaErrorMemoryAllocation && !memory, "the second fails");
    child_require(cudaGetLastError() == cudaErrorMemoryAllocation && cudaGetLastError() == cudaSuccess, "and is told once");
    float *b = allocate();
    ok(cudaFree(a));
    ok(cudaFree(b));
}

static void run_out_of_little(void) {
    void *memory;
    child_require(cudaMalloc(&memory, (size_t)3 << 20) == cudaErrorMemoryAllocation, "more than there is");
}

static void fault(void) {
    cudaStream_t stream = make_stream();
    float *a = allocate(), *b = allocate();
    ok(launch(a, b, COUNT, stream));
    launch(a, b, COUNT, stream);
    child_require(cudaStreamSynchronize(stream) == cudaErrorIllegalAddress, "the second launch faults");
    child_require(cudaGetLastError() == cudaErrorIllegalAddress, "for this call");
    child_require(launch(a, b, COUNT, stream) == cudaErrorIllegalAddress, "and for all that follow");
    child_require(cudaGetLastError() == cudaErrorIllegalAddress, "for ever");
    cudaFree(a);
    cudaFree(b);
    cudaStreamDestroy(stream);
}

static void failures_come_when_they_are_ordered(void **state) {
    static const char *const fail_second[] = {"THORAX_EMULATION_FAIL_LAUNCH=2", NULL};
    static const char *const little[] = {"THORAX_EMULATION_MEMORY_MIB=2", NULL};
    struct outcome outcome;
    (void)state;
    assert_clean(run_out);
    child_run(run_out_of_little, little, &outcome);
    assert_int_equal(outcome.status, 0);
    child_run(fault, fail_second, &outcome);
    assert_string_equal(outcome.stderr_text, "");
    assert_int_equal(outcome.status, 0);
}

/* --- the log --- */

static void count_calls(void) {
    behave_well();
    child_require(emulation_calls(EMULATION_LAUNCH) == 1 && emulation_calls_named("pointwise_kernel") == 1, "launches");
    child_require(emulation_calls_named("cudaMalloc") == 2 && emulation_calls(EMULATION_ALLOCATION) == 4, "allocations");
    child_require(emulation_calls(EMULATION_SYNCHRONISATION) == 1 && emulation_calls(EMULATION_COPY) == 2,
                  "waits and copies");
    emulation_clear_calls();
    child_require(emulation_calls(EMULATION_LAUNCH) == 0, "cleared");
}

static void calls_are_counted(void **state) {
    (void)state;
    assert_clean(count_calls);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_program_is_left_alone),
        cmocka_unit_test(streams_run_at_once),
        cmocka_unit_test(the_default_stream_orders_blocking_ones),
        cmocka_unit_test(a_download_that_is_read_early_is_garbage),
        cmocka_unit_test(fresh_memory_is_garbage),
        cmocka_unit_test(devices_and_pointers_are_described),
        cmocka_unit_test(wrong_memory_is_found),
        cmocka_unit_test(the_wrong_device_is_found),
        cmocka_unit_test(missing_order_between_streams_is_found),
        cmocka_unit_test(a_source_that_is_changed_too_soon_is_found),
        cmocka_unit_test(calls_in_a_wrong_state_are_found),
        cmocka_unit_test(leaks_are_found_at_exit),
        cmocka_unit_test(failures_come_when_they_are_ordered),
        cmocka_unit_test(calls_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
