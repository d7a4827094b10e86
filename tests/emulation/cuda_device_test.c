#include "common/base/text.h"
#include "tests/emulation/child.h"
#include "tests/emulation/emulation.h"
#include "tests/unit/graph/network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * The CUDA device over the emulation, beyond the values that tests/conformance compares: errors, asynchrony, and what a step
 * costs in calls. Each test is a fork, so that findings are seen at its exit.
 */

enum { BATCH = 4, FLOATS = 5000 };

static struct error err;

static void require(bool condition) {
    child_require(condition, err.message[0] ? err.message : "without a message");
}

static struct device *open_cuda(int index) {
    struct device_spec spec = {.name = "cuda", .index = index};
    struct device *device = device_open(&spec, &err);
    require(device != NULL);
    return device;
}

static struct kernel *make_relu(struct device *device) {
    struct kernel_request request = {.op = {OP_ACTIVATION, .activation = ACTIVATION_RELU}, .pass = PASS_FORWARD};
    struct shape shape = shape_of(2, (int64_t)1, (int64_t)FLOATS);
    require(op_arguments(&request.op, request.pass, &shape, &request.args, &err));
    struct kernel *kernel = kernel_prepare(device, &request, &err);
    require(kernel != NULL);
    return kernel;
}

static void assert_silent(void (*behave)(void)) {
    static const char *const two_devices[] = {"THORAX_EMULATION_DEVICES=2", NULL};
    struct outcome outcome;
    child_run(behave, two_devices, &outcome);
    assert_string_equal(outcome.stderr_text, "");
    assert_int_equal(outcome.status, 0);
}

/* --- asynchrony --- */

static void linger(void *argument) {
    (void)argument;
    usleep(50000);
}

/* An event that is not reached yet is no error, and the kernel behind the question is not blamed for it. */
static void go_on_meanwhile(void) {
    struct device *device = open_cuda(0);
    struct kernel *kernel = make_relu(device);
    struct event *event = NULL;
    struct stream *stream;
    void *memory = device->ops->alloc(device, FLOATS * sizeof(float), &err);
    void *buffers[ARG_COUNT] = {[ARG_SRC] = memory, [ARG_DST] = memory};
    require(device->ops->stream_create(device, &stream, &err) && device->ops->event_create(device, &event, &err));
    require(emulation_enqueue((cudaStream_t)stream, "linger", NULL, 0, linger, NULL, 0) == cudaSuccess);
    require(device->ops->event_record(device, event, stream, &err));
    require(device->ops->event_done(device, event, &err) == 0);
    require(kernel_run(kernel, buffers, stream, &err));
    require(device->ops->synchronise(device, stream, &err));
    require(device->ops->event_done(device, event, &err) == 1);
    kernel_release(kernel);
    device->ops->free(device, memory);
    device->ops->event_destroy(device, event);
    device->ops->stream_destroy(device, stream);
    device_close(device);
}

static void work_in_progress_is_no_error(void **state) {
    (void)state;
    assert_silent(go_on_meanwhile);
}

/* Sources of ordinary memory are free at once, whatever their size. */
static void reuse_sources(void) {
    struct device *device = open_cuda(0);
    float *memory = device->ops->alloc(device, FLOATS * sizeof(float), &err), source[FLOATS], back[FLOATS];
    static const int counts[] = {1, 10, FLOATS};
    for (int round = 0; round < 60; round++) {
        int count = counts[round % 3];
        for (int i = 0; i < count; i++)
            source[i] = (float)round;
        require(device->ops->upload(device, memory, source, (size_t)count * sizeof *source, NULL, &err));
        memset(source, 0, sizeof source);
        require(device->ops->download(device, back, memory, (size_t)count * sizeof *back, NULL, &err));
        require(round % 20 != 0 || device->ops->synchronise(device, NULL, &err));
        require(round % 20 != 0 || back[count - 1] == (float)round);
    }
    require(device->ops->synchronise(device, NULL, &err));
    device->ops->free(device, memory);
    device_close(device);
}

static void sources_of_uploads_are_free_at_once(void **state) {
    (void)state;
    assert_silent(reuse_sources);
}

/* --- devices --- */

static void use_both(void) {
    struct device *devices[] = {open_cuda(0), open_cuda(1)};
    struct device_spec third = {.name = "cuda", .index = 2};
    for (int i = 0; i < 2; i++) {
        struct kernel *kernel = make_relu(devices[i]);
        void *memory = devices[i]->ops->alloc(devices[i], FLOATS * sizeof(float), &err);
        void *buffers[ARG_COUNT] = {[ARG_SRC] = memory, [ARG_DST] = memory};
        require(memory && kernel_run(kernel, buffers, NULL, &err) && devices[i]->ops->synchronise(devices[i], NULL, &err));
        devices[1 - i]->ops->synchronise(devices[1 - i], NULL, &err); /* makes the other one current */
        kernel_release(kernel);
        devices[i]->ops->free(devices[i], memory);
    }
    require(!device_open(&third, &err) && err.code == ERROR_NOT_FOUND);
    device_close(devices[1]);
    device_close(devices[0]);
}

static void several_devices_are_used_side_by_side(void **state) {
    (void)state;
    assert_silent(use_both);
}

/* --- failures --- */

static void run_out(void) {
    struct device *device = open_cuda(0);
    emulation_fail(EMULATION_FAIL_ALLOCATION, 1);
    require(!device->ops->alloc(device, 123456, &err) && err.code == ERROR_MEMORY);
    require(strstr(err.message, "123456 bytes on GPU 0, which has ") != NULL);
    void *memory = device->ops->alloc(device, 123456, &err);
    require(memory != NULL);
    device->ops->free(device, memory);
    emulation_fail(EMULATION_FAIL_HOST_ALLOCATION, 1);
    require(!device->ops->host_alloc(device, 4321, &err) && err.code == ERROR_MEMORY);
    struct kernel *kernel = make_relu(device);
    memory = device->ops->alloc(device, FLOATS * sizeof(float), &err);
    void *buffers[ARG_COUNT] = {[ARG_SRC] = memory, [ARG_DST] = memory};
    require(kernel_run(kernel, buffers, NULL, &err)); /* which does not find the error of before */
    kernel_release(kernel);
    device->ops->free(device, memory);
    device_close(device);
}

static void memory_that_is_missing_is_told_once(void **state) {
    (void)state;
    assert_silent(run_out);
}

/* Opening fails at every place, and leaves nothing behind. */
static void open_without_memory(void) {
    struct device_spec spec = {.name = "cuda"};
    for (int n = 1; n < 4; n++) {
        emulation_fail(EMULATION_FAIL_HOST_ALLOCATION, n);
        device_close(device_open(&spec, &err));
        emulation_fail(EMULATION_FAIL_HOST_ALLOCATION, 0);
    }
    struct device *device = open_cuda(0);
    device_close(device);
}

static void a_device_that_cannot_be_opened_leaves_nothing(void **state) {
    (void)state;
    assert_silent(open_without_memory);
}

static void fault(void) {
    char first[sizeof err.message];
    struct device *device = open_cuda(0);
    struct kernel *kernel = make_relu(device);
    void *memory = device->ops->alloc(device, FLOATS * sizeof(float), &err);
    void *buffers[ARG_COUNT] = {[ARG_SRC] = memory, [ARG_DST] = memory};
    emulation_fail(EMULATION_FAIL_LAUNCH, 1);
    bool queued = kernel_run(kernel, buffers, NULL, &err); /* which may be told of the fault already */
    require(!device->ops->synchronise(device, NULL, &err) || !queued);
    require(strstr(err.message, "GPU 0") && strstr(err.message, "cudaErrorIllegalAddress") && err.hint[0]);
    (void)text_copy(first, sizeof first, err.message);
    require(!kernel_run(kernel, buffers, NULL, &err) && strcmp(err.message, first) == 0);
    require(!device->ops->alloc(device, 1, &err) && strstr(err.message, "cudaErrorIllegalAddress"));
    kernel_release(kernel);
    device->ops->free(device, memory);
    device_close(device);
}

static void a_fault_is_final(void **state) {
    (void)state;
    assert_silent(fault);
}

/* --- what a step costs --- */

static void run_step(struct plan *plan, const float *images) {
    const float hyper[HYPER_COUNT] = {[HYPER_LEARNING_RATE] = 0.1f, [HYPER_GRADIENT_SCALE] = 1};
    const int32_t labels[BATCH] = {0, 1, 2, 0};
    const int64_t seed[3] = {1, 2, 3};
    require(plan_set_images(plan, images, &err) && plan_set_targets(plan, labels, seed, &err));
    require(plan_run(plan, &err) && plan_update(plan, hyper, &err));
}

/* The first step may make what later ones use; from then on only work is queued. */
static void count_step(void) {
    struct device *device = open_cuda(0);
    struct graph *graph = network_graph(0.3);
    struct parameters *parameters = network_parameters(graph, 5);
    struct plan_spec spec = {
        .graph = graph, .parameters = parameters, .device = device, .mode = PLAN_TRAIN, .batch = BATCH, .optimizer = OP_SGD};
    struct plan *plan = plan_create(&spec, &err);
    float *images = device->ops->host_alloc(device, sizeof(float[BATCH * NETWORK_PIXELS]), &err), loss;
    require(plan && images);
    run_step(plan, images);
    emulation_clear_calls();
    run_step(plan, images);
    require(emulation_calls(EMULATION_ALLOCATION) == 0 && emulation_calls(EMULATION_HOST_ALLOCATION) == 0);
    require(emulation_calls(EMULATION_SYNCHRONISATION) == 0 && emulation_calls(EMULATION_HANDLE) == 0);
    require(emulation_calls_named("sgd_kernel") == 1 && emulation_calls_named("cudnnConvolutionForward") == 4);
    require(plan_read_loss(plan, &loss, &err) && emulation_calls(EMULATION_SYNCHRONISATION) == 1);
    device->ops->host_free(device, images);
    plan_destroy(plan);
    parameters_destroy(parameters);
    graph_destroy(graph);
    device_close(device);
}

static void a_training_step_neither_waits_nor_allocates(void **state) {
    (void)state;
    assert_silent(count_step);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_in_progress_is_no_error),
        cmocka_unit_test(sources_of_uploads_are_free_at_once),
        cmocka_unit_test(several_devices_are_used_side_by_side),
        cmocka_unit_test(memory_that_is_missing_is_told_once),
        cmocka_unit_test(a_device_that_cannot_be_opened_leaves_nothing),
        cmocka_unit_test(a_fault_is_final),
        cmocka_unit_test(a_training_step_neither_waits_nor_allocates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
