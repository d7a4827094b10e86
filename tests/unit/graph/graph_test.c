/* Graphs as they are written down, and the values that a fresh network starts from. */
#include "common/graph/graph.h"
#include "tests/unit/graph/network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void parameters_are_named_after_their_node(void **state) {
    (void)state;
    struct graph *graph = network_graph(0);
    static const char *const names[] = {"conv1.weight",    "bn1.weight", "bn1.bias", "bn1.running_mean",
                                        "bn1.running_var", "fc.weight",  "fc.bias"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int parameter = graph_find_parameter(graph, names[i]);
        assert_true(parameter >= 0);
        assert_string_equal(graph->parameters[parameter].name, names[i]);
    }
    assert_int_equal(graph_find_parameter(graph, "conv1.bias"), -1);
    assert_int_equal(graph->parameter_count, 4 * (1 + 4) + 2);
    graph_destroy(graph);
    graph_destroy(NULL);
}

static void an_operation_that_does_not_fit_is_named(void **state) {
    (void)state;
    struct graph *graph = graph_create();
    struct error err = {0};
    int input = graph_add_input(graph, 3, 8, 8, &err);
    struct op op = {.kind = OP_CONV2D, .conv2d = {.channels_out = 4, .window = {{3, 3}, {1, 1}, {1, 1}, {1, 1}}, .groups = 2}};
    assert_int_equal(graph_add(graph, "layer1.0.conv2", &op, &input, &err), -1);
    assert_non_null(strstr(err.message, "layer1.0.conv2"));
    assert_int_not_equal(err.code, ERROR_NONE);
    assert_int_equal(graph->node_count, 1);
    assert_int_equal(graph->parameter_count, 0);
    graph_destroy(graph);
}

static void an_earlier_failure_is_handed_on_untouched(void **state) {
    (void)state;
    struct graph *graph = graph_create();
    struct error err = {.message = "the first"};
    struct layers layers = {graph, &err, 1e-5f};
    int x = layer_batch_norm(&layers, "bn", -1);
    assert_int_equal(layer_activation(&layers, "relu", x, ACTIVATION_RELU), -1);
    assert_int_equal(layer_head(&layers, "fc", x, 3, 0.5), -1);
    assert_string_equal(err.message, "the first");
    graph_destroy(graph);
}

static void names_too_long_for_parameters_are_refused(void **state) {
    (void)state;
    struct graph *graph = graph_create();
    struct error err = {0};
    char name[GRAPH_NAME_SIZE];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    struct layers layers = {graph, &err, 1e-5f};
    assert_int_equal(layer_batch_norm(&layers, name, graph_add_input(graph, 1, 4, 4, &err)), -1);
    assert_int_equal(err.code, ERROR_TOO_LARGE);
    graph_destroy(graph);
}

static void shapes_follow_the_batch(void **state) {
    (void)state;
    struct graph *graph = network_graph(0);
    struct shape shapes[OP_MAX_INPUTS], expected = shape_of(4, 7, 4, 8, 8);
    const struct graph_node *add = NULL;
    for (int i = 0; i < graph->node_count; i++) {
        if (strcmp(graph->nodes[i].name, "add2") == 0)
            add = &graph->nodes[i];
    }
    assert_non_null(add);
    graph_input_shapes(graph, add, 7, shapes);
    assert_true(shape_equal(&shapes[0], &expected) && shape_equal(&shapes[1], &expected));
    struct shape logits = shape_of(2, 1, NETWORK_CLASSES);
    assert_true(shape_equal(&graph->nodes[graph->node_count - 1].output, &logits));
    graph_destroy(graph);
}

static void consumers_are_counted(void **state) {
    (void)state;
    struct graph *graph = network_graph(0);
    for (int i = 0; i < graph->node_count; i++) {
        const char *name = graph->nodes[i].name;
        bool twice = strcmp(name, "relu1") == 0 || strcmp(name, "relu2") == 0;
        assert_int_equal(graph_consumer_count(graph, i), i == graph->node_count - 1 ? 0 : twice ? 2 : 1);
    }
    graph_destroy(graph);
}

static void the_cost_is_that_of_convolutions_and_linear_layers(void **state) {
    (void)state;
    struct graph *graph = network_graph(0);
    double expected = 2.0 * (64 * 4 * 2 * 9 + 64 * 4 * 4 * 9 + 16 * 6 * 4 + 16 * 6 * 4 * 9 + 6 * 3);
    assert_true(graph_flops(graph) == expected);
    graph_destroy(graph);
}

static void the_text_has_a_line_per_node(void **state) {
    (void)state;
    struct graph *graph = network_graph(0.5);
    char *text = graph_text(graph);
    assert_non_null(text);
    int lines = 0;
    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    assert_int_equal(lines, graph->node_count);
    assert_non_null(strstr(text, "dropout"));
    free(text);
    graph_destroy(graph);
}

/** Mean and deviation of a parameter. */
static void moments(const struct graph *graph, const struct parameters *parameters, const char *name, double out[2]) {
    const struct tensor *tensor = &parameters->tensors[graph_find_parameter(graph, name)];
    const float *data = tensor->data;
    int64_t count = shape_count(&tensor->shape);
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < count; i++) {
        sum += data[i];
        squares += (double)data[i] * data[i];
    }
    out[0] = sum / (double)count;
    out[1] = sqrt(squares / (double)count - out[0] * out[0]);
}

static struct graph *wide_graph(int groups) {
    struct graph *graph = graph_create();
    struct error err = {0};
    struct layers layers = {graph, &err, 1e-5f};
    int x = layer_convolution(&layers, "conv", graph_add_input(graph, 64, 8, 8, &err),
                              &(struct convolution){64, 3, 1, groups, false});
    if (layer_head(&layers, "fc", layer_batch_norm(&layers, "bn", x), 100, 0) < 0)
        fail_msg("%s", err.message);
    return graph;
}

/* He et al. 2015 with fan_out = out / groups * 9, as torchvision initialises; bounds are five standard errors. */
static void fresh_values_have_the_published_deviations(void **state) {
    (void)state;
    for (int groups = 1; groups <= 64; groups *= 64) {
        struct graph *graph = wide_graph(groups);
        struct parameters *parameters = parameters_create(graph, NULL);
        parameters_initialise(graph, parameters, 11);
        double seen[2], deviation = sqrt(2.0 / (64.0 / groups * 9)), count = 64.0 * 64 / groups * 9;
        moments(graph, parameters, "conv.weight", seen);
        assert_true(fabs(seen[0]) < 5 * deviation / sqrt(count));
        assert_true(fabs(seen[1] / deviation - 1) < 5 / sqrt(2 * count));
        moments(graph, parameters, "fc.weight", seen);
        assert_true(fabs(seen[1] / 0.01 - 1) < 5 / sqrt(2 * 6400.0));
        static const struct {
            const char *name;
            double value;
        } constants[] = {{"bn.weight", 1}, {"bn.bias", 0}, {"bn.running_mean", 0}, {"bn.running_var", 1}, {"fc.bias", 0}};
        for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
            moments(graph, parameters, constants[i].name, seen);
            assert_true(seen[0] == constants[i].value && seen[1] == 0);
        }
        parameters_destroy(parameters);
        graph_destroy(graph);
    }
}

static const float *values_of(const struct graph *graph, const struct parameters *parameters, const char *name) {
    return parameters->tensors[graph_find_parameter(graph, name)].data;
}

static void fresh_values_depend_on_seed_and_name_alone(void **state) {
    (void)state;
    struct graph *small = wide_graph(1), *large = graph_create();
    struct error err = {0};
    struct layers layers = {large, &err, 1e-3f};
    int x = graph_add_input(large, 64, 16, 16, &err);
    x = layer_convolution(&layers, "before", x, &(struct convolution){64, 3, 1, 1, false});
    x = layer_convolution(&layers, "conv", x, &(struct convolution){64, 3, 1, 1, false});
    assert_true(layer_head(&layers, "fc", x, 7, 0) > 0);
    struct parameters *a = parameters_create(small, NULL), *b = parameters_create(large, NULL);
    parameters_initialise(small, a, 5);
    parameters_initialise(large, b, 5);
    size_t bytes = 64 * 64 * 9 * sizeof(float);
    assert_memory_equal(values_of(small, a, "conv.weight"), values_of(large, b, "conv.weight"), bytes);
    assert_memory_not_equal(values_of(large, b, "before.weight"), values_of(large, b, "conv.weight"), bytes);
    parameters_initialise(small, a, 6);
    assert_memory_not_equal(values_of(small, a, "conv.weight"), values_of(large, b, "conv.weight"), bytes);
    parameters_destroy(a);
    parameters_destroy(b);
    graph_destroy(small);
    graph_destroy(large);
}

/* A quantised convolution's weights are bytes: they stay zero, and nothing is written past them. */
static void fresh_values_are_for_floats_only(void **state) {
    (void)state;
    struct graph *graph = graph_create();
    struct error err = {0};
    int input = graph_add_input(graph, 3, 8, 8, &err);
    struct op op = {.kind = OP_CONV2D,
                    .conv2d = {.channels_out = 4, .window = {{3, 3}, {1, 1}, {1, 1}, {1, 1}}, .groups = 1,
                               .int8 = {.src = DTYPE_U8, .dst = DTYPE_U8}}};
    assert_int_equal(graph_add(graph, "conv", &op, &input, &err), 1);
    struct parameters *parameters = parameters_create(graph, &err);
    assert_non_null(parameters);
    parameters_initialise(graph, parameters, 5);
    const struct tensor *weight = &parameters->tensors[graph_find_parameter(graph, "conv.weight")];
    const struct tensor *factor = &parameters->tensors[graph_find_parameter(graph, "conv.factor")];
    assert_int_equal(weight->dtype, DTYPE_S8);
    assert_int_equal(tensor_bytes(weight), 4 * 3 * 9);
    for (int i = 0; i < 4 * 3 * 9; i++)
        assert_int_equal(((const int8_t *)weight->data)[i], 0);
    for (int i = 0; i < 4; i++)
        assert_true(((const float *)factor->data)[i] == 1);
    parameters_destroy(parameters);
    graph_destroy(graph);
}

static void copies_are_exact(void **state) {
    (void)state;
    struct graph *graph = network_graph(0);
    struct parameters *a = network_parameters(graph, 1), *b = parameters_create(graph, NULL);
    parameters_copy(b, a);
    for (int i = 0; i < a->count; i++)
        assert_memory_equal(a->tensors[i].data, b->tensors[i].data, tensor_bytes(&a->tensors[i]));
    parameters_destroy(a);
    parameters_destroy(b);
    parameters_destroy(NULL);
    graph_destroy(graph);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_are_named_after_their_node),
        cmocka_unit_test(an_operation_that_does_not_fit_is_named),
        cmocka_unit_test(an_earlier_failure_is_handed_on_untouched),
        cmocka_unit_test(names_too_long_for_parameters_are_refused),
        cmocka_unit_test(shapes_follow_the_batch),
        cmocka_unit_test(consumers_are_counted),
        cmocka_unit_test(the_cost_is_that_of_convolutions_and_linear_layers),
        cmocka_unit_test(the_text_has_a_line_per_node),
        cmocka_unit_test(fresh_values_have_the_published_deviations),
        cmocka_unit_test(fresh_values_depend_on_seed_and_name_alone),
        cmocka_unit_test(fresh_values_are_for_floats_only),
        cmocka_unit_test(copies_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
