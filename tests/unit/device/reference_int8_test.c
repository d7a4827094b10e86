/* The reference device on 8-bit integers, against numbers worked out by hand. */
#include "common/device/device.h"
#include "tests/conformance/device_run.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define LENGTH(array) ((int64_t)(sizeof(array) / sizeof *(array)))

/* One run of an operation: values in by role, dst out. */
struct trial {
    struct op op;
    struct shape inputs[OP_MAX_INPUTS];
    const double *values[ARG_COUNT];
};

static void expect_dst(const struct trial *trial, const double *wanted, int64_t count) {
    struct error err = {0};
    struct kernel_request request = {.op = trial->op, .pass = PASS_INFER};
    struct device_run run = {.request = &request};
    struct workspace workspace = {0};
    struct tensor tensors[ARG_COUNT];
    run.device = device_open(&(struct device_spec){.name = "reference"}, &err);
    if (!run.device || !op_arguments(&request.op, PASS_INFER, trial->inputs, &request.args, &err) ||
        !host_tensors_init(tensors, &request.args, &err))
        fail_msg("%s", err.message);
    for (int arg = 0; arg < ARG_COUNT; arg++)
        for (int64_t i = 0; trial->values[arg] && i < shape_count(&tensors[arg].shape); i++)
            host_set(&tensors[arg], i, trial->values[arg][i]);
    if (!device_run(&run, tensors, &workspace, &err))
        fail_msg("%s", err.message);
    assert_int_equal(shape_count(&tensors[ARG_DST].shape), count);
    for (int64_t i = 0; i < count; i++)
        if (host_get(&tensors[ARG_DST], i) != wanted[i])
            fail_msg("dst[%lld] is %.9g, should be %.9g", (long long)i, host_get(&tensors[ARG_DST], i), wanted[i]);
    host_tensors_fini(tensors);
    device_close(run.device);
}

#define EXPECT_DST(trial, wanted) expect_dst(trial, wanted, LENGTH(wanted))

/*
 * Under the window at each pixel, with zeros around the image:
 *     5*1 + 6*2 - 8*3 - 128*255 = -32647      4*1 + 5*2 - 7*3 - 8*255 = -2047
 *     2*1 + 3*2 + 5*3 +   6*255 =   1553      1*1 + 2*2 + 4*3 + 5*255 =  1292
 * / 16, - .25, and half the residual:
 *     -2040.4375 - .25 + 50                   -127.9375 - .25 + 50 = -78.1875
 *        97.0625 - .25 - 1.5 = 95.3125           80.75  - .25 +  4 =  84.5, a tie: to the even 84
 */
static const double source[] = {1, 2, 3, 255};
static const double weight[] = {1, 2, 3, 4, 5, 6, -7, -8, -128};
static const double factor[] = {0.0625}, bias[] = {-0.25}, residual[] = {100, 100, -3, 8};

static struct trial small_trial(enum dtype dst, enum activation activation) {
    static const struct window window = {{3, 3}, {1, 1}, {1, 1}, {1, 1}};
    struct trial trial = {.inputs = {{4, {1, 1, 2, 2}}, {4, {1, 1, 2, 2}}},
                          .values = {[ARG_SRC] = source,
                                     [ARG_WEIGHT] = weight,
                                     [ARG_SCALE] = factor,
                                     [ARG_BIAS] = bias,
                                     [ARG_SRC2] = residual}};
    trial.op = (struct op){OP_CONV2D, .conv2d = {.channels_out = 1, .window = window, .groups = 1, .bias = true,
                                                 .residual = true, .activation = activation}};
    trial.op.conv2d.int8 = (struct conv2d_int8){DTYPE_U8, dst, DTYPE_S8, 0.5f};
    return trial;
}

static void a_convolution_sums_integers_and_rounds_once_more_at_the_end(void **state) {
    static const double as_s8[] = {-128, -78, 95, 84}, as_u8[] = {0, 0, 95, 84};
    static const double as_f32[] = {-1990.6875, -78.1875, 95.3125, 84.5}, relu[] = {0, 0, 95.3125, 84.5};
    struct trial trial = small_trial(DTYPE_S8, ACTIVATION_NONE);
    (void)state;
    EXPECT_DST(&trial, as_s8);
    trial = small_trial(DTYPE_U8, ACTIVATION_NONE);
    EXPECT_DST(&trial, as_u8);
    trial = small_trial(DTYPE_F32, ACTIVATION_NONE);
    EXPECT_DST(&trial, as_f32);
    trial = small_trial(DTYPE_F32, ACTIVATION_RELU);
    EXPECT_DST(&trial, relu);
    trial = small_trial(DTYPE_S8, ACTIVATION_RELU);
    EXPECT_DST(&trial, as_u8);
}

/* bf16 has 8 bits of precision: 84.5 is one of its numbers, -78.1875 lies between -78 and -78.5, 95.3125 between 95 and 95.5. */
static void a_result_in_bf16_is_rounded_to_it(void **state) {
    static const double wanted[] = {-1992, -78, 95.5, 84.5};
    struct trial trial = small_trial(DTYPE_BF16, ACTIVATION_NONE);
    (void)state;
    EXPECT_DST(&trial, wanted);
}

/*
 * 518 * 255 * 127 + 255 * 7 + 2 = 2^24 + 1, which f32 has not: it is rounded, a tie, to 2^24 before anything is added. Then
 * 2^24 + 1, the bias, is a tie again; with the residual the exact sum would be 2^24 + 4.
 */
static void every_step_is_rounded_to_f32(void **state) {
    enum { CHANNELS = 520 };
    static double many[CHANNELS], weights[CHANNELS];
    static const double one[] = {1}, two[] = {2}, wanted[] = {16777218};
    (void)state;
    for (int c = 0; c < CHANNELS; c++) {
        many[c] = c < CHANNELS - 1 ? 255 : 1;
        weights[c] = c < CHANNELS - 2 ? 127 : c == CHANNELS - 2 ? 7 : 2;
    }
    struct trial trial = {.inputs = {{4, {1, CHANNELS, 1, 1}}, {4, {1, 1, 1, 1}}},
                          .values = {[ARG_SRC] = many,
                                     [ARG_WEIGHT] = weights,
                                     [ARG_SCALE] = one,
                                     [ARG_BIAS] = one,
                                     [ARG_SRC2] = two}};
    trial.op = (struct op){OP_CONV2D, .conv2d = {.channels_out = 1, .window = {{1, 1}, {1, 1}, {0, 0}, {0, 0}}, .groups = 1,
                                                 .bias = true, .residual = true}};
    trial.op.conv2d.int8 = (struct conv2d_int8){DTYPE_U8, DTYPE_F32, DTYPE_U8, 1};
    EXPECT_DST(&trial, wanted);
}

/* Two groups of one channel each: 3 * -5 * 1 + 10 and -4 * 7 * -.5 (a factor may be negative). */
static void groups_have_factors_of_their_own(void **state) {
    static const double src[] = {3, -4}, weights[] = {-5, 7}, factors[] = {1, -0.5}, biases[] = {10, 0}, wanted[] = {-5, 14};
    struct trial trial = {.inputs = {{4, {1, 2, 1, 1}}},
                          .values = {[ARG_SRC] = src, [ARG_WEIGHT] = weights, [ARG_SCALE] = factors, [ARG_BIAS] = biases}};
    (void)state;
    trial.op = (struct op){OP_CONV2D, .conv2d = {.channels_out = 2, .window = {{1, 1}, {1, 1}, {0, 0}, {0, 0}}, .groups = 2,
                                                 .bias = true, .int8 = {DTYPE_S8, DTYPE_S8, DTYPE_NONE, 0}}};
    EXPECT_DST(&trial, wanted);
}

static void rescaling_rounds_ties_to_even_and_saturates(void **state) {
    static const double src[] = {0.25, 0.75, 1.25, -0.75, 200, -200}, as_u8[] = {0, 2, 2, 0, 255, 0};
    static const double as_s8[] = {0, 2, 2, -2, 127, -128};
    struct trial trial = {.inputs = {{4, {1, 6, 1, 1}}}, .values = {[ARG_SRC] = src}};
    (void)state;
    trial.op = (struct op){OP_RESCALE, .rescale = {DTYPE_F32, DTYPE_U8, 2}};
    EXPECT_DST(&trial, as_u8);
    trial.op.rescale.dst = DTYPE_S8;
    EXPECT_DST(&trial, as_s8);
}

static void rescaling_goes_back_to_floats(void **state) {
    static const double src[] = {-128, -1, 0, 127}, wanted[] = {-32, -0.25, 0, 31.75};
    struct trial trial = {.inputs = {{4, {1, 4, 1, 1}}}, .values = {[ARG_SRC] = src}};
    (void)state;
    trial.op = (struct op){OP_RESCALE, .rescale = {DTYPE_S8, DTYPE_F32, 0.25f}};
    EXPECT_DST(&trial, wanted);
}

static void pools_take_integers(void **state) {
    static const double src[] = {-128, -3, -7, 127}, largest[] = {-3, 127}, mean[] = {-2.75};
    struct trial trial = {.inputs = {{4, {1, 1, 2, 2}}}, .values = {[ARG_SRC] = src}};
    (void)state;
    trial.op = (struct op){OP_MAX_POOL, .max_pool = {{1, 3}, {1, 1}, {0, 1}, {0, 0}}, .max_pool_of = DTYPE_S8};
    EXPECT_DST(&trial, largest);
    trial.op = (struct op){OP_GLOBAL_AVERAGE_POOL, .global_average_pool_of = DTYPE_S8};
    EXPECT_DST(&trial, mean);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_convolution_sums_integers_and_rounds_once_more_at_the_end),
        cmocka_unit_test(a_result_in_bf16_is_rounded_to_it),
        cmocka_unit_test(every_step_is_rounded_to_f32),
        cmocka_unit_test(groups_have_factors_of_their_own),
        cmocka_unit_test(rescaling_rounds_ties_to_even_and_saturates),
        cmocka_unit_test(rescaling_goes_back_to_floats),
        cmocka_unit_test(pools_take_integers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
