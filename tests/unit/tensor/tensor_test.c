#include "common/tensor/tensor.h"

#include "common/tensor/element.h"
#include "common/tensor/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void names_and_sizes_of_types(void **state) {
    (void)state;
    static const struct {
        const char *name;
        size_t size;
    } rows[] = {{"f32", 4}, {"bf16", 2}, {"f16", 2}, {"s8", 1}, {"u8", 1}, {"s32", 4}, {"s64", 8}, {"f64", 8}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum dtype dtype = dtype_parse(rows[i].name);
        assert_int_not_equal(dtype, DTYPE_NONE);
        assert_string_equal(dtype_name(dtype), rows[i].name);
        assert_int_equal(dtype_size(dtype), rows[i].size);
    }
    assert_int_equal(sizeof rows / sizeof *rows, DTYPE_COUNT - 1);
    assert_int_equal(dtype_parse("float32"), DTYPE_NONE);
    assert_int_equal(dtype_parse("none"), DTYPE_NONE);
    assert_int_equal(dtype_size(DTYPE_NONE), 0);
}

static void shapes_take_integers_of_any_type(void **state) {
    (void)state;
    struct shape shape = shape_of(4, 2, (int64_t)3, (short)4, 5L);
    char text[SHAPE_TEXT_SIZE];
    assert_int_equal(shape_count(&shape), 120);
    assert_string_equal(shape_text(&shape, text), "(2, 3, 4, 5)");
    assert_int_equal(shape.dims[4], 0);
}

static void shapes_are_equal_in_rank_and_dimensions(void **state) {
    (void)state;
    struct shape a = shape_of(2, 3, 4), b = shape_of(2, 3, 4), c = shape_of(2, 4, 3), d = shape_of(3, 3, 4, 1);
    assert_true(shape_equal(&a, &b));
    assert_false(shape_equal(&a, &c));
    assert_false(shape_equal(&a, &d));
    b.dims[3] = 99; /* beyond the rank: of no meaning */
    assert_true(shape_equal(&a, &b));
}

static void the_text_of_a_large_shape_stays_in_its_array(void **state) {
    (void)state;
    struct shape shape = shape_of(5, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX);
    struct {
        char text[SHAPE_TEXT_SIZE], guard[8];
    } box = {.guard = "guarded"};
    shape_text(&shape, box.text);
    assert_true(strlen(box.text) < SHAPE_TEXT_SIZE);
    assert_string_equal(box.guard, "guarded");
}

static void sizes_that_overflow_are_refused(void **state) {
    (void)state;
    struct error err = {0};
    size_t bytes = 0;
    struct shape fits = shape_of(3, 2, 3, 4), negative = shape_of(2, 4, -1), scalar = {0};
    struct shape wraps = shape_of(3, INT64_C(1) << 31, INT64_C(1) << 31, 4), empty = shape_of(2, 0, 7);
    assert_true(shape_checked_bytes(&fits, DTYPE_F64, &bytes, &err));
    assert_int_equal(bytes, 192);
    assert_true(shape_checked_bytes(&scalar, DTYPE_F32, &bytes, &err));
    assert_int_equal(bytes, 4);
    assert_true(shape_checked_bytes(&empty, DTYPE_F32, &bytes, &err));
    assert_int_equal(bytes, 0);
    assert_false(shape_checked_bytes(&negative, DTYPE_F32, &bytes, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
    assert_false(shape_checked_bytes(&wraps, DTYPE_F32, &bytes, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
}

static void tensors_are_zeroed_and_aligned(void **state) {
    (void)state;
    struct tensor tensor;
    struct shape shape = shape_of(2, 3, 5);
    assert_true(tensor_init(&tensor, DTYPE_F32, &shape, NULL));
    assert_int_equal((uintptr_t)tensor.data % 64, 0);
    assert_int_equal(tensor_bytes(&tensor), 60);
    for (int i = 0; i < 15; i++)
        assert_true(((float *)tensor.data)[i] == 0);
    tensor_fini(&tensor);
    assert_null(tensor.data);
    tensor_fini(&tensor);
}

static void a_tensor_that_cannot_be_is_an_error(void **state) {
    (void)state;
    struct tensor tensor;
    struct error err = {0};
    struct shape wraps = shape_of(2, INT64_MAX, 16);
    assert_false(tensor_init(&tensor, DTYPE_F32, &wraps, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
    tensor_fini(&tensor);
}

static void dense_descriptions_have_no_layout(void **state) {
    (void)state;
    struct shape shape = shape_of(4, 2, 3, 4, 5);
    struct tensor_desc desc = tensor_desc_dense(DTYPE_BF16, &shape);
    assert_null(desc.layout);
    assert_int_equal(desc.bytes, 240);
    assert_true(desc.layout != LAYOUT_ANY);
    assert_true(shape_equal(&desc.shape, &shape));
}

/* As x86's cvtps2dq and packs round and saturate, which int8 kernels are made of. */
static void integers_round_to_even_and_saturate(void **state) {
    static const struct {
        double value;
        int u8, s8;
    } rows[] = {{.5, 0, 0},      {1.5, 2, 2},     {2.5, 2, 2},        {-.5, 0, 0},        {-1.5, 0, -2},
                {127.5, 128, 127}, {255.4, 255, 127}, {1e30, 255, 127}, {-128.6, 0, -128}, {-INFINITY, 0, -128},
                {NAN, 0, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t u8;
        int8_t s8;
        element_store(&u8, DTYPE_U8, 0, rows[i].value);
        element_store(&s8, DTYPE_S8, 0, rows[i].value);
        assert_int_equal(u8, rows[i].u8);
        assert_int_equal(s8, rows[i].s8);
        assert_true(element_load(&u8, DTYPE_U8, 0) == rows[i].u8 && element_load(&s8, DTYPE_S8, 0) == rows[i].s8);
    }
}

/* IEEE 754's formula: a sign, an exponent with a bias, a fraction. */
static double half_by_formula(enum dtype dtype, uint16_t bits) {
    int fraction_bits = dtype == DTYPE_BF16 ? 7 : 10, top = dtype == DTYPE_BF16 ? 255 : 31, bias = top / 2;
    int exponent = bits >> fraction_bits & top;
    double fraction = bits & ((1 << fraction_bits) - 1), sign = bits >> 15 ? -1.0 : 1.0;
    if (exponent == top)
        return fraction != 0 ? NAN : sign * INFINITY;
    if (exponent == 0)
        return sign * ldexp(fraction, 1 - bias - fraction_bits);
    return sign * ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
}

/* The conversions for loops say what the formula and the rounding of doubles do: of every half, around every edge between two. */
static void check_encoding(enum dtype dtype, float value) {
    uint16_t slow;
    element_store(&slow, dtype, 0, (double)value);
    assert_int_equal(half_encode(dtype, value), slow);
    assert_int_equal(half_encode(dtype, -value), slow ^ 0x8000);
}

static void halves_are_converted_alike_in_both_ways(void **state) {
    static const enum dtype dtypes[] = {DTYPE_BF16, DTYPE_F16};
    (void)state;
    for (int d = 0; d < 2; d++)
        for (uint32_t bits = 0; bits <= UINT16_MAX; bits++) {
            uint16_t half = (uint16_t)bits, next = (uint16_t)(bits + 1);
            float fast = half_decode(dtypes[d], half);
            double slow = half_by_formula(dtypes[d], half), above = half_by_formula(dtypes[d], next);
            assert_true(isnan(slow) || element_load(&half, dtypes[d], 0) == slow);
            assert_true((isnan(slow) && isnan(fast)) || ((double)fast == slow && !signbit(fast) == !signbit(slow)));
            if (isnan(slow)) {
                assert_true(isnan(half_decode(dtypes[d], half_encode(dtypes[d], fast))));
                continue;
            }
            float middle = (float)((slow + (isfinite(above) ? above : 2 * slow)) / 2);
            check_encoding(dtypes[d], fast);
            check_encoding(dtypes[d], middle);
            check_encoding(dtypes[d], nextafterf(middle, 0));
            check_encoding(dtypes[d], nextafterf(middle, INFINITY));
        }
    check_encoding(DTYPE_F16, 65519.996f);
    check_encoding(DTYPE_F16, 65520); /* the first that is infinite */
    check_encoding(DTYPE_F16, 0x1p-25f);
    check_encoding(DTYPE_F16, 0x1.000002p-25f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_sizes_of_types),
        cmocka_unit_test(shapes_take_integers_of_any_type),
        cmocka_unit_test(shapes_are_equal_in_rank_and_dimensions),
        cmocka_unit_test(the_text_of_a_large_shape_stays_in_its_array),
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(tensors_are_zeroed_and_aligned),
        cmocka_unit_test(a_tensor_that_cannot_be_is_an_error),
        cmocka_unit_test(dense_descriptions_have_no_layout),
        cmocka_unit_test(integers_round_to_even_and_saturate),
        cmocka_unit_test(halves_are_converted_alike_in_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
