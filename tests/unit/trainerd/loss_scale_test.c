/* Dynamic loss scaling: its rule, and what it does to plans in f16 on the reference device. */
#include "trainerd/loss_scale.h"

#include "common/graph/plan_internal.h"
#include "tests/unit/graph/network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 6 };

static void a_factor_follows_what_its_gradients_allow(void **state) {
    (void)state;
    struct loss_scale scale = {0};
    loss_scale_begin(&scale);
    assert_true(scale.factor == 65536);
    loss_scale_step(&scale, false);
    loss_scale_step(&scale, false);
    assert_true(scale.factor == 16384 && scale.skipped == 2);
    loss_scale_begin(&scale); /* a resumed one goes on */
    assert_true(scale.factor == 16384);
    for (int i = 1; i < LOSS_SCALE_PATIENCE; i++)
        loss_scale_step(&scale, true);
    assert_true(scale.factor == 16384);
    loss_scale_step(&scale, true);
    assert_true(scale.factor == 32768 && scale.good_steps == 0 && scale.skipped == 2);
}

static void a_step_that_is_skipped_ends_a_row_of_good_ones(void **state) {
    (void)state;
    struct loss_scale scale = {.factor = 1024, .good_steps = LOSS_SCALE_PATIENCE - 1};
    loss_scale_step(&scale, false);
    assert_true(scale.factor == 512);
    loss_scale_step(&scale, true);
    assert_true(scale.factor == 512 && scale.good_steps == 1);
}

static void a_factor_has_bounds(void **state) {
    (void)state;
    struct loss_scale low = {.factor = 1}, high = {.factor = 0x1p24, .good_steps = LOSS_SCALE_PATIENCE - 1};
    loss_scale_step(&low, false);
    loss_scale_step(&high, true);
    assert_true(low.factor == 1 && high.factor == 0x1p24);
    assert_true(loss_scale_needed(PRECISION_F16) && !loss_scale_needed(PRECISION_BF16) && !loss_scale_needed(PRECISION_F32));
}

/* --- plans --- */

static struct plan *make(struct device *device, enum precision precision, const float *class_weights) {
    struct graph *graph = network_graph(0);
    struct parameters *parameters = network_parameters(graph, 3);
    struct plan_spec spec = {.graph = graph, .parameters = parameters, .device = device, .mode = PLAN_TRAIN,
                             .precision = precision, .batch = BATCH, .optimizer = OP_SGD, .ema = true,
                             .class_weights = class_weights};
    struct plan *plan = network_plan(&spec);
    parameters_destroy(parameters);
    graph_destroy(graph);
    return plan;
}

static float loss_of(struct plan *plan, float scale) {
    float loss;
    assert_true(plan_set_loss_scale(plan, scale, NULL));
    network_step(plan, BATCH);
    assert_true(plan_read_loss(plan, &loss, NULL));
    return loss;
}

/* A power of two goes through f32 without rounding: the gradients are exactly as many times as large, the loss is the same. */
static void gradients_are_scaled_and_the_loss_is_not(void **state) {
    struct device *device = network_device();
    struct plan *plain = make(device, PRECISION_F32, NULL), *scaled = make(device, PRECISION_F32, NULL);
    (void)state;
    assert_true(loss_of(plain, 1) == loss_of(scaled, 1024));
    const float *one = plain->flat[PLAN_GRADIENTS], *other = scaled->flat[PLAN_GRADIENTS];
    double most = 0;
    for (int64_t i = 0; i < plain->flat_count; i++) {
        assert_true(other[i] == one[i] * 1024);
        most = fmax(most, fabs((double)one[i]));
    }
    assert_true(most > 0);
    plan_destroy(plain);
    plan_destroy(scaled);
    device_close(device);
}

/** What convolutions' weights get: the norm of two plans' difference, the second one's divided by a scale, over the first's. */
static double apart(const struct plan *a, const struct plan *b, double scale) {
    double difference = 0, size = 0;
    for (int p = 0; p < a->graph->parameter_count; p++) {
        const struct graph_parameter *row = &a->graph->parameters[p];
        if (a->graph->nodes[row->node].op.kind != OP_CONV2D || a->parameters[p].offset < 0)
            continue;
        const float *one = (const float *)a->flat[PLAN_GRADIENTS] + a->parameters[p].offset;
        const float *other = (const float *)b->flat[PLAN_GRADIENTS] + b->parameters[p].offset;
        for (int64_t i = 0; i < shape_count(&row->role.shape); i++) {
            difference += pow((double)one[i] - (double)other[i] / scale, 2);
            size += pow((double)one[i], 2);
        }
    }
    return sqrt(difference / size);
}

/* Gradients of about 1e-7 are hardly above f16's smallest number, 6e-8. */
static void small_gradients_survive_f16_by_it(void **state) {
    static const float tiny[NETWORK_CLASSES] = {1e-6f, 1e-6f, 1e-6f};
    struct device *device = network_device();
    struct plan *f32 = make(device, PRECISION_F32, tiny), *f16 = make(device, PRECISION_F16, tiny);
    (void)state;
    loss_of(f32, 1);
    loss_of(f16, 1);
    double without = apart(f32, f16, 1);
    loss_of(f16, 0x1p16f);
    assert_true(without > 0.5);
    assert_true(apart(f32, f16, 0x1p16) < 0.1);
    plan_destroy(f32);
    plan_destroy(f16);
    device_close(device);
}

static bool update(struct plan *plan, float scale) {
    const float hyper[HYPER_COUNT] = {[HYPER_LEARNING_RATE] = 0.1f, [HYPER_MOMENTUM] = 0.9f, [HYPER_EMA_DECAY] = 0.5f,
                                      [HYPER_GRADIENT_SCALE] = 1 / scale};
    double norm[2];
    assert_true(plan_update(plan, hyper, NULL) && plan_read_gradient_norm(plan, 1, norm, NULL));
    return norm[1] == 0;
}

/* As training does it: from a factor at which gradients overflow to one at which they do not, without a trace of the rest. */
static void steps_that_overflow_change_nothing(void **state) {
    static const enum plan_buffer kept[] = {PLAN_VALUES, PLAN_STATE, PLAN_EMA};
    static const float heavy[NETWORK_CLASSES] = {100, 100, 100};
    struct device *device = network_device();
    struct plan *tried = make(device, PRECISION_F16, heavy), *fresh = make(device, PRECISION_F16, heavy);
    struct loss_scale scale = {.factor = 0x1p24};
    size_t bytes = (size_t)tried->flat_count * sizeof(float);
    bool done = false;
    (void)state;
    for (int i = 0; i < 24 && !done; i++) {
        loss_of(tried, (float)scale.factor);
        if ((done = update(tried, (float)scale.factor)))
            break;
        for (int k = 0; k < 3; k++)
            assert_memory_equal(tried->flat[kept[k]], fresh->flat[kept[k]], bytes);
        loss_scale_step(&scale, false);
    }
    assert_true(done && scale.skipped > 0);
    assert_memory_not_equal(tried->flat[PLAN_VALUES], fresh->flat[PLAN_VALUES], bytes);
    loss_of(fresh, (float)scale.factor);
    assert_true(update(fresh, (float)scale.factor));
    for (int k = 0; k < 3; k++)
        assert_memory_equal(tried->flat[kept[k]], fresh->flat[kept[k]], bytes);
    plan_destroy(tried);
    plan_destroy(fresh);
    device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_factor_follows_what_its_gradients_allow),
        cmocka_unit_test(a_step_that_is_skipped_ends_a_row_of_good_ones),
        cmocka_unit_test(a_factor_has_bounds),
        cmocka_unit_test(gradients_are_scaled_and_the_loss_is_not),
        cmocka_unit_test(small_gradients_survive_f16_by_it),
        cmocka_unit_test(steps_that_overflow_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
