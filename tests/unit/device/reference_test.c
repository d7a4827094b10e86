/* The forward passes of the reference device against PyTorch (reference_golden.py), in f64; the backward ones
 * are in tests/gradient. */
#include "common/device/device.h"
#include "common/tensor/element.h"
#include "tests/conformance/device_run.h"
#include "tests/unit/device/reference_golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define LENGTH(array) ((int64_t)(sizeof(array) / sizeof *(array)))

/* One kernel and its host tensors. */
struct bench {
    struct device *device;
    struct kernel_request request;
    struct tensor tensors[ARG_COUNT];
    struct workspace workspace;
};

static void expect(bool ok, const struct error *err) {
    if (!ok)
        fail_msg("%s", err->message);
}

static void bench_init(struct bench *bench, struct op op, enum pass pass, const struct shape *inputs) {
    struct error err = {0};
    struct device_spec spec = {.name = "reference"};
    *bench = (struct bench){.request = {.op = op, .pass = pass}};
    bench->device = device_open(&spec, &err);
    expect(bench->device && op_arguments(&op, pass, inputs, &bench->request.args, &err), &err);
    for (int arg = 0; arg < ARG_COUNT; arg++) {
        struct tensor_desc *desc = &bench->request.args.desc[arg];
        if (desc->dtype == DTYPE_F32)
            *desc = tensor_desc_dense(DTYPE_F64, &desc->shape);
    }
    expect(host_tensors_init(bench->tensors, &bench->request.args, &err), &err);
}

static void bench_run(struct bench *bench) {
    struct error err = {0};
    struct device_run run = {.device = bench->device, .request = &bench->request};
    expect(device_run(&run, bench->tensors, &bench->workspace, &err), &err);
}

static void bench_fini(struct bench *bench) {
    workspace_fini(&bench->workspace, bench->device);
    host_tensors_fini(bench->tensors);
    device_close(bench->device);
}

/* `value` of reference_golden.py, for elements first.. of a tensor, times factor plus offset. */
static double value(int key, int64_t i) {
    return (double)((i * 37 + key * 11) % 101) / 50 - 1;
}

static void set_values(struct bench *bench, enum arg arg, int key, double factor, double offset) {
    struct tensor *tensor = &bench->tensors[arg];
    for (int64_t i = 0; i < shape_count(&tensor->shape); i++)
        host_set(tensor, i, value(key, i) * factor + offset);
}

static void expect_golden(struct bench *bench, enum arg arg, const double *golden, int64_t count) {
    const struct tensor *tensor = &bench->tensors[arg];
    assert_int_equal(shape_count(&tensor->shape), count);
    for (int64_t i = 0; i < count; i++)
        if (!(fabs(host_get(tensor, i) - golden[i]) <= 1e-12 * fmax(1, fabs(golden[i]))))
            fail_msg("%s[%lld] is %.15g, PyTorch has %.15g", arg_name(arg), (long long)i, host_get(tensor, i),
                     golden[i]);
}

#define EXPECT_GOLDEN(bench, arg, golden) expect_golden(bench, arg, golden, LENGTH(golden))

static const struct window odd_window = {{3, 3}, {2, 3}, {0, 1}, {1, 2}};

static void convolution_is_a_grouped_cross_correlation(void **state) {
    struct op op = {OP_CONV2D,
                    .conv2d = {.channels_out = 6, .window = odd_window, .groups = 2, .bias = true}};
    struct shape image = {4, {2, 4, 5, 7}};
    struct bench bench;
    (void)state;
    bench_init(&bench, op, PASS_FORWARD, &image);
    set_values(&bench, ARG_SRC, 1, 1, 0);
    set_values(&bench, ARG_WEIGHT, 2, 1, 0);
    set_values(&bench, ARG_BIAS, 3, 1, 0);
    bench_run(&bench);
    EXPECT_GOLDEN(&bench, ARG_DST, golden_conv2d);
    bench_fini(&bench);
}

static void convolution_adds_before_it_activates(void **state) {
    struct op op = {OP_CONV2D, .conv2d = {6, odd_window, 2, .bias = true, .residual = true,
                                          .activation = ACTIVATION_RELU6}};
    struct shape inputs[] = {{4, {2, 4, 5, 7}}, {4, {2, 6, 2, 3}}};
    struct bench bench;
    (void)state;
    bench_init(&bench, op, PASS_INFER, inputs);
    set_values(&bench, ARG_SRC, 1, 1, 0);
    set_values(&bench, ARG_WEIGHT, 2, 1, 0);
    set_values(&bench, ARG_BIAS, 3, 6, 0);
    set_values(&bench, ARG_SRC2, 4, 8, 0);
    bench_run(&bench);
    EXPECT_GOLDEN(&bench, ARG_DST, golden_conv2d_fused);
    bench_fini(&bench);
}

static void batch_norm_bench(struct bench *bench, struct batch_norm norm, enum pass pass) {
    struct op op = {OP_BATCH_NORM, .batch_norm = norm};
    struct shape inputs[] = {{4, {3, 4, 2, 5}}, {4, {3, 4, 2, 5}}};
    bench_init(bench, op, pass, inputs);
    set_values(bench, ARG_SRC, 1, 1, 0);
    if (norm.residual)
        set_values(bench, ARG_SRC2, 2, 1, 0);
    set_values(bench, ARG_SCALE, 3, 1, 0);
    set_values(bench, ARG_SHIFT, 4, 1, 0);
    set_values(bench, ARG_RUNNING_MEAN, 5, 1, 0);
    set_values(bench, ARG_RUNNING_VARIANCE, 6, 1, 1.5);
    bench_run(bench);
}

static void batch_norm_for_an_answer_uses_running_statistics(void **state) {
    struct bench bench;
    (void)state;
    batch_norm_bench(&bench, (struct batch_norm){.epsilon = 0.125f, .momentum = 0.25f}, PASS_INFER);
    EXPECT_GOLDEN(&bench, ARG_DST, golden_batch_norm_frozen);
    bench_fini(&bench);
    batch_norm_bench(&bench, (struct batch_norm){.epsilon = 0.125f, .momentum = 0.25f, .frozen = true},
                     PASS_FORWARD);
    EXPECT_GOLDEN(&bench, ARG_DST, golden_batch_norm_frozen);
    bench_fini(&bench);
}

static void batch_norm_in_training_moves_running_statistics(void **state) {
    struct bench bench;
    struct batch_norm norm = {0.125f, 0.25f, .residual = true, .activation = ACTIVATION_RELU};
    (void)state;
    batch_norm_bench(&bench, norm, PASS_FORWARD);
    EXPECT_GOLDEN(&bench, ARG_DST, golden_batch_norm);
    EXPECT_GOLDEN(&bench, ARG_RUNNING_MEAN, golden_running_mean);
    EXPECT_GOLDEN(&bench, ARG_RUNNING_VARIANCE, golden_running_variance);
    bench_fini(&bench);
}

static void pools_agree(void **state) {
    struct op max = {OP_MAX_POOL, .max_pool = {{3, 3}, {2, 2}, {1, 1}, {1, 1}}},
              average = {.kind = OP_GLOBAL_AVERAGE_POOL};
    struct shape image = {4, {2, 3, 5, 6}};
    struct bench bench;
    (void)state;
    bench_init(&bench, max, PASS_FORWARD, &image);
    set_values(&bench, ARG_SRC, 1, 1, 0);
    bench_run(&bench);
    EXPECT_GOLDEN(&bench, ARG_DST, golden_max_pool);
    bench_fini(&bench);
    bench_init(&bench, average, PASS_INFER, &image);
    set_values(&bench, ARG_SRC, 1, 1, 0);
    bench_run(&bench);
    EXPECT_GOLDEN(&bench, ARG_DST, golden_average_pool);
    bench_fini(&bench);
}

static void linear_agrees_on_images_and_rows(void **state) {
    static const struct shape sources[] = {{2, {3, 8}}, {4, {3, 2, 2, 2}}};
    struct op op = {OP_LINEAR, .linear = {5, true}};
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct bench bench;
        bench_init(&bench, op, PASS_FORWARD, &sources[i]);
        set_values(&bench, ARG_SRC, 1, 1, 0);
        set_values(&bench, ARG_WEIGHT, 2, 1, 0);
        set_values(&bench, ARG_BIAS, 3, 1, 0);
        bench_run(&bench);
        EXPECT_GOLDEN(&bench, ARG_DST, golden_linear);
        bench_fini(&bench);
    }
}

static void loss_bench(struct bench *bench, const int labels[5]) {
    struct op op = {OP_SOFTMAX_CROSS_ENTROPY, .softmax_cross_entropy = {0.125f}};
    struct shape logits = {2, {5, 3}};
    bench_init(bench, op, PASS_FORWARD, &logits);
    set_values(bench, ARG_SRC, 1, 4, 0);
    set_values(bench, ARG_CLASS_WEIGHT, 2, 1, 1.5);
    for (int i = 0; i < 5; i++)
        host_set(&bench->tensors[ARG_LABEL], i, labels[i]);
    bench_run(bench);
}

static void loss_weighs_classes_and_smooths_labels(void **state) {
    static const int labels[] = {2, 0, 1, 1, 2};
    struct bench bench;
    (void)state;
    loss_bench(&bench, labels);
    EXPECT_GOLDEN(&bench, ARG_DST, golden_softmax);
    EXPECT_GOLDEN(&bench, ARG_LOSS, golden_loss);
    bench_fini(&bench);
}

static void rows_with_a_label_out_of_range_do_not_count(void **state) {
    static const int labels[] = {2, 0, 1, 1, 2}, none[] = {-1, 3, INT32_MIN, INT32_MAX, -100};
    struct bench bench;
    double sum = 0;
    (void)state;
    loss_bench(&bench, none);
    assert_true(host_get(&bench.tensors[ARG_LOSS], 0) == 0);
    bench_fini(&bench);
    for (int i = 0; i < 5; i++) {
        int one[] = {-1, -1, -1, -1, -1};
        one[i] = labels[i];
        loss_bench(&bench, one);
        sum += host_get(&bench.tensors[ARG_LOSS], 0);
        bench_fini(&bench);
    }
    assert_true(fabs(sum - golden_loss[0]) < 1e-12);
}

static void logits_of_any_size_give_probabilities(void **state) {
    struct op op = {OP_SOFTMAX_CROSS_ENTROPY, .softmax_cross_entropy = {0}};
    struct shape logits = {2, {1, 2}};
    struct bench bench;
    (void)state;
    bench_init(&bench, op, PASS_INFER, &logits);
    host_set(&bench.tensors[ARG_SRC], 0, -1e300);
    host_set(&bench.tensors[ARG_SRC], 1, 1e300);
    bench_run(&bench);
    assert_true(host_get(&bench.tensors[ARG_DST], 0) == 0 && host_get(&bench.tensors[ARG_DST], 1) == 1);
    bench_fini(&bench);
}

/* Dropped elements are 0, the others divided by 1 - rate = 1/2; an answer drops nothing. */
static void dropout_scales_what_it_keeps(void **state) {
    struct op op = {OP_DROPOUT, .dropout = {0.5f, 0}};
    struct shape rows = {2, {4, 50}};
    struct bench bench;
    int kept = 0;
    (void)state;
    bench_init(&bench, op, PASS_FORWARD, &rows);
    set_values(&bench, ARG_SRC, 1, 1, 2);
    bench_run(&bench);
    for (int i = 0; i < 200; i++) {
        double y = host_get(&bench.tensors[ARG_DST], i), x = host_get(&bench.tensors[ARG_SRC], i);
        assert_true(y == 0 || y == 2 * x);
        kept += y != 0;
    }
    assert_in_range(kept, 72, 128); /* 100 and four standard deviations */
    bench_fini(&bench);
    bench_init(&bench, op, PASS_INFER, &rows);
    set_values(&bench, ARG_SRC, 1, 1, 2);
    bench_run(&bench);
    assert_memory_equal(bench.tensors[ARG_DST].data, bench.tensors[ARG_SRC].data, 200 * sizeof(double));
    bench_fini(&bench);
}

/* A NaN must reach the loss and be seen there, not end as the 0 of a ReLU. */
static void a_nan_stays_one(void **state) {
    static const struct op ops[] = {{OP_ACTIVATION, .activation = ACTIVATION_RELU},
                                    {OP_ACTIVATION, .activation = ACTIVATION_RELU6},
                                    {OP_MAX_POOL, .max_pool = {{3, 3}, {1, 1}, {1, 1}, {1, 1}}}};
    struct shape image = {4, {1, 1, 2, 2}};
    (void)state;
    for (int k = 0; k < 3; k++) {
        struct bench bench;
        bench_init(&bench, ops[k], PASS_INFER, &image);
        host_set(&bench.tensors[ARG_SRC], 1, NAN);
        bench_run(&bench);
        assert_true(isnan(host_get(&bench.tensors[ARG_DST], 1)));
        bench_fini(&bench);
    }
}

/* --- optimisers: 128 elements, of which the first 64 decay --- */

static void set_hyper(struct bench *bench, enum hyper hyper, double number) {
    host_set(&bench->tensors[ARG_HYPER], hyper, number);
}

static void optimizer_bench(struct bench *bench, enum op_kind kind) {
    struct op op = {.kind = kind, .optimizer = {.ema = true}};
    struct shape flat = {1, {128}};
    bench_init(bench, op, PASS_FORWARD, &flat);
    for (int i = 0; i < 128; i++) {
        host_set(&bench->tensors[ARG_PARAMETER], i, value(i < 64 ? 1 : 2, i % 64));
        host_set(&bench->tensors[ARG_EMA], i, value(i < 64 ? 1 : 2, i % 64));
    }
    host_set(&bench->tensors[ARG_DECAY], 0, 1);
    set_hyper(bench, HYPER_LEARNING_RATE, 0.125);
    set_hyper(bench, HYPER_WEIGHT_DECAY, 0.25);
    set_hyper(bench, HYPER_MOMENTUM, 0.75);
    set_hyper(bench, HYPER_BETA1, 0.75);
    set_hyper(bench, HYPER_BETA2, 0.875);
    set_hyper(bench, HYPER_EPSILON, 0.0625);
    set_hyper(bench, HYPER_EMA_DECAY, 0.75);
    set_hyper(bench, HYPER_GRADIENT_SCALE, 0.5);
    set_hyper(bench, HYPER_CLIP_NORM, 2.5);
}

/* Step t = 1, 2, 3 of reference_golden.py; the gradient's scale of 1/2 is its division by 2. */
static void optimizer_step(struct bench *bench, int t) {
    double squares = 0;
    for (int i = 0; i < 128; i++) {
        double g = value(i < 64 ? 2 + t : 5 + t, i % 64);
        host_set(&bench->tensors[ARG_GRADIENT], i, g);
        squares += g * g;
    }
    host_set(&bench->tensors[ARG_NORM], 0, squares);
    set_hyper(bench, HYPER_BIAS1, 1 - pow(0.75, t));
    set_hyper(bench, HYPER_BIAS2, 1 - pow(0.875, t));
    bench_run(bench);
}

static void follow(enum op_kind kind, const double parameters[128], const double averages[128]) {
    struct bench bench;
    optimizer_bench(&bench, kind);
    for (int t = 1; t <= 3; t++)
        optimizer_step(&bench, t);
    expect_golden(&bench, ARG_PARAMETER, parameters, 128);
    expect_golden(&bench, ARG_EMA, averages, 128);
    bench_fini(&bench);
}

static void sgd_follows_pytorch(void **state) {
    (void)state;
    follow(OP_SGD, golden_sgd, golden_sgd_ema);
}

static void adamw_follows_pytorch(void **state) {
    (void)state;
    follow(OP_ADAMW, golden_adamw, golden_adamw_ema);
}

static void a_gradient_that_is_not_finite_changes_nothing(void **state) {
    static const enum op_kind kinds[] = {OP_SGD, OP_ADAMW};
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct bench bench;
        optimizer_bench(&bench, kinds[k]);
        host_set(&bench.tensors[ARG_NORM], 1, 1);
        optimizer_step(&bench, 1);
        for (int i = 0; i < 128; i++) {
            assert_true(host_get(&bench.tensors[ARG_PARAMETER], i) == value(i < 64 ? 1 : 2, i % 64));
            assert_true(host_get(&bench.tensors[ARG_EMA], i) == value(i < 64 ? 1 : 2, i % 64));
            assert_true(host_get(&bench.tensors[ARG_STATE], i) == 0);
        }
        bench_fini(&bench);
    }
}

static void gradient_norm_counts_what_is_not_finite(void **state) {
    struct op op = {.kind = OP_GRADIENT_NORM};
    struct shape flat = {1, {64}};
    struct bench bench;
    (void)state;
    bench_init(&bench, op, PASS_FORWARD, &flat);
    host_set(&bench.tensors[ARG_GRADIENT], 0, 3);
    host_set(&bench.tensors[ARG_GRADIENT], 1, NAN);
    host_set(&bench.tensors[ARG_GRADIENT], 2, INFINITY);
    host_set(&bench.tensors[ARG_GRADIENT], 63, -4);
    bench_run(&bench);
    assert_true(host_get(&bench.tensors[ARG_NORM], 0) == 25);
    assert_true(host_get(&bench.tensors[ARG_NORM], 1) == 2);
    bench_fini(&bench);
}

/* --- elements --- */

static void halves_round_as_torch_and_numpy_do(void **state) {
    (void)state;
    for (int64_t i = 0; i < LENGTH(golden_halves); i++) {
        uint16_t bf16, f16;
        element_store(&bf16, DTYPE_BF16, 0, (double)golden_halves[i].value);
        element_store(&f16, DTYPE_F16, 0, (double)golden_halves[i].value);
        assert_int_equal(bf16, golden_halves[i].bf16);
        assert_int_equal(f16, golden_halves[i].f16);
    }
}

static void every_half_survives_a_round_trip(void **state) {
    static const enum dtype dtypes[] = {DTYPE_BF16, DTYPE_F16};
    (void)state;
    for (int d = 0; d < 2; d++)
        for (uint32_t bits = 0; bits <= UINT16_MAX; bits++) {
            uint16_t half = (uint16_t)bits, back;
            double number = element_load(&half, dtypes[d], 0);
            element_store(&back, dtypes[d], 0, number);
            if (!isnan(number))
                assert_int_equal(back, half);
            else
                assert_true(isnan(element_load(&back, dtypes[d], 0)));
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolution_is_a_grouped_cross_correlation),
        cmocka_unit_test(convolution_adds_before_it_activates),
        cmocka_unit_test(batch_norm_for_an_answer_uses_running_statistics),
        cmocka_unit_test(batch_norm_in_training_moves_running_statistics),
        cmocka_unit_test(pools_agree),
        cmocka_unit_test(linear_agrees_on_images_and_rows),
        cmocka_unit_test(loss_weighs_classes_and_smooths_labels),
        cmocka_unit_test(rows_with_a_label_out_of_range_do_not_count),
        cmocka_unit_test(logits_of_any_size_give_probabilities),
        cmocka_unit_test(dropout_scales_what_it_keeps),
        cmocka_unit_test(a_nan_stays_one),
        cmocka_unit_test(sgd_follows_pytorch),
        cmocka_unit_test(adamw_follows_pytorch),
        cmocka_unit_test(a_gradient_that_is_not_finite_changes_nothing),
        cmocka_unit_test(gradient_norm_counts_what_is_not_finite),
        cmocka_unit_test(halves_round_as_torch_and_numpy_do),
        cmocka_unit_test(every_half_survives_a_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
