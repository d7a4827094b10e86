#include "common/models/registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct graph *build(const char *architecture, int channels, int size, int classes) {
    struct error err = {0};
    struct model_spec spec = {.architecture = architecture, .input_channels = channels, .size = size, .classes = classes};
    struct graph *graph = model_build(&spec, &err);
    if (!graph)
        fail_msg("%s", err.message);
    return graph;
}

/** Checks one line of names.txt: ARCHITECTURE NAME DIMENSIONS. */
static void check_line(const struct graph *graph, char *line) {
    char *at = strchr(line, ' ');
    assert_non_null(at);
    char *name = at + 1, *end = strchr(name, ' ');
    assert_non_null(end);
    *end = '\0';
    int parameter = graph_find_parameter(graph, name);
    if (parameter < 0)
        fail_msg("no parameter %s", name);
    struct shape shape = {0};
    for (char *next = end + 1; *next && *next != '\n'; shape.rank++)
        shape.dims[shape.rank] = strtol(next, &next, 10);
    if (!shape_equal(&shape, &graph->parameters[parameter].role.shape))
        fail_msg("%s has another shape", name);
}

/* Expected: the names and shapes of PyTorch's state_dict, recorded by make_names.py. */
static void names_and_shapes_are_those_of_state_dict(void **state) {
    (void)state;
    FILE *file = fopen("tests/unit/models/names.txt", "r");
    assert_non_null(file);
    static const char *const names[] = {"resnet18", "resnet50", "efficientnet_lite0"};
    struct graph *graphs[3];
    int seen[3] = {0};
    for (int i = 0; i < 3; i++)
        graphs[i] = build(names[i], 3, 224, 1000);
    char line[256];
    while (fgets(line, sizeof line, file)) {
        for (int i = 0; i < 3; i++) {
            size_t length = strlen(names[i]);
            if (strncmp(line, names[i], length) != 0 || line[length] != ' ')
                continue;
            check_line(graphs[i], line);
            seen[i]++;
            break;
        }
    }
    fclose(file);
    for (int i = 0; i < 3; i++) {
        assert_true(seen[i] > 0);
        assert_int_equal(seen[i], graphs[i]->parameter_count);
        graph_destroy(graphs[i]);
    }
}

/* torchvision's and timm's published numbers of weights for 1000 classes, and the tensors of torchvision's
 * state_dict, of which one per batch norm is num_batches_tracked. */
static const struct {
    const char *name;
    int64_t weights;
    int tensors;
} published[] = {
    {"resnet18", 11689512, 122},          {"resnet34", 21797672, 218}, {"resnet50", 25557032, 320}, {"resnet101", 44549160, 626},
    {"efficientnet_lite0", 4652008, 296},
};

static void sizes_are_the_published_ones(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        struct graph *graph = build(published[i].name, 3, 224, 1000);
        int64_t weights = 0;
        int norms = 0;
        for (int j = 0; j < graph->parameter_count; j++) {
            const struct op_parameter *role = &graph->parameters[j].role;
            weights += role->diff == ARG_NONE ? 0 : shape_count(&role->shape);
            norms += role->arg == ARG_RUNNING_MEAN;
        }
        assert_true(weights == published[i].weights);
        assert_int_equal(graph->parameter_count + norms, published[i].tensors);
        graph_destroy(graph);
    }
}

/* Twice the multiply-adds that torchvision's documentation gives for its ResNets, rounded to three digits. */
static void costs_are_the_published_ones(void **state) {
    (void)state;
    static const double billions[] = {1.81, 3.66, 4.09, 7.80};
    for (size_t i = 0; i < sizeof billions / sizeof *billions; i++) {
        struct graph *graph = build(published[i].name, 3, 224, 1000);
        double ratio = graph_flops(graph) / (2e9 * billions[i]);
        assert_true(ratio > 0.995 && ratio < 1.005);
        graph_destroy(graph);
    }
}

static void every_architecture_builds_at_every_size(void **state) {
    (void)state;
    static const int sizes[] = {28, 29, 32, 63, 64, 65, 100, 224, 299, 511, 512};
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++) {
            struct graph *graph = build(published[i].name, 1 + 2 * (int)(j % 2), sizes[j], 3);
            struct shape logits = shape_of(2, 1, 3);
            assert_true(shape_equal(&graph->nodes[graph->node_count - 1].output, &logits));
            graph_destroy(graph);
        }
    }
}

static bool has_node(const struct graph *graph, const char *name) {
    for (int i = 0; i < graph->node_count; i++) {
        if (strcmp(graph->nodes[i].name, name) == 0)
            return true;
    }
    return false;
}

static void rows_name_their_first_convolution_and_head(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        const struct model_architecture *row = model_find(published[i].name, NULL);
        assert_non_null(row);
        struct graph *graph = build(row->name, 1, 64, 3);
        assert_true(has_node(graph, row->first_convolution) && has_node(graph, row->head));
        graph_destroy(graph);
    }
}

static void the_small_stem_keeps_the_resolution(void **state) {
    (void)state;
    struct error err = {0};
    struct model_spec spec = {.architecture = "resnet18", .stem = "3x3", .input_channels = 1, .size = 28, .classes = 2};
    struct graph *graph = model_build(&spec, &err);
    assert_non_null(graph);
    struct shape kernel = shape_of(4, 64, 1, 3, 3), first = shape_of(4, 1, 64, 28, 28);
    assert_true(shape_equal(&graph->parameters[graph_find_parameter(graph, "conv1.weight")].role.shape, &kernel));
    assert_true(shape_equal(&graph->nodes[1].output, &first));
    assert_false(has_node(graph, "maxpool"));
    graph_destroy(graph);
}

static void dropout_stands_before_the_head_where_asked_for(void **state) {
    (void)state;
    struct error err = {0};
    struct model_spec spec = {.architecture = "resnet18", .input_channels = 1, .size = 64, .classes = 3, .dropout = 0.25};
    struct graph *graph = model_build(&spec, &err);
    assert_non_null(graph);
    const struct graph_node *node = &graph->nodes[graph->node_count - 2];
    assert_int_equal(node->op.kind, OP_DROPOUT);
    assert_true(node->op.dropout.rate == 0.25f);
    graph_destroy(graph);
}

static void specs_out_of_range_are_refused(void **state) {
    (void)state;
    static const struct {
        struct model_spec spec;
        enum error_code code;
        const char *says;
    } rows[] = {
        {{"resnet19", NULL, 1, 64, 3, 0}, ERROR_NOT_FOUND, "resnet18"},
        {{"", NULL, 1, 64, 3, 0}, ERROR_NOT_FOUND, "resnet18"},
        {{"resnet18", NULL, 2, 64, 3, 0}, ERROR_INVALID, "channels"},
        {{"resnet18", NULL, 1, 27, 3, 0}, ERROR_INVALID, "27"},
        {{"resnet18", NULL, 1, 513, 3, 0}, ERROR_INVALID, "513"},
        {{"resnet18", NULL, 1, 64, 1, 0}, ERROR_INVALID, "classes"},
        {{"resnet18", NULL, 1, 64, 10001, 0}, ERROR_INVALID, "10001"},
        {{"resnet18", "5x5", 1, 64, 3, 0}, ERROR_INVALID, "5x5"},
        {{"resnet18", NULL, 1, 64, 3, 1}, ERROR_INVALID, "dropout"},
        {{"resnet18", NULL, 1, 64, 3, -0.1}, ERROR_INVALID, "dropout"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct error err = {0};
        assert_null(model_build(&rows[i].spec, &err));
        assert_int_equal(err.code, rows[i].code);
        assert_non_null(strstr(err.message, rows[i].says));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_shapes_are_those_of_state_dict),
        cmocka_unit_test(sizes_are_the_published_ones),
        cmocka_unit_test(costs_are_the_published_ones),
        cmocka_unit_test(every_architecture_builds_at_every_size),
        cmocka_unit_test(rows_name_their_first_convolution_and_head),
        cmocka_unit_test(the_small_stem_keeps_the_resolution),
        cmocka_unit_test(dropout_stands_before_the_head_where_asked_for),
        cmocka_unit_test(specs_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
