/*
 * Every backward pass of the reference device against central differences of its forward pass, all in f64:
 * d/dx sum(diff_dst * dst), or of the loss, is (L(x + h) - L(x - h)) / 2h up to O(h^2).
 */
#include "common/device/device.h"
#include "tests/conformance/inputs.h"
#include "tests/conformance/norm_ranks.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* clang-format off */
#define WINDOW(k, s, before, after) \
    {.kernel = {k, k}, .stride = {s, s}, .pad_before = {before, before}, .pad_after = {after, after}}
#define SHAPE4(n, c, h, w) {.rank = 4, .dims = {n, c, h, w}}
#define SHAPE2(n, f) {.rank = 2, .dims = {n, f}}
/* clang-format on */

static const double step = 1e-6, tolerance = 1e-6;
enum { SEED = 7, MAX_ELEMENTS = 150 };

/* One case under way: the forward pass that is differentiated, and the incoming gradient. */
struct forward {
    struct device *device;
    struct kernel_request request;
    struct tensor tensors[ARG_COUNT];
    const struct tensor *diff_dst; /* NULL: the loss itself is differentiated */
};

static void expect(bool ok, const struct error *err) {
    if (!ok)
        fail_msg("%s", err->message);
}

static void as_f64(struct op_args *args) {
    for (int arg = 0; arg < ARG_COUNT; arg++)
        if (args->desc[arg].dtype == DTYPE_F32)
            args->desc[arg] = tensor_desc_dense(DTYPE_F64, &args->desc[arg].shape);
}

static void run(struct device *device, const struct kernel_request *request, struct tensor tensors[ARG_COUNT],
                struct workspace *workspace) {
    struct error err = {0};
    struct device_run spec = {.device = device, .request = request};
    expect(device_run(&spec, tensors, workspace, &err), &err);
}

static double objective(struct forward *f) {
    struct workspace workspace = {0};
    double sum = 0;
    run(f->device, &f->request, f->tensors, &workspace);
    workspace_fini(&workspace, f->device);
    if (!f->diff_dst)
        return host_get(&f->tensors[ARG_LOSS], 0);
    for (int64_t i = 0; i < shape_count(&f->diff_dst->shape); i++)
        sum += host_get(f->diff_dst, i) * host_get(&f->tensors[ARG_DST], i);
    return sum;
}

static double difference(struct forward *f, enum arg input, int64_t i) {
    struct tensor *x = &f->tensors[input];
    double value = host_get(x, i);
    host_set(x, i, value + step);
    double above = objective(f);
    host_set(x, i, value - step);
    double below = objective(f);
    host_set(x, i, value);
    return (above - below) / (2 * step);
}

static double largest(const struct tensor *tensor) {
    double most = 0;
    for (int64_t i = 0; i < shape_count(&tensor->shape); i++)
        most = fmax(most, fabs(host_get(tensor, i)));
    return most;
}

static void check_gradient(struct forward *f, enum arg input, const struct tensor *gradient,
                           const char *text) {
    int64_t count = shape_count(&gradient->shape), stride = count / MAX_ELEMENTS + 1;
    double scale = fmax(largest(gradient), 1e-3);
    for (int64_t i = 0; i < count; i += stride) {
        double wanted = difference(f, input, i), got = host_get(gradient, i);
        if (!(fabs(wanted - got) <= tolerance * scale))
            fail_msg("%s: gradient of %s at %lld is %.10g, differences give %.10g", text, arg_name(input),
                     (long long)i, got, wanted);
    }
}

/* Which gradient belongs to which input. An add has one gradient for both of its inputs. */
static void check_outputs(struct forward *f, const struct kernel_request *backward,
                          const struct tensor tensors[ARG_COUNT], const char *text) {
    static const enum arg pairs[][2] = {
        {ARG_DIFF_SRC, ARG_SRC},   {ARG_DIFF_SRC2, ARG_SRC2},   {ARG_DIFF_WEIGHT, ARG_WEIGHT},
        {ARG_DIFF_BIAS, ARG_BIAS}, {ARG_DIFF_SCALE, ARG_SCALE}, {ARG_DIFF_SHIFT, ARG_SHIFT},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (backward->args.direction[pairs[i][0]] == ARG_OUT)
            check_gradient(f, pairs[i][1], &tensors[pairs[i][0]], text);
    if (backward->op.kind == OP_ADD)
        check_gradient(f, ARG_SRC2, &tensors[ARG_DIFF_SRC], text);
}

static void check_backward(struct forward *f, const struct op_case *c, struct kernel_request *backward,
                           struct workspace *workspace) {
    static const enum arg kept[] = {ARG_DST, ARG_SAVED_MEAN, ARG_SAVED_VARIANCE};
    struct tensor tensors[ARG_COUNT];
    struct error err = {0};
    char text[160];
    as_f64(&backward->args);
    expect(host_tensors_init(tensors, &backward->args, &err), &err);
    inputs_fill(c, &backward->args, SEED, tensors);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (backward->args.direction[kept[i]] == ARG_IN)
            memcpy(tensors[kept[i]].data, f->tensors[kept[i]].data, tensor_bytes(&tensors[kept[i]]));
    run(f->device, backward, tensors, workspace);
    f->diff_dst = tensors[ARG_DIFF_DST].data ? &tensors[ARG_DIFF_DST] : NULL;
    check_outputs(f, backward, tensors, op_text(&c->op, text, sizeof text));
    host_tensors_fini(tensors);
}

static void check_case(const struct op_case *c) {
    struct error err = {0};
    struct device_spec spec = {.name = "reference"};
    struct forward f = {.device = device_open(&spec, &err), .request = {.op = c->op, .pass = PASS_FORWARD}};
    struct shape inputs[OP_MAX_INPUTS];
    struct workspace workspace = {0};
    int passes = 0;
    expect(f.device != NULL, &err);
    expect(case_inputs(c, inputs, &err) && op_arguments(&c->op, PASS_FORWARD, inputs, &f.request.args, &err),
           &err);
    as_f64(&f.request.args);
    expect(host_tensors_init(f.tensors, &f.request.args, &err), &err);
    inputs_fill(c, &f.request.args, SEED, f.tensors);
    run(f.device, &f.request, f.tensors, &workspace);
    for (enum pass pass = PASS_BACKWARD_DATA; pass <= PASS_BACKWARD_WEIGHT; pass++) {
        struct kernel_request backward = {.op = c->op, .pass = pass};
        if (!op_arguments(&c->op, pass, inputs, &backward.args, NULL))
            continue;
        check_backward(&f, c, &backward, &workspace);
        passes++;
    }
    assert_true(passes > 0);
    workspace_fini(&workspace, f.device);
    host_tensors_fini(f.tensors);
    device_close(f.device);
}

static void check_all(const struct op_case *cases, size_t count) {
    for (size_t i = 0; i < count; i++)
        check_case(&cases[i]);
}

static const struct op_case convolution_cases[] = {
    {{OP_CONV2D, .conv2d = {5, WINDOW(3, 1, 1, 1), 1, .bias = true}}, SHAPE4(2, 3, 5, 7), 0, 0, false},
    {{OP_CONV2D, .conv2d = {4, WINDOW(3, 2, 0, 1), 1, .bias = false}}, SHAPE4(2, 2, 8, 7), 0, 0, false},
    {{OP_CONV2D, .conv2d = {3, WINDOW(5, 3, 2, 1), 1, .bias = true}}, SHAPE4(1, 2, 9, 8), 0, 0, false},
    {{OP_CONV2D, .conv2d = {4, WINDOW(1, 2, 0, 0), 1, .bias = false}}, SHAPE4(3, 3, 5, 4), 0, 0, false},
    {{OP_CONV2D, .conv2d = {6, WINDOW(3, 1, 1, 1), 3, .bias = true}}, SHAPE4(2, 3, 4, 5), 0, 0, false},
    {{OP_CONV2D, .conv2d = {4, WINDOW(3, 2, 1, 0), 2, .bias = false}}, SHAPE4(2, 6, 5, 6), 0, 0, false},
    {{OP_CONV2D, .conv2d = {2, {{2, 3}, {1, 2}, {1, 0}, {0, 2}}, 1, .bias = false}},
     SHAPE4(2, 2, 4, 5),
     0,
     0,
     false},
    {{OP_CONV2D, .conv2d = {1, WINDOW(3, 1, 2, 2), 1, .bias = false}},
     SHAPE4(1, 1, 2, 2),
     0,
     0,
     false}, /* padding wider than the image */
};

static void convolution(void **state) {
    (void)state;
    check_all(convolution_cases, sizeof convolution_cases / sizeof *convolution_cases);
}

#define NORM(...) .batch_norm = {.epsilon = 1e-3f, .momentum = 0.1f, __VA_ARGS__}
static const struct op_case batch_norm_cases[] = {
    {{OP_BATCH_NORM, NORM(.frozen = false)}, SHAPE4(3, 3, 3, 5), 0, 0, false},
    {{OP_BATCH_NORM, NORM(.frozen = true)}, SHAPE4(2, 3, 3, 5), 0, 0, false},
    {{OP_BATCH_NORM, NORM(.activation = ACTIVATION_RELU)}, SHAPE4(2, 3, 5, 3), 0, 0, false},
    {{OP_BATCH_NORM, NORM(.activation = ACTIVATION_RELU6)}, SHAPE4(2, 4, 3, 3), 9, 0, false},
    {{OP_BATCH_NORM, NORM(.residual = true)}, SHAPE4(2, 3, 3, 3), 0, 0, false},
    {{OP_BATCH_NORM, NORM(.residual = true, .activation = ACTIVATION_RELU)}, SHAPE4(3, 2, 3, 4), 0, 0, false},
    {{OP_BATCH_NORM, NORM(.residual = true, .frozen = true, .activation = ACTIVATION_RELU)},
     SHAPE4(2, 3, 3, 3),
     0,
     0,
     false},
};

static void batch_norm(void **state) {
    (void)state;
    check_all(batch_norm_cases, sizeof batch_norm_cases / sizeof *batch_norm_cases);
}

/* sum(diff_dst * dst) over both ranks. */
static double objective_of_ranks(struct norm_ranks *ranks) {
    struct error err = {0};
    double sum = 0;
    expect(norm_ranks_run(ranks, PASS_FORWARD, &err), &err);
    for (int r = 0; r < NORM_RANKS; r++)
        for (int64_t i = 0; i < shape_count(&ranks->src); i++)
            sum += host_get(&ranks->tensors[r][ARG_DIFF_DST], i) * host_get(&ranks->tensors[r][ARG_DST], i);
    return sum;
}

/* For an element of one rank's input; rank -1: of a parameter, which all ranks have. */
static double difference_of_ranks(struct norm_ranks *ranks, int rank, enum arg input, int64_t i) {
    double value = host_get(&ranks->tensors[rank < 0 ? 0 : rank][input], i), at[2];
    for (int side = 0; side < 2; side++) {
        for (int r = 0; r < NORM_RANKS; r++)
            if (rank < 0 || r == rank)
                host_set(&ranks->tensors[r][input], i, value + (side ? step : -step));
        at[side] = objective_of_ranks(ranks);
    }
    for (int r = 0; r < NORM_RANKS; r++)
        if (rank < 0 || r == rank)
            host_set(&ranks->tensors[r][input], i, value);
    return (at[1] - at[0]) / (2 * step);
}

static void check_gradient_of_ranks(struct norm_ranks *ranks, int rank, enum arg input, const struct tensor *gradient) {
    double scale = fmax(largest(gradient), 1e-3);
    for (int64_t i = 0; i < shape_count(&gradient->shape); i++) {
        double wanted = difference_of_ranks(ranks, rank, input, i), got = host_get(gradient, i);
        if (!(fabs(wanted - got) <= tolerance * scale))
            fail_msg("rank %d: gradient of %s at %lld is %.10g, differences give %.10g", rank, arg_name(input), (long long)i, got,
                     wanted);
    }
}

/* Gradients of parameters are a rank's own: the sum over the ranks is what differences give. */
static void sum_over_ranks(struct norm_ranks *ranks, enum arg gradient) {
    struct tensor *sum = &ranks->tensors[0][gradient];
    for (int64_t i = 0; i < shape_count(&sum->shape); i++)
        host_set(sum, i, host_get(sum, i) + host_get(&ranks->tensors[1][gradient], i));
}

static void fill_ranks(struct norm_ranks *ranks, const struct op_case *c) {
    struct op_args args = {0};
    for (int r = 0; r < NORM_RANKS; r++) {
        for (int arg = 0; arg < ARG_COUNT; arg++)
            if (ranks->tensors[r][arg].data) {
                args.direction[arg] = arg == ARG_SUMS ? ARG_OUT : ARG_IN;
                args.desc[arg] = tensor_desc_dense(ranks->tensors[r][arg].dtype, &ranks->tensors[r][arg].shape);
            }
        inputs_fill(c, &args, SEED + (uint64_t)r, ranks->tensors[r]);
    }
    static const enum arg shared[] = {ARG_SCALE, ARG_SHIFT};
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++)
        memcpy(ranks->tensors[1][shared[i]].data, ranks->tensors[0][shared[i]].data, tensor_bytes(&ranks->tensors[0][shared[i]]));
}

static void check_ranks(const struct op_case *c) {
    struct error err = {0};
    struct device_spec spec = {.name = "reference"};
    struct norm_ranks ranks = {.device = device_open(&spec, &err), .op = c->op, .src = c->src, .dtype = DTYPE_F64};
    expect(ranks.device && norm_ranks_init(&ranks, &err), &err);
    fill_ranks(&ranks, c);
    expect(norm_ranks_run(&ranks, PASS_FORWARD, &err) && norm_ranks_run(&ranks, PASS_BACKWARD_DATA, &err), &err);
    for (int r = 0; r < NORM_RANKS; r++) {
        check_gradient_of_ranks(&ranks, r, ARG_SRC, &ranks.tensors[r][ARG_DIFF_SRC]);
        if (c->op.batch_norm.residual)
            check_gradient_of_ranks(&ranks, r, ARG_SRC2, &ranks.tensors[r][ARG_DIFF_SRC2]);
    }
    sum_over_ranks(&ranks, ARG_DIFF_SCALE);
    sum_over_ranks(&ranks, ARG_DIFF_SHIFT);
    check_gradient_of_ranks(&ranks, -1, ARG_SCALE, &ranks.tensors[0][ARG_DIFF_SCALE]);
    check_gradient_of_ranks(&ranks, -1, ARG_SHIFT, &ranks.tensors[0][ARG_DIFF_SHIFT]);
    norm_ranks_fini(&ranks);
    device_close(ranks.device);
}

static const struct op_case synchronised_cases[] = {
    {{OP_BATCH_NORM, NORM(.synchronised = true)}, SHAPE4(2, 3, 3, 4), 0, 0, false},
    {{OP_BATCH_NORM, NORM(.synchronised = true, .activation = ACTIVATION_RELU6)}, SHAPE4(1, 2, 4, 3), 9, 0, false},
    {{OP_BATCH_NORM, NORM(.synchronised = true, .residual = true, .activation = ACTIVATION_RELU)},
     SHAPE4(2, 2, 3, 3),
     0,
     0,
     false},
};

static void synchronised_batch_norm(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof synchronised_cases / sizeof *synchronised_cases; i++)
        check_ranks(&synchronised_cases[i]);
}

static const struct op_case pooling_cases[] = {
    {{OP_MAX_POOL, .max_pool = WINDOW(3, 2, 1, 1)}, SHAPE4(2, 3, 7, 6), 0, 0, false},
    {{OP_MAX_POOL, .max_pool = WINDOW(2, 2, 0, 0)}, SHAPE4(2, 2, 5, 5), 0, 0, false},
    {{OP_MAX_POOL, .max_pool = WINDOW(3, 1, 0, 1)}, SHAPE4(1, 2, 4, 5), 0, 0, false},
    {{OP_GLOBAL_AVERAGE_POOL, .linear = {0}}, SHAPE4(3, 5, 3, 7), 0, 0, false},
};

static void pooling(void **state) {
    (void)state;
    check_all(pooling_cases, sizeof pooling_cases / sizeof *pooling_cases);
}

static const struct op_case elementwise_cases[] = {
    {{OP_ACTIVATION, .activation = ACTIVATION_RELU}, SHAPE4(2, 3, 5, 3), 0, 0, false},
    {{OP_ACTIVATION, .activation = ACTIVATION_RELU6}, SHAPE4(2, 3, 5, 3), 12, 0, false},
    {{OP_ADD, .activation = ACTIVATION_NONE}, SHAPE4(2, 3, 5, 3), 0, 0, false},
    {{OP_ADD, .activation = ACTIVATION_RELU}, SHAPE4(2, 3, 5, 3), 0, 0, false},
    {{OP_DROPOUT, .dropout = {0.4f, 3}}, SHAPE2(5, 17), 0, 0, false},
    {{OP_DROPOUT, .dropout = {0.2f, 0}}, SHAPE4(2, 3, 4, 3), 0, 0, false},
};

static void elementwise(void **state) {
    (void)state;
    check_all(elementwise_cases, sizeof elementwise_cases / sizeof *elementwise_cases);
}

static const struct op_case linear_cases[] = {
    {{OP_LINEAR, .linear = {3, true}}, SHAPE2(5, 7), 0, 0, false},
    {{OP_LINEAR, .linear = {4, false}}, SHAPE2(1, 9), 0, 0, false},
    {{OP_LINEAR, .linear = {5, true}}, SHAPE4(3, 2, 3, 2), 0, 0, false},
};

static void linear(void **state) {
    (void)state;
    check_all(linear_cases, sizeof linear_cases / sizeof *linear_cases);
}

static const struct op_case loss_cases[] = {
    {{OP_SOFTMAX_CROSS_ENTROPY, .softmax_cross_entropy = {0}}, SHAPE2(7, 3), 4, 0, false},
    {{OP_SOFTMAX_CROSS_ENTROPY, .softmax_cross_entropy = {0.1f}}, SHAPE2(6, 5), 3, 0, false},
    {{OP_SOFTMAX_CROSS_ENTROPY, .softmax_cross_entropy = {1}}, SHAPE2(4, 2), 0, 0, false},
};

static void loss(void **state) {
    (void)state;
    check_all(loss_cases, sizeof loss_cases / sizeof *loss_cases);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolution), cmocka_unit_test(batch_norm),  cmocka_unit_test(synchronised_batch_norm),
        cmocka_unit_test(pooling),     cmocka_unit_test(elementwise), cmocka_unit_test(linear),
        cmocka_unit_test(loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
