#include "tests/emulation/fixture.h"

#include <pthread.h>
#include <string.h>

/* Captured streams and graphs in the emulated runtime: what they do as CUDA's do, and that each check fires. */

static cudaStream_t begin(void) {
    cudaStream_t stream = make_stream();
    ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    return stream;
}

/** Ends the capture and makes its graph an executable. */
static cudaGraphExec_t end(cudaStream_t stream) {
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    ok(cudaStreamEndCapture(stream, &graph));
    ok(cudaGraphInstantiate(&executable, graph, 0));
    ok(cudaGraphDestroy(graph));
    return executable;
}

/** The capture gave nothing, and the stream is of use again. */
static void end_without(cudaStream_t stream, cudaError_t reason) {
    cudaGraph_t graph;
    child_require(cudaStreamEndCapture(stream, &graph) == reason && !graph, cudaGetErrorName(reason));
    ok(cudaStreamSynchronize(stream));
}

/* --- what is right --- */

struct numbers {
    float *pinned, *device, *result;
};

static void make_numbers(struct numbers *out) {
    void *memory;
    ok(cudaMallocHost(&memory, 2 * (size_t)BYTES));
    *out = (struct numbers){memory, allocate(), allocate()};
}

static void free_numbers(const struct numbers *numbers) {
    ok(cudaFreeHost(numbers->pinned));
    ok(cudaFree(numbers->device));
    ok(cudaFree(numbers->result));
}

static void twice(void *argument) {
    float *value = *(float **)argument;
    for (int i = 0; i < COUNT; i++)
        value[i] *= 2;
    *(float **)argument = NULL; /* the next launch gets an argument of its own */
}

static void capture_all_kinds(const struct numbers *n, cudaStream_t stream) {
    struct emulation_range range = {n->device, BYTES, true};
    ok(cudaMemsetAsync(n->result, 0xFF, BYTES, stream));
    ok(cudaMemcpyAsync(n->device, n->pinned, BYTES, cudaMemcpyHostToDevice, stream));
    ok(emulation_enqueue(stream, "twice", &range, 1, twice, &n->device, sizeof n->device));
    ok(launch(n->device, n->result, COUNT, stream));
    ok(cudaMemcpyAsync(n->pinned + COUNT, n->result, BYTES, cudaMemcpyDeviceToHost, stream));
}

/* Nothing runs while it is captured; then each launch reads what the host's memory holds by then. */
static void launch_again_and_again(void) {
    struct numbers n;
    make_numbers(&n);
    n.pinned[COUNT] = -1;
    cudaStream_t stream = begin();
    capture_all_kinds(&n, stream);
    cudaGraphExec_t executable = end(stream);
    ok(cudaStreamSynchronize(stream));
    child_require(n.pinned[COUNT] == -1, "nothing ran yet");
    ok(cudaGraphUpload(executable, stream));
    emulation_clear_calls();
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++)
            n.pinned[i] = (float)(i - round);
        ok(cudaGraphLaunch(executable, stream));
        ok(cudaStreamSynchronize(stream));
        for (int i = 0; i < COUNT; i++)
            child_require(n.pinned[COUNT + i] == (i > round ? 2 * (float)(i - round) : 0), "what the graph computes");
    }
    child_require(emulation_calls(EMULATION_GRAPH) == 3 && emulation_calls(EMULATION_LAUNCH) == 0, "only graphs are launched");
    ok(cudaGraphExecDestroy(executable));
    ok(cudaStreamDestroy(stream));
    free_numbers(&n);
}

static void a_graph_does_at_each_launch_what_was_captured(void **state) {
    (void)state;
    assert_clean(launch_again_and_again);
}

/* Another stream takes part by events; then launches on two streams are ordered by the executable itself. */
static void fork_and_join(void) {
    struct numbers n;
    make_numbers(&n);
    memset(n.pinned, 0, BYTES);
    cudaStream_t other = make_stream(), stream = begin();
    cudaEvent_t fork = make_event(), join = make_event();
    ok(cudaMemcpyAsync(n.device, n.pinned, BYTES, cudaMemcpyHostToDevice, stream));
    ok(cudaEventRecord(fork, stream));
    ok(cudaStreamWaitEvent(other, fork, 0));
    ok(launch(n.device, n.result, COUNT, other));
    ok(cudaEventRecord(join, other));
    ok(cudaStreamWaitEvent(stream, join, 0));
    ok(cudaMemsetAsync(n.device, 1, BYTES, stream));
    cudaGraphExec_t executable = end(stream);
    ok(cudaGraphLaunch(executable, stream));
    ok(cudaGraphLaunch(executable, other));
    ok(cudaGraphExecDestroy(executable));
    ok(cudaDeviceSynchronize());
    ok(cudaEventRecord(fork, stream)); /* an event outside of captures again */
    ok(cudaEventSynchronize(fork));
    ok(cudaEventDestroy(fork));
    ok(cudaEventDestroy(join));
    ok(cudaStreamDestroy(stream));
    ok(cudaStreamDestroy(other));
    free_numbers(&n);
}

static void a_capture_spreads_by_events(void **state) {
    (void)state;
    assert_clean(fork_and_join);
}

static void *allocate_and_wait(void *argument) {
    cudaStream_t stream = make_stream();
    (void)argument;
    ok(cudaFree(allocate()));
    ok(cudaStreamSynchronize(stream));
    ok(cudaStreamDestroy(stream));
    return NULL;
}

static void work_beside(void) {
    pthread_t thread;
    cudaStream_t stream = begin();
    child_require(pthread_create(&thread, NULL, allocate_and_wait, NULL) == 0, "a thread");
    pthread_join(thread, NULL);
    ok(cudaGraphExecDestroy(end(stream)));
    ok(cudaStreamDestroy(stream));
}

static void allocate_relaxed(void) {
    cudaStream_t stream = make_stream();
    ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    ok(cudaFree(allocate()));
    ok(cudaGraphExecDestroy(end(stream)));
    ok(cudaStreamDestroy(stream));
}

static void a_capture_is_its_own_threads_affair(void **state) {
    (void)state;
    assert_clean(work_beside);
    assert_clean(allocate_relaxed);
}

static void fail_to_capture(void) {
    cudaStream_t stream = begin();
    emulation_fail(EMULATION_FAIL_CAPTURE, 1);
    end_without(stream, cudaErrorStreamCaptureInvalidated);
    ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    ok(cudaGraphExecDestroy(end(stream)));
    ok(cudaStreamDestroy(stream));
}

static void a_capture_fails_when_it_is_ordered(void **state) {
    (void)state;
    assert_clean(fail_to_capture);
}

/* --- calls that break a capture --- */

/** The call is refused, as is all that follows on the stream, and there is no graph in the end. */
static void refuse(cudaStream_t stream, cudaError_t got) {
    float *memory = NULL;
    child_require(got == cudaErrorStreamCaptureUnsupported, "the call is refused");
    child_require(cudaMemsetAsync(memory, 0, BYTES, stream) == cudaErrorStreamCaptureInvalidated, "and what follows");
    end_without(stream, cudaErrorStreamCaptureInvalidated);
}

static void allocate_meanwhile(void) {
    void *memory;
    cudaStream_t stream = begin();
    refuse(stream, cudaMalloc(&memory, BYTES));
}

static void free_meanwhile(void) {
    float *memory = allocate();
    cudaStream_t stream = begin();
    refuse(stream, cudaFree(memory));
}

static void lock_pages_meanwhile(void) {
    void *memory;
    cudaStream_t stream = begin();
    refuse(stream, cudaMallocHost(&memory, BYTES));
}

static void wait_for_stream(void) {
    cudaStream_t stream = begin();
    refuse(stream, cudaStreamSynchronize(stream));
}

static void wait_for_other_stream(void) {
    cudaStream_t other = make_stream(), stream = begin();
    refuse(stream, cudaStreamSynchronize(other));
}

static void wait_for_device(void) {
    cudaStream_t stream = begin();
    refuse(stream, cudaDeviceSynchronize());
}

static void ask_stream(void) {
    cudaStream_t stream = begin();
    refuse(stream, cudaStreamQuery(stream));
}

static void ask_event(void) {
    cudaEvent_t event = make_event();
    ok(cudaEventRecord(event, NULL));
    cudaStream_t stream = begin();
    refuse(stream, cudaEventQuery(event));
}

static void copy_at_once(void) {
    float host[COUNT], *memory = allocate();
    cudaStream_t stream = begin();
    refuse(stream, cudaMemcpy(memory, host, BYTES, cudaMemcpyHostToDevice));
}

static void copy_ordinary_memory(void) {
    float host[COUNT], *memory = allocate();
    cudaStream_t stream = begin();
    refuse(stream, cudaMemcpyAsync(memory, host, BYTES, cudaMemcpyHostToDevice, stream));
}

static void calls_that_break_a_capture_are_found(void **state) {
    (void)state;
    assert_found(allocate_meanwhile, "cudaMalloc is not permitted while this thread captures a stream");
    assert_found(free_meanwhile, "cudaFree is not permitted");
    assert_found(lock_pages_meanwhile, "cudaMallocHost is not permitted");
    assert_found(wait_for_stream, "cudaStreamSynchronize is not permitted on a stream that is captured");
    assert_found(wait_for_other_stream, "cudaStreamSynchronize is not permitted while this thread captures a stream");
    assert_found(wait_for_device, "cudaDeviceSynchronize is not permitted");
    assert_found(ask_stream, "cudaStreamQuery is not permitted");
    assert_found(ask_event, "cudaEventQuery is not permitted");
    assert_found(copy_at_once, "cudaMemcpy is not permitted");
    assert_found(copy_ordinary_memory, "a copy from or to ordinary memory of the host is not permitted");
}

static void ask_captured_event(void) {
    cudaEvent_t event = make_event();
    cudaStream_t stream = begin();
    ok(cudaEventRecord(event, stream));
    child_require(cudaEventQuery(event) == cudaErrorCapturedEvent, "the call is refused");
    end_without(stream, cudaErrorStreamCaptureInvalidated);
}

static void wait_for_event_outside(void) {
    cudaEvent_t event = make_event();
    cudaStream_t other = make_stream(), stream = begin();
    ok(cudaEventRecord(event, other));
    child_require(cudaStreamWaitEvent(stream, event, 0) == cudaErrorStreamCaptureIsolation, "the call is refused");
    end_without(stream, cudaErrorStreamCaptureInvalidated);
}

static void merge(void) {
    cudaGraph_t graph;
    cudaEvent_t event = make_event();
    cudaStream_t one = begin(), other = begin();
    ok(cudaEventRecord(event, one));
    child_require(cudaStreamWaitEvent(other, event, 0) == cudaErrorStreamCaptureMerge, "the call is refused");
    child_require(cudaStreamEndCapture(one, &graph) == cudaErrorStreamCaptureInvalidated, "both are broken");
    end_without(other, cudaErrorStreamCaptureInvalidated);
}

static void never_join(void) {
    float *memory = allocate();
    cudaEvent_t event = make_event();
    cudaStream_t other = make_stream(), stream = begin();
    ok(cudaEventRecord(event, stream));
    ok(cudaStreamWaitEvent(other, event, 0));
    ok(cudaMemsetAsync(memory, 0, BYTES, other));
    end_without(stream, cudaErrorStreamCaptureUnjoined);
}

static void wait_for_the_past(void) {
    cudaEvent_t event = make_event();
    cudaStream_t other = make_stream(), stream = begin();
    ok(cudaEventRecord(event, stream));
    ok(cudaGraphExecDestroy(end(stream)));
    child_require(cudaStreamWaitEvent(other, event, 0) == cudaErrorCapturedEvent, "the call is refused");
}

static void use_default_stream(void) {
    cudaStream_t stream;
    float *memory = allocate();
    ok(cudaStreamCreate(&stream));
    ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    child_require(cudaMemsetAsync(memory, 0, BYTES, NULL) == cudaErrorStreamCaptureImplicit, "the call is refused");
    end_without(stream, cudaErrorStreamCaptureInvalidated);
}

static void wrong_order_within_a_capture_is_found(void **state) {
    (void)state;
    assert_found(ask_captured_event, "cudaEventQuery is not permitted on an event that was last recorded on a captured stream");
    assert_found(wait_for_event_outside, "a captured stream waits for an event of work that is not captured");
    assert_found(merge, "the stream and the event are of two captures");
    assert_found(never_join, "a stream that forked off was not joined");
    assert_found(wait_for_the_past, "the event was last recorded in a capture that has ended");
    assert_found(use_default_stream, "makes the default stream wait for a stream that is captured");
}

static void capture_default_stream(void) {
    cudaStreamBeginCapture(NULL, cudaStreamCaptureModeThreadLocal);
}

static void begin_twice(void) {
    child_require(cudaStreamBeginCapture(begin(), cudaStreamCaptureModeThreadLocal) == cudaErrorIllegalState, "an error");
}

static void end_nothing(void) {
    cudaGraph_t graph;
    child_require(cudaStreamEndCapture(make_stream(), &graph) == cudaErrorIllegalState, "an error");
}

static void *end_elsewhere(void *argument) {
    cudaGraph_t graph;
    child_require(cudaStreamEndCapture(argument, &graph) == cudaErrorStreamCaptureWrongThread, "an error");
    return NULL;
}

static void end_in_other_thread(void) {
    pthread_t thread;
    child_require(pthread_create(&thread, NULL, end_elsewhere, begin()) == 0, "a thread");
    pthread_join(thread, NULL);
}

static void leave_open(void) {
    begin();
}

static void captures_in_a_wrong_state_are_found(void **state) {
    (void)state;
    assert_found(capture_default_stream, "the stream is the default one");
    assert_found(begin_twice, "the stream is captured already");
    assert_found(end_nothing, "cudaStreamEndCapture: cudaErrorIllegalState");
    assert_found(end_in_other_thread, "cudaStreamEndCapture: cudaErrorStreamCaptureWrongThread");
    assert_found(leave_open, "a capture of a stream");
}

/* --- launches --- */

static void launch_with_freed_memory(void) {
    float *a = allocate(), *b = allocate();
    cudaStream_t stream = begin();
    ok(launch(a, b, COUNT, stream));
    cudaGraphExec_t executable = end(stream);
    ok(cudaGraphLaunch(executable, stream));
    ok(cudaStreamSynchronize(stream));
    ok(cudaFree(a));
    child_require(cudaGraphLaunch(executable, stream) == cudaErrorIllegalAddress, "an error");
}

static void launch_destroyed(void) {
    cudaStream_t stream = begin();
    cudaGraphExec_t executable = end(stream);
    ok(cudaGraphExecDestroy(executable));
    cudaGraphLaunch(executable, stream);
}

static void launch_unordered(void) {
    float *memory = allocate();
    cudaStream_t other = make_stream(), stream = begin();
    ok(cudaMemsetAsync(memory, 0, BYTES, stream));
    cudaGraphExec_t executable = end(stream);
    ok(cudaGraphLaunch(executable, stream));
    ok(cudaMemsetAsync(memory, 1, BYTES, other));
    ok(cudaDeviceSynchronize());
}

/* Both branches write the same memory: in order here, at once on a GPU. */
static void fork_unordered(void) {
    float *memory = allocate();
    cudaStream_t other = make_stream(), stream = begin();
    cudaEvent_t fork = make_event(), join = make_event();
    ok(cudaEventRecord(fork, stream));
    ok(cudaStreamWaitEvent(other, fork, 0));
    ok(cudaMemsetAsync(memory, 0, BYTES, other));
    ok(cudaEventRecord(join, other));
    ok(cudaMemsetAsync(memory, 1, BYTES, stream));
    ok(cudaStreamWaitEvent(stream, join, 0));
    end(stream);
}

static void change_source_of_graph(void) {
    struct numbers n;
    pthread_barrier_t barrier, *pointer = &barrier;
    make_numbers(&n);
    memset(n.pinned, 0, BYTES);
    pthread_barrier_init(&barrier, NULL, 2);
    cudaStream_t stream = begin();
    ok(cudaMemcpyAsync(n.device, n.pinned, BYTES, cudaMemcpyHostToDevice, stream));
    cudaGraphExec_t executable = end(stream);
    ok(emulation_enqueue(stream, "meet", NULL, 0, meet, &pointer, sizeof pointer));
    ok(cudaGraphLaunch(executable, stream));
    n.pinned[0] = 1;
    pthread_barrier_wait(&barrier);
    ok(cudaStreamSynchronize(stream));
}

static void launch_on_other_device(void) {
    cudaGraphExec_t executable = end(begin());
    ok(cudaSetDevice(1));
    cudaGraphLaunch(executable, make_stream());
}

static void wrong_launches_are_found(void **state) {
    struct outcome outcome;
    (void)state;
    assert_found(launch_with_freed_memory, "pointwise_kernel reads 4000 bytes at");
    assert_found(launch_destroyed, "is no cudaGraphExec_t, or it was destroyed");
    assert_found(launch_unordered, "cudaMemsetAsync writes bytes 0 to 4000 of an allocation that cudaMemsetAsync writes");
    assert_found(fork_unordered, "cudaMemsetAsync and cudaMemsetAsync of one graph use the same bytes");
    assert_found(change_source_of_graph, "while their upload was still to come");
    child_run(launch_on_other_device, two_devices, &outcome);
    assert_int_equal(outcome.status, EMULATION_EXIT_FINDING);
    assert_non_null(strstr(outcome.stderr_text, "a graph of device 0 on a stream of device 1"));
}

static void fault_in_graph(void) {
    float *a = allocate(), *b = allocate();
    cudaStream_t stream = begin();
    ok(launch(a, b, COUNT, stream));
    cudaGraphExec_t executable = end(stream);
    emulation_fail(EMULATION_FAIL_LAUNCH, 2);
    ok(cudaGraphLaunch(executable, stream));
    ok(cudaStreamSynchronize(stream));
    cudaGraphLaunch(executable, stream);
    child_require(cudaStreamSynchronize(stream) == cudaErrorIllegalAddress, "the second launch faults");
}

static void a_launch_in_a_graph_fails_when_it_is_ordered(void **state) {
    (void)state;
    assert_clean(fault_in_graph);
}

/* --- leaks --- */

static void leak_graph(void) {
    cudaGraph_t graph;
    cudaStream_t stream = begin();
    ok(cudaStreamEndCapture(stream, &graph));
}

static void leak_executable(void) {
    end(begin());
}

static void leaks_are_found_at_exit(void **state) {
    (void)state;
    assert_found(leak_graph, "a cudaGraph_t");
    assert_found(leak_executable, "a cudaGraphExec_t");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_graph_does_at_each_launch_what_was_captured),
        cmocka_unit_test(a_capture_spreads_by_events),
        cmocka_unit_test(a_capture_is_its_own_threads_affair),
        cmocka_unit_test(a_capture_fails_when_it_is_ordered),
        cmocka_unit_test(calls_that_break_a_capture_are_found),
        cmocka_unit_test(wrong_order_within_a_capture_is_found),
        cmocka_unit_test(captures_in_a_wrong_state_are_found),
        cmocka_unit_test(wrong_launches_are_found),
        cmocka_unit_test(a_launch_in_a_graph_fails_when_it_is_ordered),
        cmocka_unit_test(leaks_are_found_at_exit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
