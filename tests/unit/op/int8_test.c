/* The operations on 8-bit integers as data: struct conv2d_int8, struct rescale, pools of integers. */
#include "common/op/op.h"
#include "common/op/precision.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))
/* clang-format off */
#define WINDOW(k, s, pad) {.kernel = {k, k}, .stride = {s, s}, .pad_before = {pad, pad}, .pad_after = {pad, pad}}
#define CONV(...) {OP_CONV2D, .conv2d = {.channels_out = 4, .groups = 1, .window = WINDOW(3, 1, 1), __VA_ARGS__}}
/* clang-format on */

static const struct shape image = {4, {2, 6, 5, 5}};
static const struct shape output = {4, {2, 4, 5, 5}};

static const struct op adding = CONV(.bias = true, .residual = true, .activation = ACTIVATION_RELU,
                                     .int8 = {DTYPE_S8, DTYPE_U8, DTYPE_S8, 0.5f});
static const struct op leaving = CONV(.int8 = {.src = DTYPE_U8, .dst = DTYPE_F32});
static const struct op pool = {OP_MAX_POOL, .max_pool = WINDOW(3, 2, 1), .max_pool_of = DTYPE_U8};
static const struct op average = {OP_GLOBAL_AVERAGE_POOL, .global_average_pool_of = DTYPE_S8};
static const struct op quantise = {OP_RESCALE, .rescale = {DTYPE_F32, DTYPE_U8, 2.5f}};

static struct op_args arguments(const struct op *op, enum precision precision) {
    struct shape inputs[OP_MAX_INPUTS] = {image, output};
    struct error err = {0};
    struct op_args args;
    if (!op_arguments(op, PASS_INFER, inputs, &args, &err))
        fail_msg("%s", err.message);
    precision_apply(precision, op, &args);
    return args;
}

static void expect_dtype(const struct op_args *args, enum arg arg, enum dtype dtype) {
    const struct tensor_desc *desc = &args->desc[arg];
    assert_string_equal(dtype_name(desc->dtype), dtype_name(dtype));
    assert_int_equal(desc->bytes, (size_t)shape_count(&desc->shape) * dtype_size(dtype));
}

static void arguments_have_the_dtypes_that_the_operation_says(void **state) {
    struct op_args args = arguments(&adding, PRECISION_INT8);
    (void)state;
    expect_dtype(&args, ARG_SRC, DTYPE_S8);
    expect_dtype(&args, ARG_SRC2, DTYPE_S8);
    expect_dtype(&args, ARG_WEIGHT, DTYPE_S8);
    expect_dtype(&args, ARG_BIAS, DTYPE_F32);
    expect_dtype(&args, ARG_SCALE, DTYPE_F32);
    expect_dtype(&args, ARG_DST, DTYPE_U8);
    assert_int_equal(args.desc[ARG_SCALE].shape.dims[0], 4);
    assert_int_equal(args.in_place[ARG_DST], ARG_SRC2);
    args = arguments(&pool, PRECISION_INT8);
    expect_dtype(&args, ARG_SRC, DTYPE_U8);
    expect_dtype(&args, ARG_DST, DTYPE_U8);
    args = arguments(&average, PRECISION_INT8);
    expect_dtype(&args, ARG_SRC, DTYPE_S8);
    expect_dtype(&args, ARG_DST, DTYPE_F32);
    args = arguments(&quantise, PRECISION_INT8);
    expect_dtype(&args, ARG_SRC, DTYPE_F32);
    expect_dtype(&args, ARG_DST, DTYPE_U8);
}

static void a_mixed_precision_narrows_floats_and_leaves_integers(void **state) {
    struct op_args args = arguments(&leaving, PRECISION_BF16);
    (void)state;
    expect_dtype(&args, ARG_SRC, DTYPE_U8);
    expect_dtype(&args, ARG_WEIGHT, DTYPE_S8);
    expect_dtype(&args, ARG_DST, DTYPE_BF16);
    expect_dtype(&args, ARG_SCALE, DTYPE_F32);
    args = arguments(&quantise, PRECISION_BF16);
    expect_dtype(&args, ARG_SRC, DTYPE_BF16);
    expect_dtype(&args, ARG_DST, DTYPE_U8);
}

/* An f32 result does not fit where an 8-bit residual was. */
static void only_what_is_as_large_goes_in_place(void **state) {
    struct op op = adding;
    (void)state;
    op.conv2d.int8.dst = DTYPE_F32;
    assert_int_equal(arguments(&op, PRECISION_INT8).in_place[ARG_DST], ARG_NONE);
}

static void integers_are_for_answers_only(void **state) {
    const struct op *const ops[] = {&adding, &leaving, &pool, &average, &quantise};
    struct shape inputs[OP_MAX_INPUTS] = {image, output};
    (void)state;
    for (size_t i = 0; i < LENGTH(ops); i++) {
        assert_true(op_is_int8(ops[i]));
        for (enum pass pass = PASS_INFER + 1; pass < PASS_COUNT; pass++) {
            struct error err = {0};
            struct op_args args;
            assert_false(op_arguments(ops[i], pass, inputs, &args, &err));
            assert_int_equal(err.code, ERROR_UNSUPPORTED);
        }
    }
    assert_false(op_is_int8(&(struct op)CONV(.bias = true)));
    assert_false(op_is_int8(&(struct op){OP_MAX_POOL, .max_pool = WINDOW(3, 2, 1)}));
    assert_false(op_is_int8(&(struct op){.kind = OP_GLOBAL_AVERAGE_POOL}));
    assert_false(op_is_int8(&(struct op){.kind = OP_KIND_COUNT}));
}

static void weights_are_s8_and_nothing_is_learnt(void **state) {
    struct op_parameter out[OP_MAX_PARAMETERS];
    (void)state;
    assert_int_equal(op_parameters(&adding, &image, out), 3);
    static const char *const names[] = {"weight", "bias", "factor"};
    for (int i = 0; i < 3; i++) {
        assert_string_equal(out[i].suffix, names[i]);
        assert_int_equal(out[i].diff, ARG_NONE);
        assert_int_equal(out[i].dtype, i == 0 ? DTYPE_S8 : DTYPE_F32);
        assert_false(out[i].decay);
    }
    assert_int_equal(out[2].arg, ARG_SCALE);
    assert_int_equal(out[2].shape.dims[0], 4);
    assert_int_equal(op_parameters(&leaving, &image, out), 2);
    assert_string_equal(out[1].suffix, "factor");
}

/* 32 bits hold sums of up to 2^31 / (255 * 128) products: 65,793. */
static const struct {
    struct op op;
    int64_t channels;
    enum error_code code;
    const char *says;
} refused[] = {
    {CONV(.int8 = {DTYPE_F32, DTYPE_U8, DTYPE_NONE, 0}), 6, ERROR_INVALID, "not f32 to u8"},
    {CONV(.int8 = {DTYPE_U8, DTYPE_S32, DTYPE_NONE, 0}), 6, ERROR_INVALID, "not u8 to s32"},
    {CONV(.int8 = {.src = DTYPE_U8}), 6, ERROR_INVALID, "not u8 to none"},
    {CONV(.int8 = {DTYPE_U8, DTYPE_U8, DTYPE_U8, 1}), 6, ERROR_INVALID, "residual of an 8-bit convolution is u8, should be none"},
    {CONV(.residual = true, .int8 = {DTYPE_U8, DTYPE_U8, DTYPE_NONE, 1}), 6, ERROR_INVALID, "is none, should be u8 or s8"},
    {CONV(.residual = true, .int8 = {DTYPE_U8, DTYPE_U8, DTYPE_F32, 1}), 6, ERROR_INVALID, "is f32, should be u8 or s8"},
    {CONV(.residual = true, .int8 = {DTYPE_U8, DTYPE_U8, DTYPE_U8, INFINITY}), 6, ERROR_INVALID, "finite"},
    {CONV(.activation = ACTIVATION_RELU6, .int8 = {DTYPE_U8, DTYPE_U8, DTYPE_NONE, 0}), 6, ERROR_INVALID, "ReLU6"},
    {CONV(.int8 = {DTYPE_U8, DTYPE_U8, DTYPE_NONE, 0}), 7311, ERROR_TOO_LARGE, "65799 products"},
    {{OP_MAX_POOL, .max_pool = WINDOW(3, 2, 1), .max_pool_of = DTYPE_S32}, 6, ERROR_INVALID, "pool of s32"},
    {{OP_GLOBAL_AVERAGE_POOL, .global_average_pool_of = DTYPE_F32}, 6, ERROR_INVALID, "pool of f32"},
    {{OP_RESCALE, .rescale = {DTYPE_F32, DTYPE_S32, 1}}, 6, ERROR_INVALID, "f32 to s32"},
    {{OP_RESCALE, .rescale = {.dst = DTYPE_U8, .factor = 1}}, 6, ERROR_INVALID, "none to u8"},
    {{OP_RESCALE, .rescale = {DTYPE_F32, DTYPE_U8, NAN}}, 6, ERROR_INVALID, "finite"},
};

static void attributes_that_make_no_sense_are_refused(void **state) {
    struct op largest = CONV(.int8 = {DTYPE_U8, DTYPE_U8, DTYPE_NONE, 0});
    struct shape deep = {4, {1, 7310, 5, 5}}, got;
    (void)state;
    for (size_t i = 0; i < LENGTH(refused); i++) {
        struct shape inputs[OP_MAX_INPUTS] = {{4, {1, refused[i].channels, 5, 5}}, {4, {1, 4, 5, 5}}};
        struct error err = {0};
        if (op_output_shape(&refused[i].op, inputs, &got, &err))
            fail_msg("case %zu is let through", i);
        if (err.code != refused[i].code || !strstr(err.message, refused[i].says))
            fail_msg("case %zu: %s: %s", i, error_code_name(err.code), err.message);
    }
    assert_true(op_output_shape(&largest, &deep, &got, NULL)); /* 65,790 products */
}

static void text_says_all_attributes(void **state) {
    char text[160];
    (void)state;
    assert_string_equal(op_text(&adding, text, sizeof text),
                        "conv2d 4 3x3 pad 1 groups 1 +bias +residual relu s8>u8 residual s8*0.5");
    assert_string_equal(op_text(&leaving, text, sizeof text), "conv2d 4 3x3 pad 1 groups 1 u8>f32");
    assert_string_equal(op_text(&pool, text, sizeof text), "max_pool 3x3/2 pad 1 u8");
    assert_string_equal(op_text(&average, text, sizeof text), "global_average_pool s8");
    assert_string_equal(op_text(&quantise, text, sizeof text), "rescale f32>u8 *2.5");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arguments_have_the_dtypes_that_the_operation_says),
        cmocka_unit_test(a_mixed_precision_narrows_floats_and_leaves_integers),
        cmocka_unit_test(only_what_is_as_large_goes_in_place),
        cmocka_unit_test(integers_are_for_answers_only),
        cmocka_unit_test(weights_are_s8_and_nothing_is_learnt),
        cmocka_unit_test(attributes_that_make_no_sense_are_refused),
        cmocka_unit_test(text_says_all_attributes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
