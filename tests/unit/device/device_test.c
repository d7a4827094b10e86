#include "common/device/device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct device *open_reference(void) {
    struct device_spec spec = {.name = "reference"};
    struct error err = {0};
    struct device *device = device_open(&spec, &err);
    assert_non_null(device);
    return device;
}

static void relu_request(struct kernel_request *request) {
    struct shape shape = shape_of(2, (int64_t)3, (int64_t)5);
    *request =
        (struct kernel_request){.op = {OP_ACTIVATION, .activation = ACTIVATION_RELU}, .pass = PASS_FORWARD};
    assert_true(op_arguments(&request->op, request->pass, &shape, &request->args, NULL));
}

static void a_device_that_is_not_there_is_named_with_those_that_are(void **state) {
    struct device_spec spec = {.name = "abacus"}, nameless = {0},
                       negative = {.name = "reference", .threads = -1};
    struct error err = {0};
    (void)state;
    assert_null(device_open(&spec, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    assert_non_null(strstr(err.message, "abacus"));
    assert_non_null(strstr(err.message, "reference"));
    assert_null(device_open(&nameless, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    assert_null(device_open(&negative, &err));
    assert_int_equal(err.code, ERROR_INVALID);
}

static void the_registry_lists_the_reference_first(void **state) {
    (void)state;
    assert_string_equal(device_registry_row(0)->name, "reference");
    assert_true(device_registry_row(0)->available(NULL));
    assert_null(device_registry_row(-1));
    assert_null(device_registry_row(1000));
}

static void devices_share_where_they_were_opened_to(void **state) {
    const struct device_ops *row;
    (void)state;
    for (int i = 0; (row = device_registry_row(i)); i++) {
        if (!row->shares || !row->available(NULL))
            continue;
        struct error err = {0};
        struct device_spec spec = {.name = row->name, .threads = 1};
        struct device *first = device_open(&spec, &err);
        spec.share = first;
        struct device *second = device_open(&spec, &err);
        assert_true(first && second && device_shares(first, second) && device_shares(second, first));
        void *memory = first->ops->alloc(first, 100, &err);
        assert_non_null(memory);
        device_close(first);
        second->ops->free(second, memory);
        device_close(second);
    }
}

/* A device of a kind that a row of the registry stands for without being opened. */
static void devices_of_other_kinds_do_not_share(void **state) {
    struct device_ops ops = {.name = "other", .shares = true};
    struct device other = {.ops = &ops};
    struct device_spec spec = {.name = "reference", .share = &other};
    struct error err = {0};
    (void)state;
    assert_null(device_open(&spec, &err));
    assert_int_equal(err.code, ERROR_UNSUPPORTED);
    struct device *reference = open_reference();
    assert_false(device_shares(reference, &other) || device_shares(&other, reference));
    assert_true(device_shares(&other, &other));
    spec = (struct device_spec){.name = "cuda", .share = reference};
    assert_null(device_open(&spec, &err)); /* where it is built, too */
    device_close(reference);
}

/* Prepares a request that has been spoilt and returns the code of the error. */
static enum error_code refusal(const struct kernel_request *request, const char *says) {
    struct device *device = open_reference();
    struct error err = {0};
    assert_null(kernel_prepare(device, request, &err));
    if (!strstr(err.message, says))
        fail_msg("\"%s\" does not say \"%s\"", err.message, says);
    device_close(device);
    return err.code;
}

static void requests_that_do_not_fit_are_refused(void **state) {
    struct kernel_request request;
    (void)state;
    relu_request(&request);
    request.args.direction[ARG_DST] = ARG_ABSENT;
    assert_int_equal(refusal(&request, "dst is missing"), ERROR_INVALID);
    relu_request(&request);
    request.args.direction[ARG_BIAS] = ARG_IN;
    assert_int_equal(refusal(&request, "bias is not an argument"), ERROR_INVALID);
    relu_request(&request);
    request.args.direction[ARG_SRC] = ARG_INOUT;
    assert_int_equal(refusal(&request, "wrong direction"), ERROR_INVALID);
    relu_request(&request);
    request.args.desc[ARG_DST].shape.dims[1] = 4;
    assert_int_equal(refusal(&request, "dst is (3, 4), should be (3, 5)"), ERROR_SHAPE);
    relu_request(&request);
    request.args.desc[ARG_DST].dtype = DTYPE_NONE;
    assert_int_equal(refusal(&request, "dst has no dtype"), ERROR_INVALID);
    relu_request(&request);
    request.args.desc[ARG_DST].dtype = DTYPE_S8;
    assert_int_equal(refusal(&request, "activation relu, forward"), ERROR_UNSUPPORTED);
    relu_request(&request);
    request.args.desc[ARG_DST].layout =
        (const struct layout *)(const void *)&request; /* some other device's */
    assert_int_equal(refusal(&request, "these dtypes and layouts"), ERROR_UNSUPPORTED);
    relu_request(&request);
    request.pass = PASS_BACKWARD_WEIGHT;
    assert_int_equal(refusal(&request, "no backward_weight pass"), ERROR_UNSUPPORTED);
    relu_request(&request);
    request.op.activation = ACTIVATION_NONE;
    assert_int_equal(refusal(&request, "which activation"), ERROR_INVALID);
}

static void integers_have_to_be_those_that_the_operation_says(void **state) {
    struct shape shape = shape_of(4, (int64_t)1, (int64_t)2, (int64_t)3, (int64_t)3);
    struct kernel_request request = {.op = {OP_RESCALE, .rescale = {DTYPE_U8, DTYPE_F32, 0.5f}}, .pass = PASS_INFER};
    (void)state;
    assert_true(op_arguments(&request.op, request.pass, &shape, &request.args, NULL));
    request.args.desc[ARG_SRC].dtype = DTYPE_S8;
    assert_int_equal(refusal(&request, "src is of s8, should be of u8"), ERROR_INVALID);
    request.args.desc[ARG_SRC].dtype = DTYPE_F32;
    assert_int_equal(refusal(&request, "src is of f32, should be of u8"), ERROR_INVALID);
}

static void a_run_without_a_buffer_is_refused(void **state) {
    struct device *device = open_reference();
    struct kernel_request request;
    float src[15] = {0};
    void *buffers[ARG_COUNT] = {[ARG_SRC] = src};
    struct error err = {0};
    (void)state;
    relu_request(&request);
    struct kernel *kernel = kernel_prepare(device, &request, &err);
    assert_non_null(kernel);
    assert_false(kernel_run(kernel, buffers, NULL, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    assert_non_null(strstr(err.message, "dst"));
    kernel_release(kernel);
    kernel_release(NULL);
    device_close(device);
    device_close(NULL);
}

static void any_layout_becomes_a_canonical_one(void **state) {
    struct device *device = open_reference();
    struct kernel_request request;
    (void)state;
    relu_request(&request);
    request.args.desc[ARG_SRC].layout = LAYOUT_ANY;
    struct kernel *kernel = kernel_prepare(device, &request, NULL);
    assert_non_null(kernel);
    assert_null(kernel->args.desc[ARG_SRC].layout);
    assert_int_equal(kernel->args.desc[ARG_SRC].bytes, 15 * sizeof(float));
    kernel_release(kernel);
    device_close(device);
}

static void a_reorder_changes_the_dtype(void **state) {
    struct device *device = open_reference();
    struct shape shape = shape_of(1, (int64_t)2);
    struct tensor_desc from = tensor_desc_dense(DTYPE_F32, &shape),
                       to = tensor_desc_dense(DTYPE_BF16, &shape);
    float src[] = {1.0f, -2.5f};
    uint16_t dst[2] = {0};
    void *buffers[ARG_COUNT] = {[ARG_SRC] = src, [ARG_DST] = dst};
    struct kernel *kernel = kernel_prepare_reorder(device, &from, &to, NULL);
    (void)state;
    assert_non_null(kernel);
    assert_true(kernel_run(kernel, buffers, NULL, NULL));
    assert_int_equal(dst[0], 0x3f80); /* 1 and -2.5 as IEEE 754 single, upper half */
    assert_int_equal(dst[1], 0xc020);
    kernel_release(kernel);
    device_close(device);
}

static void device_memory_is_zeroed_aligned_and_refused_in_words(void **state) {
    static const size_t sizes[] = {0, 1, 63, 4096, (2 << 20) + 1};
    struct device *device = open_reference();
    struct error err = {0};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *memory = device->ops->alloc(device, sizes[i], &err);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % 64, 0);
        for (size_t k = 0; k < sizes[i]; k++)
            assert_int_equal(memory[k], 0);
        device->ops->free(device, memory);
    }
    assert_null(device->ops->alloc(device, SIZE_MAX - 5, &err));
    assert_int_equal(err.code, ERROR_MEMORY);
    device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_that_is_not_there_is_named_with_those_that_are),
        cmocka_unit_test(the_registry_lists_the_reference_first),
        cmocka_unit_test(devices_share_where_they_were_opened_to),
        cmocka_unit_test(devices_of_other_kinds_do_not_share),
        cmocka_unit_test(requests_that_do_not_fit_are_refused),
        cmocka_unit_test(integers_have_to_be_those_that_the_operation_says),
        cmocka_unit_test(a_run_without_a_buffer_is_refused),
        cmocka_unit_test(any_layout_becomes_a_canonical_one),
        cmocka_unit_test(a_reorder_changes_the_dtype),
        cmocka_unit_test(device_memory_is_zeroed_aligned_and_refused_in_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
