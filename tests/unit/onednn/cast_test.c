/* Casts between f32 and bf16 in the canonical layout: the loops of every instruction set of this machine, and the kernel. */
#include "common/device/onednn/kernel.h"
#include "common/device/onednn/onednn.h"
#include "common/tensor/element.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

enum { COUNT = 1000, GUARD = 0x5555 };

/* Ties both ways, the ends of the range, subnormal numbers, what is not finite, and then what comes. */
static void draw(float values[COUNT]) {
    const float special[] = {0x1.01p0f,  0x1.03p0f, -0x1.01p0f, 0x1.018p0f, 0x1.00ffp0f, FLT_MAX,  -FLT_MAX,
                             0x1p-140f, 0x1p-149f, -0.0f,      INFINITY,   -INFINITY,   FLT_MIN, NAN};
    uint32_t state = 7;
    for (int i = 0; i < COUNT; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = ldexpf((float)(int32_t)state, (int)(state >> 8 & 63) - 62);
    }
    memcpy(values, special, sizeof special);
    memcpy(values + COUNT - sizeof special / sizeof *special, special, sizeof special);
}

static void assert_narrow(const uint16_t *narrow, const float *values, int count) {
    for (int i = 0; i < count; i++) {
        uint16_t expected;
        element_store(&expected, DTYPE_BF16, 0, values[i]);
        if (isnan(values[i]))
            assert_true(isnan(element_load(narrow, DTYPE_BF16, i)));
        else
            assert_int_equal(narrow[i], expected);
    }
}

static void assert_wide(const float *wide, const uint16_t *narrow, int count) {
    for (int i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, wide + i, sizeof bits);
        assert_int_equal(bits, (uint32_t)narrow[i] << 16);
    }
}

static void all_loops_round_to_nearest_even(void **state) {
    (void)state;
    static const int counts[] = {0, 1, 15, 16, 17, 31, COUNT};
    float values[COUNT], wide[COUNT];
    uint16_t narrow[COUNT + 1];
    draw(values);
    for (int i = 0; loops_row(i); i++) {
        for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
            int count = counts[k];
            narrow[count] = GUARD;
            loops_row(i)->narrow(narrow, values + COUNT - count, count);
            assert_narrow(narrow, values + COUNT - count, count);
            assert_int_equal(narrow[count], GUARD);
            loops_row(i)->widen(wide, narrow, count);
            assert_wide(wide, narrow, count);
        }
    }
}

static void run(struct device *device, enum dtype from, const void *source, enum dtype to, void *target) {
    struct shape shape = shape_of(1, (int64_t)COUNT);
    struct tensor_desc src = tensor_desc_dense(from, &shape), dst = tensor_desc_dense(to, &shape);
    struct kernel_request request = {.op.kind = OP_REORDER, .pass = PASS_FORWARD};
    assert_true(op_arguments(&request.op, request.pass, &shape, &request.args, NULL));
    request.args.desc[ARG_SRC] = src;
    request.args.desc[ARG_DST] = dst;
    struct kernel *kernel = device->ops->prepare(device, &request, NULL);
    void *buffers[ARG_COUNT] = {[ARG_SRC] = (void *)source, [ARG_DST] = target};
    assert_non_null(kernel);
    assert_string_equal(kernel->implementation, loops_row(0)->name);
    assert_true(device->ops->run(kernel, buffers, NULL, NULL));
    device->ops->release(kernel);
}

static void a_kernel_shares_them_out(void **state) {
    (void)state;
    float values[COUNT], wide[COUNT];
    uint16_t narrow[COUNT];
    draw(values);
    for (int threads = 1; threads <= 3; threads++) {
        struct device_spec spec = {.threads = threads};
        struct device *device = onednn_device_ops.open(&spec, NULL);
        assert_non_null(device);
        run(device, DTYPE_F32, values, DTYPE_BF16, narrow);
        assert_narrow(narrow, values, COUNT);
        run(device, DTYPE_BF16, narrow, DTYPE_F32, wide);
        assert_wide(wide, narrow, COUNT);
        device->ops->close(device);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_loops_round_to_nearest_even),
                                       cmocka_unit_test(a_kernel_shares_them_out)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
