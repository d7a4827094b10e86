/* The passes that merge and fold, on the reference device, which supports every merged form. */
#include "common/graph/passes.h"
#include "tests/unit/graph/network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct graph_node *node_named(const struct graph *graph, const char *name) {
    for (int i = 0; i < graph->node_count; i++) {
        if (strcmp(graph->nodes[i].name, name) == 0)
            return &graph->nodes[i];
    }
    return NULL;
}

static int count_kind(const struct graph *graph, enum op_kind kind) {
    int count = 0;
    for (int i = 0; i < graph->node_count; i++)
        count += graph->nodes[i].op.kind == kind;
    return count;
}

static struct graph *fuse(const struct graph *graph, struct device *device, enum norm_statistics statistics) {
    struct error err = {0};
    struct graph *fused = graph_fuse_for_training(graph, device, PRECISION_F32, statistics, &err);
    if (!fused)
        fail_msg("%s", err.message);
    return fused;
}

static struct graph *fold(const struct graph *graph, struct device *device) {
    struct error err = {0};
    struct parameters *parameters = network_parameters(graph, 3), *folded = NULL;
    struct graph *result = graph_fold_for_inference(graph, parameters, device, PRECISION_F32, &folded, &err);
    if (!result)
        fail_msg("%s", err.message);
    assert_int_equal(folded->count, result->parameter_count);
    parameters_destroy(parameters);
    parameters_destroy(folded);
    return result;
}

static void training_merges_norm_add_and_activation(void **state) {
    (void)state;
    struct device *device = network_device();
    struct graph *graph = network_graph(0.5), *fused = fuse(graph, device, NORM_STATISTICS_BATCH);
    assert_int_equal(count_kind(fused, OP_CONV2D), 4);
    assert_int_equal(count_kind(fused, OP_BATCH_NORM), 4);
    assert_int_equal(count_kind(fused, OP_ACTIVATION), 0);
    assert_int_equal(count_kind(fused, OP_ADD), 0);
    assert_int_equal(count_kind(fused, OP_DROPOUT), 1);
    const struct op *stem = &node_named(fused, "bn1")->op, *residual = &node_named(fused, "bn2")->op;
    assert_int_equal(stem->batch_norm.activation, ACTIVATION_RELU);
    assert_false(stem->batch_norm.residual);
    assert_int_equal(residual->batch_norm.activation, ACTIVATION_RELU);
    assert_true(residual->batch_norm.residual);
    /* Of the two norms that meet in add4 the first takes the sum, the other stays plain. */
    assert_true(node_named(fused, "bn3")->op.batch_norm.residual != node_named(fused, "bn4")->op.batch_norm.residual);
    for (int i = 0; i < graph->parameter_count; i++)
        assert_true(graph_find_parameter(fused, graph->parameters[i].name) >= 0);
    graph_destroy(fused);
    graph_destroy(graph);
    device_close(device);
}

static void freezing_reaches_every_norm(void **state) {
    (void)state;
    struct device *device = network_device();
    struct graph *graph = network_graph(0);
    for (int statistics = NORM_STATISTICS_BATCH; statistics <= NORM_STATISTICS_RUNNING; statistics++) {
        struct graph *fused = fuse(graph, device, (enum norm_statistics)statistics);
        for (int i = 0; i < fused->node_count; i++) {
            const struct batch_norm *norm = &fused->nodes[i].op.batch_norm;
            if (fused->nodes[i].op.kind != OP_BATCH_NORM)
                continue;
            assert_int_equal(norm->frozen, statistics == NORM_STATISTICS_RUNNING);
            assert_int_equal(norm->synchronised, statistics == NORM_STATISTICS_ALL_RANKS);
        }
        graph_destroy(fused);
    }
    graph_destroy(graph);
    device_close(device);
}

static void inference_is_convolutions_pooling_and_head(void **state) {
    (void)state;
    struct device *device = network_device();
    struct graph *graph = network_graph(0.5), *folded = fold(graph, device);
    assert_int_equal(folded->node_count, 1 + 4 + 2);
    assert_int_equal(count_kind(folded, OP_CONV2D), 4);
    assert_int_equal(count_kind(folded, OP_DROPOUT), 0);
    assert_true(node_named(folded, "conv2")->op.conv2d.residual);
    assert_int_equal(node_named(folded, "conv2")->op.conv2d.activation, ACTIVATION_RELU);
    assert_true(node_named(folded, "conv1")->op.conv2d.bias);
    graph_destroy(folded);
    graph_destroy(graph);
    device_close(device);
}

/** conv -> bn -> relu, with a second reader of the node `at` (0: conv, 1: bn, 2: relu) added up at the end. */
static struct graph *forked_graph(int at) {
    struct graph *graph = graph_create();
    struct error err = {0};
    struct layers layers = {graph, &err, 1e-5f};
    int chain[3];
    chain[0] = layer_convolution(&layers, "conv", graph_add_input(graph, 2, 8, 8, &err),
                                 &(struct convolution){4, 3, 1, 1, false});
    chain[1] = layer_batch_norm(&layers, "bn", chain[0]);
    chain[2] = layer_activation(&layers, "relu", chain[1], ACTIVATION_RELU);
    int other = layer_max_pool(&layers, "other", chain[at], 3, 1);
    int pooled = layer_max_pool(&layers, "pooled", chain[2], 3, 1);
    if (layer_head(&layers, "fc", layer_add(&layers, "add", other, pooled), 3, 0) < 0)
        fail_msg("%s", err.message);
    return graph;
}

static void a_value_with_two_readers_is_not_merged_away(void **state) {
    (void)state;
    static const struct {
        int at, norms, activations; /* of the folded graph */
    } rows[] = {{0, 1, 1}, {1, 0, 1}, {2, 0, 0}};
    struct device *device = network_device();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct graph *graph = forked_graph(rows[i].at), *folded = fold(graph, device);
        assert_int_equal(count_kind(folded, OP_BATCH_NORM), rows[i].norms);
        assert_int_equal(count_kind(folded, OP_ACTIVATION), rows[i].activations);
        graph_destroy(folded);
        struct graph *fused = fuse(graph, device, NORM_STATISTICS_BATCH);
        assert_int_equal(count_kind(fused, OP_ACTIVATION), rows[i].at == 1);
        graph_destroy(fused);
        graph_destroy(graph);
    }
    device_close(device);
}

static void a_sum_of_a_value_with_itself_stays(void **state) {
    (void)state;
    struct device *device = network_device();
    struct graph *graph = graph_create();
    struct error err = {0};
    struct layers layers = {graph, &err, 1e-5f};
    int x = layer_convolution(&layers, "conv", graph_add_input(graph, 2, 8, 8, &err), &(struct convolution){4, 3, 1, 1, false});
    x = layer_batch_norm(&layers, "bn", x);
    assert_true(layer_head(&layers, "fc", layer_add(&layers, "add", x, x), 3, 0) > 0);
    struct graph *folded = fold(graph, device);
    assert_int_equal(count_kind(folded, OP_ADD), 1);
    graph_destroy(folded);
    graph_destroy(graph);
    device_close(device);
}

/** Says no to every merged form. */
static bool (*reference_supports)(struct device *device, const struct kernel_request *request);

static bool supports_plain(struct device *device, const struct kernel_request *request) {
    const struct op *op = &request->op;
    if (op->kind == OP_CONV2D && (op->conv2d.bias || op->conv2d.residual || op->conv2d.activation))
        return false;
    if (op->kind == OP_BATCH_NORM && (op->batch_norm.residual || op->batch_norm.activation))
        return false;
    return reference_supports(device, request);
}

/** Logits of the graph as the device's inference plan gives them. */
static void answer(const struct graph *graph, struct device *device, int *steps, float *logits) {
    struct parameters *parameters = network_parameters(graph, 9);
    struct plan_spec spec = {.graph = graph, .parameters = parameters, .device = device, .batch = 4};
    struct plan *plan = network_plan(&spec);
    network_answer(plan, 4, logits);
    *steps = plan_step_count(plan);
    plan_destroy(plan);
    parameters_destroy(parameters);
}

static void folded_and_plain_networks_agree(const struct graph *graph) {
    float folded[4 * NETWORK_CLASSES], plain[4 * NETWORK_CLASSES];
    int few, many;
    struct device *device = network_device();
    answer(graph, device, &few, folded);
    struct device_ops ops = *device->ops;
    reference_supports = ops.supports;
    ops.supports = supports_plain;
    device->ops = &ops;
    answer(graph, device, &many, plain);
    device_close(device);
    assert_true(few <= many);
    float spread = 0;
    for (int i = 0; i < 4 * NETWORK_CLASSES; i++) {
        assert_true(fabsf(folded[i] - plain[i]) < 1e-5f * fmaxf(1, fabsf(plain[i])));
        spread = fmaxf(spread, fabsf(plain[i] - plain[i % NETWORK_CLASSES]));
    }
    assert_true(spread > 1e-3f); /* the answers depend on the image */
}

static void folding_changes_no_answer(void **state) {
    (void)state;
    struct graph *graph = network_graph(0.5);
    folded_and_plain_networks_agree(graph);
    graph_destroy(graph);
    for (int at = 0; at < 3; at++) {
        graph = forked_graph(at);
        folded_and_plain_networks_agree(graph);
        graph_destroy(graph);
    }
}

static void merging_changes_no_training(void **state) {
    (void)state;
    struct graph *graph = network_graph(0.5);
    struct parameters *parameters = network_parameters(graph, 9), *gradients[2];
    float loss[2];
    for (int plain = 0; plain < 2; plain++) {
        struct device *device = network_device();
        struct device_ops ops = *device->ops;
        reference_supports = ops.supports;
        ops.supports = plain ? supports_plain : ops.supports;
        device->ops = &ops;
        struct plan_spec spec = {.graph = graph, .parameters = parameters, .device = device, .mode = PLAN_TRAIN, .batch = 4,
                                 .optimizer = OP_SGD};
        struct plan *plan = network_plan(&spec);
        network_step(plan, 4);
        gradients[plain] = parameters_create(graph, NULL);
        assert_true(plan_read_loss(plan, &loss[plain], NULL));
        assert_true(plan_export(plan, PLAN_GRADIENTS, gradients[plain], NULL));
        plan_destroy(plan);
        device_close(device);
    }
    assert_true(fabsf(loss[0] - loss[1]) < 1e-5f);
    for (int i = 0; i < graph->parameter_count; i++) {
        const float *a = gradients[0]->tensors[i].data, *b = gradients[1]->tensors[i].data;
        for (int64_t j = 0; j < shape_count(&gradients[0]->tensors[i].shape); j++)
            assert_true(fabsf(a[j] - b[j]) < 1e-5f);
    }
    parameters_destroy(gradients[0]);
    parameters_destroy(gradients[1]);
    parameters_destroy(parameters);
    graph_destroy(graph);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_merges_norm_add_and_activation),
        cmocka_unit_test(freezing_reaches_every_norm),
        cmocka_unit_test(inference_is_convolutions_pooling_and_head),
        cmocka_unit_test(a_value_with_two_readers_is_not_merged_away),
        cmocka_unit_test(a_sum_of_a_value_with_itself_stays),
        cmocka_unit_test(folding_changes_no_answer),
        cmocka_unit_test(merging_changes_no_training),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
