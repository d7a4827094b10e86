/*
 * libthorax-cuda.so as a machine without a GPU sees it: it loads where CUDA's libraries are, holds both
 * tables, and says clearly that there is no GPU. Skipped (77) where its libraries are not, and each test
 * where there is a GPU.
 */
#include "common/device/device.h"
#include "trainerd/collective/collective.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { SKIPPED = 77 };

static const struct device_ops *exported_ops(void **object) {
    return dlsym(*object, "cuda_device_ops");
}

static void skip_where_there_is_a_gpu(void **object) {
    if (exported_ops(object)->available(NULL))
        skip();
}

static void it_exports_a_complete_device(void **object) {
    const struct device_ops *ops = exported_ops(object);
    void (*slots[sizeof *ops / sizeof(void (*)(void))])(void);
    assert_non_null(ops);
    assert_string_equal(ops->name, "cuda");
    memcpy(slots, ops, sizeof *ops);
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++)
        assert_true(slots[i] != NULL || i == offsetof(struct device_ops, shares) / sizeof *slots); /* that one is a flag */
}

static void it_exports_the_nccl_collective(void **object) {
    const struct collective_ops *ops = dlsym(*object, "collective_nccl");
    assert_non_null(ops);
    assert_string_equal(ops->name, "nccl");
    assert_non_null(ops->done_event);
}

static void it_exports_nothing_else(void **object) {
    assert_null(dlsym(*object, "cuda_alloc"));
    assert_null(dlsym(*object, "launch_sgd"));
}

static void it_says_that_there_is_no_gpu(void **object) {
    struct error err = {0};
    skip_where_there_is_a_gpu(object);
    assert_false(exported_ops(object)->available(&err));
    assert_int_equal(err.code, ERROR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "no usable NVIDIA GPU"));
}

static void the_registry_finds_it_and_opening_says_why_not(void **object) {
    struct device_spec spec = {.name = "cuda"};
    struct error err = {0};
    skip_where_there_is_a_gpu(object);
    assert_null(device_open(&spec, &err));
    assert_int_equal(err.code, ERROR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "the device cuda cannot be opened here: no usable NVIDIA GPU"));
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_exports_a_complete_device),
        cmocka_unit_test(it_exports_the_nccl_collective),
        cmocka_unit_test(it_exports_nothing_else),
        cmocka_unit_test(it_says_that_there_is_no_gpu),
        cmocka_unit_test(the_registry_finds_it_and_opening_says_why_not),
    };
    void *object = dlopen(CUDA_OBJECT, RTLD_NOW | RTLD_LOCAL);
    if (!object) {
        fprintf(stderr, "cuda_object_test: skipped: %s\n", dlerror());
        return SKIPPED;
    }
    struct CMUnitTest with_object[sizeof tests / sizeof *tests];
    memcpy(with_object, tests, sizeof tests);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        with_object[i].initial_state = object;
    return cmocka_run_group_tests(with_object, NULL, NULL);
}
