#include "common/op/dropout.h"
#include "common/op/op.h"
#include "common/op/variation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* clang-format off */
#define WINDOW(k, s, before, after) {.kernel = {k, k}, .stride = {s, s}, .pad_before = {before, before}, .pad_after = {after, after}}
#define CONV(out, in_groups, ...) {OP_CONV2D, .conv2d = {.channels_out = out, .groups = in_groups, __VA_ARGS__}}
#define NORM(...) {OP_BATCH_NORM, .batch_norm = {.epsilon = 1e-5f, .momentum = 0.1f, __VA_ARGS__}}
#define SUMS(...) {OP_BATCH_NORM_SUMS, .batch_norm = {.epsilon = 1e-5f, .momentum = 0.1f, .synchronised = true, __VA_ARGS__}}
#define DIMS4(n, c, h, w) {4, {n, c, h, w}}
#define DIMS2(n, f) {2, {n, f}}
/* clang-format on */
#define LENGTH(array) (sizeof(array) / sizeof *(array))

enum { VARIED_31X45 = (sizeof(struct variation) + 31 * 45 + 7) / 8 * 8 };

/* Shapes by the convolution arithmetic of Dumoulin & Visin 2016, relation 6: o = floor((i + p - k) / s) + 1.
 */
static const struct {
    struct op op;
    struct shape inputs[2], wanted;
} shape_cases[] = {
    {CONV(64, 1, .window = WINDOW(7, 2, 3, 3)), {DIMS4(2, 3, 224, 224)}, DIMS4(2, 64, 112, 112)},
    {CONV(64, 1, .window = WINDOW(7, 2, 3, 3)), {DIMS4(2, 3, 57, 56)}, DIMS4(2, 64, 29, 28)},
    {CONV(32, 1, .window = WINDOW(3, 2, 0, 1)), {DIMS4(1, 3, 224, 224)}, DIMS4(1, 32, 112, 112)},
    {CONV(8, 2, .window = {{2, 3}, {1, 2}, {1, 0}, {0, 2}}), {DIMS4(1, 4, 5, 9)}, DIMS4(1, 8, 5, 5)},
    {CONV(4, 1, .window = WINDOW(1, 1, 0, 0), .residual = true),
     {DIMS4(1, 2, 3, 3), DIMS4(1, 4, 3, 3)},
     DIMS4(1, 4, 3, 3)},
    {NORM(.frozen = true), {DIMS4(2, 3, 4, 5)}, DIMS4(2, 3, 4, 5)},
    {{OP_MAX_POOL, .max_pool = WINDOW(3, 2, 1, 1)}, {DIMS4(2, 64, 112, 112)}, DIMS4(2, 64, 56, 56)},
    {{.kind = OP_GLOBAL_AVERAGE_POOL}, {DIMS4(2, 64, 7, 7)}, DIMS2(2, 64)},
    {{OP_LINEAR, .linear = {3, true}}, {DIMS2(5, 512)}, DIMS2(5, 3)},
    {{OP_LINEAR, .linear = {3, true}}, {DIMS4(5, 8, 2, 2)}, DIMS2(5, 3)},
    {{OP_ADD, .activation = ACTIVATION_RELU}, {DIMS4(2, 3, 4, 5), DIMS4(2, 3, 4, 5)}, DIMS4(2, 3, 4, 5)},
    {{OP_DROPOUT, .dropout = {0.2f, 0}}, {DIMS2(5, 512)}, DIMS2(5, 512)},
    {{OP_SOFTMAX_CROSS_ENTROPY, .softmax_cross_entropy = {0}}, {DIMS2(5, 3)}, DIMS2(5, 3)},
    {{OP_INPUT, .input = DIMS4(1, 3, 28, 28)}, {{0}}, DIMS4(1, 3, 28, 28)},
    {{OP_VARY, .vary = {.channels = 3, .height = 31, .width = 45}}, {DIMS2(5, VARIED_31X45)}, DIMS4(5, 3, 31, 45)},
};

static void output_shapes(void **state) {
    (void)state;
    for (size_t i = 0; i < LENGTH(shape_cases); i++) {
        struct error err = {0};
        struct shape got;
        if (!op_output_shape(&shape_cases[i].op, shape_cases[i].inputs, &got, &err))
            fail_msg("case %zu: %s", i, err.message);
        if (!shape_equal(&got, &shape_cases[i].wanted))
            fail_msg("case %zu has another shape", i);
    }
}

static const struct {
    struct op op;
    struct shape inputs[2];
    enum error_code code;
    const char *says;
} refused_cases[] = {
    {{.kind = OP_NONE}, {DIMS4(1, 1, 1, 1)}, ERROR_INVALID, "not a kind"},
    {{OP_VARY, .vary = {.channels = 3, .height = 31, .width = 45}}, {DIMS2(5, VARIED_31X45 + 1)}, ERROR_SHAPE, "rows of"},
    {{OP_VARY, .vary = {.channels = 4, .height = 31, .width = 45}}, {DIMS2(5, VARIED_31X45)}, ERROR_INVALID, "channels"},
    {{OP_VARY, .vary = {.channels = 1, .height = 31, .width = 1}}, {DIMS2(5, VARIED_31X45)}, ERROR_INVALID, "pixels"},
    {{.kind = OP_KIND_COUNT}, {DIMS4(1, 1, 1, 1)}, ERROR_INVALID, "not a kind"},
    {{.kind = (enum op_kind) - 1}, {DIMS4(1, 1, 1, 1)}, ERROR_INVALID, "not a kind"},
    {CONV(4, 1, .window = WINDOW(3, 0, 1, 1)), {DIMS4(1, 3, 8, 8)}, ERROR_INVALID, "stride 0"},
    {CONV(4, 1, .window = WINDOW(0, 1, 1, 1)), {DIMS4(1, 3, 8, 8)}, ERROR_INVALID, "kernel 0"},
    {CONV(4, 1, .window = WINDOW(3, 1, -1, 1)), {DIMS4(1, 3, 8, 8)}, ERROR_INVALID, "padding -1"},
    {CONV(4, 1, .window = WINDOW(3, 1, 3, 1)), {DIMS4(1, 3, 8, 8)}, ERROR_INVALID, "less than the kernel"},
    {CONV(4, 1, .window = WINDOW(1, 1, 0, 1)), {DIMS4(1, 3, 8, 8)}, ERROR_INVALID, "less than the kernel"},
    {CONV(4, 0, .window = WINDOW(3, 1, 1, 1)), {DIMS4(1, 3, 8, 8)}, ERROR_INVALID, "0 groups"},
    {CONV(4, 2, .window = WINDOW(3, 1, 1, 1)), {DIMS4(1, 3, 8, 8)}, ERROR_INVALID, "2 groups"},
    {CONV(3, 2, .window = WINDOW(3, 1, 1, 1)), {DIMS4(1, 4, 8, 8)}, ERROR_INVALID, "2 groups"},
    {CONV(0, 1, .window = WINDOW(3, 1, 1, 1)), {DIMS4(1, 4, 8, 8)}, ERROR_INVALID, "0 output channels"},
    {CONV(4, 1, .window = WINDOW(3, 1, 0, 0)), {DIMS4(1, 3, 2, 8)}, ERROR_SHAPE, "does not fit"},
    {CONV(4, 1, .window = WINDOW(3, 1, 1, 1)), {DIMS2(1, 3)}, ERROR_SHAPE, "4 dimensions"},
    {CONV(4, 1, .window = WINDOW(3, 1, 1, 1)), {DIMS4(0, 3, 8, 8)}, ERROR_SHAPE, "at least 1"},
    {CONV(4, 1, .window = WINDOW(3, 1, 1, 1), .activation = (enum activation)7),
     {DIMS4(1, 3, 8, 8)},
     ERROR_INVALID,
     "not an activation"},
    {CONV(4, 1, .window = WINDOW(1, 1, 0, 0), .residual = true),
     {DIMS4(1, 3, 8, 8), DIMS4(1, 3, 8, 8)},
     ERROR_SHAPE,
     "cannot add"},
    {NORM(.residual = true), {DIMS4(1, 3, 8, 8), DIMS4(1, 3, 8, 7)}, ERROR_SHAPE, "cannot add"},
    {{OP_BATCH_NORM, .batch_norm = {.epsilon = 0, .momentum = 0.1f}},
     {DIMS4(1, 3, 8, 8)},
     ERROR_INVALID,
     "epsilon"},
    {{OP_BATCH_NORM, .batch_norm = {.epsilon = 1e-5f, .momentum = 1.5f}},
     {DIMS4(1, 3, 8, 8)},
     ERROR_INVALID,
     "momentum"},
    {SUMS(.frozen = true), {DIMS4(1, 3, 8, 8)}, ERROR_INVALID, "nothing to sum"},
    {SUMS(.frozen = false), {DIMS2(1, 3)}, ERROR_SHAPE, "4 dimensions"},
    {{OP_ACTIVATION, .activation = ACTIVATION_NONE}, {DIMS2(1, 3)}, ERROR_INVALID, "which activation"},
    {{OP_ADD, .activation = ACTIVATION_NONE}, {DIMS2(1, 3), DIMS2(1, 4)}, ERROR_SHAPE, "cannot add"},
    {{OP_MAX_POOL, .max_pool = WINDOW(2, 2, 2, 0)},
     {DIMS4(1, 3, 8, 8)},
     ERROR_INVALID,
     "less than the kernel"},
    {{OP_LINEAR, .linear = {0, false}}, {DIMS2(1, 3)}, ERROR_INVALID, "output features"},
    {{OP_LINEAR, .linear = {INT64_MAX / 8, false}}, {DIMS2(1, 16)}, ERROR_TOO_LARGE, "overflows"},
    {CONV(INT64_MAX / 64, 1, .window = WINDOW(3, 1, 1, 1)),
     {DIMS4(1, 3, 1, 1)},
     ERROR_TOO_LARGE,
     "overflows"},
    {{OP_DROPOUT, .dropout = {1, 0}}, {DIMS2(1, 3)}, ERROR_INVALID, "rate"},
    {{OP_DROPOUT, .dropout = {-0.1f, 0}}, {DIMS2(1, 3)}, ERROR_INVALID, "rate"},
    {{OP_SOFTMAX_CROSS_ENTROPY, .softmax_cross_entropy = {1.1f}}, {DIMS2(1, 3)}, ERROR_INVALID, "smoothing"},
    {{OP_SGD, .optimizer = {false}}, {{1, {63}}}, ERROR_SHAPE, "multiple of 64"},
};

static void attributes_that_make_no_sense_are_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < LENGTH(refused_cases); i++) {
        struct error err = {0};
        struct shape shape;
        if (op_output_shape(&refused_cases[i].op, refused_cases[i].inputs, &shape, &err))
            fail_msg("case %zu is let through", i);
        if (err.code != refused_cases[i].code || !strstr(err.message, refused_cases[i].says))
            fail_msg("case %zu: %s: %s", i, error_code_name(err.code), err.message);
    }
}

/* "<src >dst": what goes in and out, with = for both; in-place outputs name what they may overlay. */
static const char *describe(const struct op_args *args, char *out, size_t size) {
    static const char marks[] = {[ARG_IN] = '<', [ARG_OUT] = '>', [ARG_INOUT] = '='};
    size_t used = 0;
    out[0] = 0;
    for (enum arg arg = ARG_NONE + 1; arg < ARG_COUNT && used < size; arg++) {
        if (args->direction[arg] == ARG_ABSENT)
            continue;
        const char *over = args->in_place[arg] ? arg_name(args->in_place[arg]) : "";
        used += (size_t)snprintf(out + used, size - used, "%s%c%s%s%s", used ? " " : "",
                                 marks[args->direction[arg]], arg_name(arg), *over ? "/" : "", over);
    }
    return out;
}

static const struct {
    struct op op;
    struct shape input;
    const char *wanted[PASS_COUNT]; /* NULL: no such pass */
} argument_cases[] = {
    {CONV(4, 1, .window = WINDOW(3, 1, 1, 1), .bias = true),
     DIMS4(2, 4, 5, 5),
     {"<src <weight <bias >dst", "<src <weight <bias >dst", "<weight <diff_dst >diff_src",
      "<src <diff_dst >diff_weight >diff_bias"}},
    {CONV(4, 1, .window = WINDOW(3, 1, 1, 1), .residual = true),
     DIMS4(2, 4, 5, 5),
     {"<src <src2 <weight >dst/src2", NULL, NULL, NULL}},
    {NORM(.frozen = false),
     DIMS4(2, 4, 5, 5),
     {"<src <scale <shift <running_mean <running_variance >dst/src",
      "<src <scale <shift =running_mean =running_variance >dst >saved_mean >saved_variance",
      "<src <scale <saved_mean <saved_variance <diff_dst >diff_src/diff_dst >diff_scale >diff_shift", NULL}},
    {NORM(.frozen = true),
     DIMS4(2, 4, 5, 5),
     {"<src <scale <shift <running_mean <running_variance >dst/src",
      "<src <scale <shift <running_mean <running_variance >dst",
      "<src <scale <running_mean <running_variance <diff_dst >diff_src/diff_dst >diff_scale >diff_shift",
      NULL}},
    {NORM(.residual = true, .activation = ACTIVATION_RELU),
     DIMS4(2, 4, 5, 5),
     {"<src <src2 <scale <shift <running_mean <running_variance >dst/src",
      "<src <src2 <scale <shift =running_mean =running_variance >dst >saved_mean >saved_variance "
      ">workspace",
      "<src <scale <saved_mean <saved_variance <workspace <diff_dst >diff_src >diff_src2/diff_dst "
      ">diff_scale "
      ">diff_shift",
      NULL}},
    {NORM(.synchronised = true, .residual = true, .activation = ACTIVATION_RELU),
     DIMS4(2, 4, 5, 5),
     {"<src <src2 <scale <shift <running_mean <running_variance >dst/src",
      "<src <src2 <scale <shift =running_mean =running_variance >dst >saved_mean >saved_variance <sums "
      ">workspace",
      "<src <scale <saved_mean <saved_variance <sums <workspace <diff_dst >diff_src >diff_src2/diff_dst", NULL}},
    {NORM(.synchronised = true, .frozen = true), /* there is nothing to synchronise */
     DIMS4(2, 4, 5, 5),
     {"<src <scale <shift <running_mean <running_variance >dst/src",
      "<src <scale <shift <running_mean <running_variance >dst",
      "<src <scale <running_mean <running_variance <diff_dst >diff_src/diff_dst >diff_scale >diff_shift",
      NULL}},
    {SUMS(.residual = true, .activation = ACTIVATION_RELU),
     DIMS4(2, 4, 5, 5),
     {NULL, "<src >sums", "<src <saved_mean <saved_variance >sums <workspace <diff_dst >diff_scale >diff_shift", NULL}},
    {{OP_ACTIVATION, .activation = ACTIVATION_RELU},
     DIMS2(2, 4),
     {"<src >dst/src", "<src >dst/src", "<dst <diff_dst >diff_src/diff_dst", NULL}},
    {{OP_ADD, .activation = ACTIVATION_RELU6},
     DIMS2(2, 4),
     {"<src <src2 >dst/src", "<src <src2 >dst/src", "<dst <diff_dst >diff_src/diff_dst", NULL}},
    {{OP_ADD, .activation = ACTIVATION_NONE},
     DIMS2(2, 4),
     {"<src <src2 >dst/src", "<src <src2 >dst/src", "<diff_dst >diff_src/diff_dst", NULL}},
    {{OP_MAX_POOL, .max_pool = WINDOW(3, 2, 1, 1)},
     DIMS4(2, 4, 5, 5),
     {"<src >dst", "<src >dst >workspace", "<workspace <diff_dst >diff_src", NULL}},
    {{.kind = OP_GLOBAL_AVERAGE_POOL},
     DIMS4(2, 4, 5, 5),
     {"<src >dst", "<src >dst", "<diff_dst >diff_src", NULL}},
    {{OP_LINEAR, .linear = {3, true}},
     DIMS2(2, 4),
     {"<src <weight <bias >dst", "<src <weight <bias >dst", "<weight <diff_dst >diff_src",
      "<src <diff_dst >diff_weight >diff_bias"}},
    {{OP_DROPOUT, .dropout = {0.5f, 0}},
     DIMS2(2, 4),
     {"<src >dst/src", "<src >dst/src <seed", "<diff_dst >diff_src/diff_dst <seed", NULL}},
    {{OP_SOFTMAX_CROSS_ENTROPY, .softmax_cross_entropy = {0}},
     DIMS2(2, 4),
     {"<src >dst/src", "<src >dst/src <label <class_weight >loss", "<dst <label <class_weight >diff_src/dst",
      NULL}},
    {{.kind = OP_REORDER}, DIMS2(2, 4), {NULL, "<src >dst", NULL, NULL}},
    {{.kind = OP_GRADIENT_NORM}, {1, {128}}, {NULL, "<gradient >norm", NULL, NULL}},
    {{OP_SGD, .optimizer = {false}},
     {1, {128}},
     {NULL, "=parameter <gradient =state <decay <hyper <norm", NULL, NULL}},
    {{OP_ADAMW, .optimizer = {true}},
     {1, {128}},
     {NULL, "=parameter <gradient =state =state2 =ema <decay <hyper <norm", NULL, NULL}},
    {{OP_INPUT, .input = DIMS4(1, 3, 4, 4)}, {0}, {NULL, NULL, NULL, NULL}},
};

static void arguments_of_every_pass(void **state) {
    (void)state;
    for (size_t i = 0; i < LENGTH(argument_cases); i++)
        for (enum pass pass = 0; pass < PASS_COUNT; pass++) {
            struct shape inputs[OP_MAX_INPUTS] = {argument_cases[i].input, argument_cases[i].input};
            struct op_args args;
            struct error err = {0};
            char text[256];
            if (op_arguments(&argument_cases[i].op, pass, inputs, &args, &err)) {
                assert_non_null(argument_cases[i].wanted[pass]);
                assert_string_equal(describe(&args, text, sizeof text), argument_cases[i].wanted[pass]);
            } else {
                assert_null(argument_cases[i].wanted[pass]);
                assert_int_equal(err.code, ERROR_UNSUPPORTED);
                assert_true(err.message[0]);
            }
        }
}

static void arguments_carry_shapes_and_dtypes(void **state) {
    const struct op conv = CONV(6, 2, .window = WINDOW(3, 2, 1, 1), .bias = true);
    const struct op sums = SUMS(.frozen = false), loss = {OP_SOFTMAX_CROSS_ENTROPY, .softmax_cross_entropy = {0}},
                    sgd = {OP_SGD, .optimizer = {false}};
    struct shape image = DIMS4(2, 4, 5, 7), rows = DIMS2(8, 3), flat = {1, {256}}, wanted;
    struct op_args args;
    (void)state;
    assert_true(op_arguments(&conv, PASS_BACKWARD_WEIGHT, &image, &args, NULL));
    wanted = (struct shape)DIMS4(6, 2, 3, 3);
    assert_true(shape_equal(&args.desc[ARG_DIFF_WEIGHT].shape, &wanted));
    assert_int_equal(args.desc[ARG_DIFF_WEIGHT].dtype, DTYPE_F32);
    assert_int_equal(args.desc[ARG_DIFF_WEIGHT].bytes, 6 * 2 * 3 * 3 * 4);
    wanted = (struct shape)DIMS4(2, 6, 3, 4);
    assert_true(shape_equal(&args.desc[ARG_DIFF_DST].shape, &wanted));
    assert_true(op_arguments(&sums, PASS_FORWARD, &image, &args, NULL));
    wanted = (struct shape)DIMS2(3, 4);
    assert_true(shape_equal(&args.desc[ARG_SUMS].shape, &wanted));
    assert_int_equal(args.desc[ARG_SUMS].dtype, DTYPE_F64);
    assert_int_equal(args.desc[ARG_SUMS].bytes, 3 * 4 * 8);
    assert_true(op_arguments(&loss, PASS_FORWARD, &rows, &args, NULL));
    assert_int_equal(args.desc[ARG_LABEL].dtype, DTYPE_S32);
    assert_int_equal(args.desc[ARG_LABEL].shape.dims[0], 8);
    assert_int_equal(args.desc[ARG_CLASS_WEIGHT].shape.dims[0], 3);
    assert_true(op_arguments(&sgd, PASS_FORWARD, &flat, &args, NULL));
    assert_int_equal(args.desc[ARG_DECAY].shape.dims[0], 4);
    assert_int_equal(args.desc[ARG_NORM].dtype, DTYPE_F64);
    assert_int_equal(args.desc[ARG_HYPER].shape.dims[0], HYPER_COUNT);
}

/* Names as in torchvision's state_dict; decay on weights only, as the usual recipes have it. */
static void parameters_are_named_as_in_a_state_dict(void **state) {
    const struct op conv = CONV(6, 2, .window = WINDOW(3, 2, 1, 1)), norm = NORM(.frozen = false);
    const struct op linear = {OP_LINEAR, .linear = {3, true}};
    struct shape image = DIMS4(2, 4, 5, 7), wanted = DIMS4(6, 2, 3, 3), flattened = DIMS2(3, 140);
    struct op_parameter out[OP_MAX_PARAMETERS];
    (void)state;
    assert_int_equal(op_parameters(&conv, &image, out), 1);
    assert_string_equal(out[0].suffix, "weight");
    assert_true(shape_equal(&out[0].shape, &wanted) && out[0].decay && out[0].diff == ARG_DIFF_WEIGHT);
    assert_int_equal(op_parameters(&norm, &image, out), 4);
    assert_string_equal(out[0].suffix, "weight");
    assert_string_equal(out[3].suffix, "running_var");
    assert_false(out[0].decay || out[1].decay);
    assert_int_equal(out[2].diff, ARG_NONE);
    assert_int_equal(out[3].diff, ARG_NONE);
    assert_int_equal(op_parameters(&linear, &image, out), 2);
    assert_true(shape_equal(&out[0].shape, &flattened) && out[0].decay && !out[1].decay);
}

static const struct {
    struct op op;
    const char *text;
} text_cases[] = {
    {CONV(64, 1, .window = WINDOW(3, 2, 1, 1), .bias = true), "conv2d 64 3x3/2 pad 1 groups 1 +bias"},
    {CONV(32, 32, .window = {{3, 5}, {1, 2}, {0, 1}, {1, 2}}, .residual = true,
          .activation = ACTIVATION_RELU6),
     "conv2d 32 3x5/1x2 pad 0:1,1:2 groups 32 +residual relu6"},
    {NORM(.frozen = true, .activation = ACTIVATION_RELU),
     "batch_norm epsilon 1e-05 momentum 0.1 frozen relu"},
    {NORM(.synchronised = true), "batch_norm epsilon 1e-05 momentum 0.1 synchronised"},
    {{OP_MAX_POOL, .max_pool = WINDOW(3, 2, 1, 1)}, "max_pool 3x3/2 pad 1"},
    {{OP_LINEAR, .linear = {3, true}}, "linear 3 +bias"},
    {{OP_ADD, .activation = ACTIVATION_RELU}, "add relu"},
    {{.kind = OP_GLOBAL_AVERAGE_POOL}, "global_average_pool"},
    {{OP_INPUT, .input = DIMS4(1, 3, 28, 28)}, "input (1, 3, 28, 28)"},
};

static void text_says_all_attributes(void **state) {
    char text[160], small[9];
    (void)state;
    for (size_t i = 0; i < LENGTH(text_cases); i++)
        assert_string_equal(op_text(&text_cases[i].op, text, sizeof text), text_cases[i].text);
    assert_string_equal(op_text(&text_cases[0].op, small, sizeof small), "conv2d 6");
}

/* ResNet-50's stem does 112 x 112 x 64 x 147 multiply-adds an image. */
static void flops_count_both_halves_of_a_multiply_add(void **state) {
    const struct op stem = CONV(64, 1, .window = WINDOW(7, 2, 3, 3)),
                    linear = {OP_LINEAR, .linear = {1000, true}};
    struct shape image = DIMS4(2, 3, 224, 224), features = DIMS2(2, 2048);
    (void)state;
    assert_true(op_flops(&stem, PASS_FORWARD, &image) == 2.0 * 2 * 112 * 112 * 64 * 147);
    assert_true(op_flops(&linear, PASS_BACKWARD_DATA, &features) == 2.0 * 2 * 2048 * 1000);
}

static void only_an_idle_backward_pass_is_an_identity(void **state) {
    const struct op add = {OP_ADD, .activation = ACTIVATION_NONE},
                    add_relu = {OP_ADD, .activation = ACTIVATION_RELU};
    const struct op no_dropout = {OP_DROPOUT, .dropout = {0, 0}},
                    dropout = {OP_DROPOUT, .dropout = {0.1f, 0}};
    const struct op conv = CONV(6, 2, .window = WINDOW(3, 2, 1, 1));
    (void)state;
    assert_true(op_backward_is_identity(&add) && op_backward_is_identity(&no_dropout));
    assert_false(op_backward_is_identity(&add_relu) || op_backward_is_identity(&dropout) ||
                 op_backward_is_identity(&conv));
}

enum { SAMPLES = 4, FEATURES = 500 };

static void dropout_knows_a_sample_by_its_place_in_the_global_batch(void **state) {
    const int64_t whole[] = {7, 3, 100}, second_half[] = {7, 3, 100 + SAMPLES / 2};
    (void)state;
    for (int64_t i = 0; i < SAMPLES / 2 * FEATURES; i++)
        assert_int_equal(dropout_keeps(second_half, 0, 0.5f, FEATURES, i),
                         dropout_keeps(whole, 0, 0.5f, FEATURES, i + SAMPLES / 2 * FEATURES));
}

/* How many of 2,000 elements two draws decide alike: independent ones agree on about half. */
static int agreement(const int64_t a[3], uint32_t salt_a, const int64_t b[3], uint32_t salt_b) {
    int same = 0;
    for (int64_t i = 0; i < SAMPLES * FEATURES; i++)
        same += dropout_keeps(a, salt_a, 0.5f, FEATURES, i) == dropout_keeps(b, salt_b, 0.5f, FEATURES, i);
    return same;
}

static void dropout_differs_by_seed_step_and_salt(void **state) {
    const int64_t base[] = {7, 3, 0}, seed[] = {8, 3, 0}, later[] = {7, 4, 0};
    (void)state;
    assert_in_range(agreement(base, 0, seed, 0), 850, 1150);
    assert_in_range(agreement(base, 0, later, 0), 850, 1150);
    assert_in_range(agreement(base, 0, base, 1), 850, 1150);
}

static void dropout_drops_its_rate(void **state) {
    const int64_t seed[] = {7, 3, 0};
    int kept = 0;
    (void)state;
    for (int64_t i = 0; i < 10000; i++)
        kept += dropout_keeps(seed, 0, 0.2f, 10000, i);
    assert_in_range(kept, 7840, 8160); /* 8,000 and four standard deviations */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_shapes),
        cmocka_unit_test(attributes_that_make_no_sense_are_refused),
        cmocka_unit_test(arguments_of_every_pass),
        cmocka_unit_test(arguments_carry_shapes_and_dtypes),
        cmocka_unit_test(parameters_are_named_as_in_a_state_dict),
        cmocka_unit_test(text_says_all_attributes),
        cmocka_unit_test(flops_count_both_halves_of_a_multiply_add),
        cmocka_unit_test(only_an_idle_backward_pass_is_an_identity),
        cmocka_unit_test(dropout_knows_a_sample_by_its_place_in_the_global_batch),
        cmocka_unit_test(dropout_differs_by_seed_step_and_salt),
        cmocka_unit_test(dropout_drops_its_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
