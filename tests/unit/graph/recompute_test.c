/* Computing activations again changes the memory that a plan takes, and nothing that it learns. */
#include "common/graph/passes.h"
#include "common/graph/plan_internal.h"
#include "tests/unit/graph/network.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 4, DEPTH = 24 };

/** Blocks of convolution, batch norm and ReLU, some with a residual over them, a pool among them, and a head with dropout. */
static struct graph *deep_network(void) {
    struct error err = {0};
    struct graph *graph = graph_create();
    struct layers layers = {graph, &err, 1e-5f};
    struct convolution three = {4, 3, 1, 1, false};
    struct op pool = {.kind = OP_MAX_POOL, .max_pool = {{3, 3}, {1, 1}, {1, 1}, {1, 1}}};
    char name[32];
    int x = graph_add_input(graph, NETWORK_CHANNELS, NETWORK_SIDE, NETWORK_SIDE, &err);
    for (int i = 0; i < DEPTH; i++) {
        int before = x;
        snprintf(name, sizeof name, "conv%d", i);
        x = layer_convolution(&layers, name, x, &three);
        snprintf(name, sizeof name, "bn%d", i);
        x = layer_batch_norm(&layers, name, x);
        snprintf(name, sizeof name, "add%d", i);
        x = i % 3 == 2 ? layer_add(&layers, name, x, before) : x;
        snprintf(name, sizeof name, "relu%d", i);
        x = layer_activation(&layers, name, x, ACTIVATION_RELU);
        x = i == 7 ? graph_add(graph, "pool", &pool, &x, &err) : x;
    }
    if (layer_head(&layers, "fc", x, NETWORK_CLASSES, 0.3) < 0)
        fail_msg("%s", err.message);
    return graph;
}

static struct plan *make(struct device *device, bool recompute, enum norm_statistics statistics, enum precision precision) {
    struct graph *graph = deep_network();
    struct parameters *parameters = network_parameters(graph, 3);
    struct plan_spec spec = {.graph = graph, .parameters = parameters, .device = device, .mode = PLAN_TRAIN,
                             .precision = precision, .batch = BATCH, .optimizer = OP_SGD, .recompute = recompute,
                             .freeze_batch_norm = statistics == NORM_STATISTICS_RUNNING,
                             .synchronise_batch_norm = statistics == NORM_STATISTICS_ALL_RANKS};
    struct plan *plan = network_plan(&spec);
    network_step(plan, BATCH);
    parameters_destroy(parameters);
    graph_destroy(graph);
    return plan;
}

/** The largest difference of two training plans' gradients over the largest gradient. */
static double gradients_apart(const struct plan *a, const struct plan *b) {
    const float *left = a->flat[PLAN_GRADIENTS], *right = b->flat[PLAN_GRADIENTS];
    double worst = 0, most = 0;
    assert_int_equal(a->flat_count, b->flat_count);
    for (int64_t i = 0; i < a->flat_count; i++) {
        worst = fmax(worst, fabs((double)left[i] - (double)right[i]));
        most = fmax(most, fabs((double)left[i]));
    }
    assert_true(most > 0);
    return worst / most;
}

static void same_running_statistics(const struct plan *a, const struct plan *b) {
    for (int i = 0; i < a->graph->parameter_count; i++) {
        const struct value *left = &a->values[a->parameters[i].value], *right = &b->values[b->parameters[i].value];
        if (a->graph->parameters[i].role.diff == ARG_NONE)
            assert_memory_equal(left->memory, right->memory, left->desc.bytes);
    }
}

static void check(enum norm_statistics statistics, enum precision precision, double tolerance) {
    struct device *device = network_device();
    struct plan *kept = make(device, false, statistics, precision), *again = make(device, true, statistics, precision);
    struct plan_memory all, few;
    plan_memory(kept, &all);
    plan_memory(again, &few);
    assert_true(gradients_apart(kept, again) < tolerance);
    same_running_statistics(kept, again);
    assert_true(few.arena_bytes < all.arena_bytes * 2 / 3);
    assert_true(again->step_count > kept->step_count && again->step_count < 2 * kept->step_count);
    plan_destroy(kept);
    plan_destroy(again);
    device_close(device);
}

/* What is saved of a batch's statistics is rounded to f32, hence the tolerance. */
static void gradients_stay_and_memory_shrinks(void **state) {
    (void)state;
    check(NORM_STATISTICS_BATCH, PRECISION_F32, 1e-5);
}

static int count_reductions_that_block(const struct plan *plan) {
    int count = 0;
    for (int i = 0; i < plan->reduction_count; i++)
        count += plan->reductions[i].blocking;
    return count;
}

static void nothing_is_summed_over_the_ranks_again(void **state) {
    (void)state;
    struct device *device = network_device();
    struct plan *again = make(device, true, NORM_STATISTICS_ALL_RANKS, PRECISION_F32);
    assert_int_equal(count_reductions_that_block(again), 2 * DEPTH);
    plan_destroy(again);
    device_close(device);
    check(NORM_STATISTICS_ALL_RANKS, PRECISION_F32, 1e-5);
}

static void frozen_norms_are_computed_again_exactly(void **state) {
    (void)state;
    check(NORM_STATISTICS_RUNNING, PRECISION_F32, 1e-30);
}

static void narrow_activations_too(void **state) {
    (void)state;
    check(NORM_STATISTICS_RUNNING, PRECISION_BF16, 1e-30);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_stay_and_memory_shrinks),
        cmocka_unit_test(nothing_is_summed_over_the_ranks_again),
        cmocka_unit_test(frozen_norms_are_computed_again_exactly),
        cmocka_unit_test(narrow_activations_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
