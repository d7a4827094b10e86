#include "common/base/text.h"
#include "tests/emulation/child.h"
#include "tests/emulation/emulation.h"
#include "tests/unit/graph/network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * The CUDA device over the emulation, beyond the values that tests/conformance compares: errors and asynchrony. Each test is a
 * fork, so that findings are seen at its exit.
 */

enum { FLOATS = 5000 };

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
    assert_clean_in(behave, two_devices);
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
    struct stream *stream = NULL;
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
    require(device_count("cuda", &err) == 2 && device_count("reference", &err) == 1 && device_count("gpu", &err) == 0);
    device_close(devices[1]);
    device_close(devices[0]);
}

static void several_devices_are_used_side_by_side(void **state) {
    (void)state;
    assert_silent(use_both);
}

static struct device *open_beside(struct device *other, int index) {
    struct device_spec spec = {.name = "cuda", .index = index, .share = other};
    return device_open(&spec, &err);
}

/* One writes, the other one reads on a stream of its own, and frees; the first may be gone by then. */
static void share_memory(void) {
    struct device *first = open_cuda(0), *second = open_beside(first, 0);
    require(second && device_shares(first, second));
    require(!open_beside(first, 1) && err.code == ERROR_UNSUPPORTED);
    struct device *elsewhere = open_cuda(1);
    require(!device_shares(first, elsewhere));
    float source[FLOATS], back[FLOATS];
    for (int i = 0; i < FLOATS; i++)
        source[i] = (float)i - FLOATS / 2;
    void *memory = first->ops->alloc(first, sizeof source, &err);
    require(memory && first->ops->upload(first, memory, source, sizeof source, NULL, &err));
    device_close(first);
    struct kernel *kernel = make_relu(second);
    void *buffers[ARG_COUNT] = {[ARG_SRC] = memory, [ARG_DST] = memory};
    require(kernel_run(kernel, buffers, NULL, &err));
    require(second->ops->download(second, back, memory, sizeof back, NULL, &err));
    require(second->ops->synchronise(second, NULL, &err) && back[0] == 0 && back[FLOATS - 1] == source[FLOATS - 1]);
    kernel_release(kernel);
    second->ops->free(second, memory);
    device_close(second);
    device_close(elsewhere);
}

static void devices_on_one_gpu_share_its_memory(void **state) {
    (void)state;
    assert_silent(share_memory);
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
    require(err.code == ERROR_LOST && err.hint[0]);
    require(strstr(err.message, "GPU 0") && strstr(err.message, "cudaErrorIllegalAddress"));
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_in_progress_is_no_error),
        cmocka_unit_test(sources_of_uploads_are_free_at_once),
        cmocka_unit_test(several_devices_are_used_side_by_side),
        cmocka_unit_test(devices_on_one_gpu_share_its_memory),
        cmocka_unit_test(memory_that_is_missing_is_told_once),
        cmocka_unit_test(a_device_that_cannot_be_opened_leaves_nothing),
        cmocka_unit_test(a_fault_is_final),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
