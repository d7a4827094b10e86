/* What a plan in bf16 or f16 shares with the one in f32, and what it does not, on the reference device. */
#include "common/graph/plan_internal.h"
#include "tests/unit/graph/network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 6 };

static struct plan *make(struct device *device, enum plan_mode mode, enum precision precision) {
    struct graph *graph = network_graph(0.5);
    struct parameters *parameters = network_parameters(graph, 3);
    struct plan_spec spec = {.graph = graph, .parameters = parameters, .device = device, .mode = mode, .precision = precision,
                             .batch = BATCH, .optimizer = OP_SGD};
    struct plan *plan = network_plan(&spec);
    parameters_destroy(parameters);
    graph_destroy(graph);
    return plan;
}

static double largest(const float *values, int64_t count) {
    double most = 0;
    for (int64_t i = 0; i < count; i++)
        most = fmax(most, fabs((double)values[i]));
    return most;
}

static double largest_difference(const float *a, const float *b, int64_t count) {
    double most = 0;
    for (int64_t i = 0; i < count; i++)
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

/*
 * A bf16 has 8 significant bits, an f16 11: a rounding is off by half a step of the last one at most. Four layers of them, in
 * random directions; the angle between gradients goes with the square.
 */
static const struct {
    enum precision precision;
    double near, angle;
} narrow_ones[] = {{PRECISION_BF16, 4 * 0x1p-8, 1e-3}, {PRECISION_F16, 4 * 0x1p-11, 1e-3 / 64}};
enum { NARROW_ONES = sizeof narrow_ones / sizeof *narrow_ones };

static void answers_are_near_those_of_f32(void **state) {
    struct device *device = network_device();
    float wide[BATCH * NETWORK_CLASSES], narrow[BATCH * NETWORK_CLASSES];
    struct plan *f32 = make(device, PLAN_INFER, PRECISION_F32);
    (void)state;
    network_answer(f32, BATCH, wide);
    for (int i = 0; i < NARROW_ONES; i++) {
        struct plan *plan = make(device, PLAN_INFER, narrow_ones[i].precision);
        network_answer(plan, BATCH, narrow);
        double difference =
            largest_difference(wide, narrow, BATCH * NETWORK_CLASSES) / largest(wide, BATCH * NETWORK_CLASSES);
        assert_true(difference > 0 && difference < narrow_ones[i].near); /* none at all: nothing was narrowed */
        plan_destroy(plan);
    }
    plan_destroy(f32);
    device_close(device);
}

/** 1 - cosine of the angle between two vectors. */
static double apart(const float *a, const float *b, int64_t count) {
    double ab = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < count; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return 1 - ab / sqrt(aa * bb);
}

static void gradients_point_where_those_of_f32_do(void **state) {
    struct device *device = network_device();
    struct plan *f32 = make(device, PLAN_TRAIN, PRECISION_F32);
    float wide, narrow;
    (void)state;
    network_step(f32, BATCH);
    assert_true(plan_read_loss(f32, &wide, NULL));
    for (int i = 0; i < NARROW_ONES; i++) {
        struct plan *plan = make(device, PLAN_TRAIN, narrow_ones[i].precision);
        network_step(plan, BATCH);
        assert_int_equal(f32->flat_count, plan->flat_count);
        double angle = apart(f32->flat[PLAN_GRADIENTS], plan->flat[PLAN_GRADIENTS], f32->flat_count);
        assert_true(angle > 0 && angle < narrow_ones[i].angle);
        assert_true(plan_read_loss(plan, &narrow, NULL));
        assert_true(fabsf(wide - narrow) < (float)narrow_ones[i].near * wide);
        plan_destroy(plan);
    }
    plan_destroy(f32);
    device_close(device);
}

static int conversions_of(const struct plan *plan, int parameter) {
    int found = 0;
    for (int s = 0; s < plan->step_count; s++) {
        const struct step *step = &plan->steps[s];
        const struct value *from = step->values[ARG_SRC] >= 0 ? &plan->values[step->values[ARG_SRC]] : NULL;
        bool converts = step->kernel->op.kind == OP_REORDER && from && from->storage == STORAGE_PARAMETER;
        found += converts && from->parameter == parameter;
    }
    return found;
}

/* Masters, statistics and gradients are f32; what the convolutions multiply is converted once, for all passes. */
static void weights_are_converted_once_a_step(void **state) {
    struct device *device = network_device();
    struct plan *plan = make(device, PLAN_TRAIN, PRECISION_BF16);
    (void)state;
    for (int i = 0; i < plan->graph->parameter_count; i++) {
        const struct graph_parameter *row = &plan->graph->parameters[i];
        bool multiplied = row->role.arg == ARG_WEIGHT && plan->graph->nodes[row->node].op.kind == OP_CONV2D;
        assert_int_equal(plan->values[plan->parameters[i].value].desc.dtype, DTYPE_F32);
        assert_int_equal(conversions_of(plan, i), multiplied);
        if (plan->parameters[i].gradient >= 0)
            assert_int_equal(plan->values[plan->parameters[i].gradient].desc.dtype, DTYPE_F32);
    }
    plan_destroy(plan);
    device_close(device);
}

static void activations_take_half_the_memory(void **state) {
    struct device *device = network_device();
    struct plan *f32 = make(device, PLAN_INFER, PRECISION_F32), *bf16 = make(device, PLAN_INFER, PRECISION_BF16);
    struct plan_memory wide, narrow;
    (void)state;
    plan_memory(f32, &wide);
    plan_memory(bf16, &narrow);
    assert_true(narrow.arena_bytes < wide.arena_bytes * 3 / 4);
    assert_true(narrow.parameter_bytes < wide.parameter_bytes * 3 / 4);
    plan_destroy(f32);
    plan_destroy(bf16);
    device_close(device);
}

/* --- who has no bf16 --- */

static struct device_ops f32_only;
static bool (*any_supports)(struct device *device, const struct kernel_request *request);

static bool supports_f32(struct device *device, const struct kernel_request *request) {
    return request->args.desc[ARG_WEIGHT].dtype != DTYPE_BF16 && any_supports(device, request);
}

static void a_device_without_it_is_named(void **state) {
    struct device *device = network_device();
    struct graph *graph = network_graph(0);
    struct parameters *parameters = network_parameters(graph, 3);
    struct plan_spec spec = {.graph = graph, .parameters = parameters, .device = device, .precision = PRECISION_BF16, .batch = 1};
    struct error err = {0};
    (void)state;
    f32_only = *device->ops;
    any_supports = f32_only.supports;
    f32_only.supports = supports_f32;
    device->ops = &f32_only;
    assert_null(plan_create(&spec, &err));
    assert_int_equal(err.code, ERROR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "bf16"));
    assert_non_null(strstr(err.message, "reference"));
    parameters_destroy(parameters);
    graph_destroy(graph);
    device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_near_those_of_f32),
        cmocka_unit_test(gradients_point_where_those_of_f32_do),
        cmocka_unit_test(weights_are_converted_once_a_step),
        cmocka_unit_test(activations_take_half_the_memory),
        cmocka_unit_test(a_device_without_it_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
