#include "common/weights/import.h"

#include "common/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct fixture {
    struct graph *graph;
    struct parameters *parameters;
    const struct model_architecture *architecture;
    struct safetensors source; /**< tensors of a three-channel, four-class network of the same kind */
    struct graph *source_graph;
    struct parameters *source_parameters;
};

static void fill(struct tensor *tensor, uint32_t seed) {
    float *values = tensor->data;
    for (int64_t i = 0; i < shape_count(&tensor->shape); i++)
        values[i] = (float)((seed + (uint32_t)i) * 2654435761u >> 8) / 16777216.0f;
}

static struct graph *build(const char *architecture, int channels, int classes,
                           struct parameters **parameters, uint32_t seed) {
    struct error err = {0};
    struct graph *graph =
        model_build(&(struct model_spec){architecture, NULL, channels, 32, classes, 0}, &err);
    if (!graph || !(*parameters = parameters_create(graph, &err)))
        fail_msg("%s", err.message);
    for (int i = 0; i < (*parameters)->count;
         i++) /* different everywhere; drawing 11 million normals would take seconds */
        fill(&(*parameters)->tensors[i], seed + 1000u * (uint32_t)i);
    return graph;
}

static void fill_source(struct fixture *fixture) {
    int count = fixture->source_graph->parameter_count;
    fixture->source.tensors = calloc((size_t)count + 2, sizeof *fixture->source.tensors);
    for (int i = 0; i < count; i++) {
        const struct tensor *tensor = &fixture->source_parameters->tensors[i];
        fixture->source.tensors[i] =
            (struct safetensors_tensor){fixture->source_graph->parameters[i].name, DTYPE_F32, tensor->shape,
                                        tensor->data, tensor_bytes(tensor)};
    }
    static const int64_t tracked = 5;
    fixture->source.tensors[count] =
        (struct safetensors_tensor){"bn1.num_batches_tracked", DTYPE_S64, {0, {0}}, &tracked, 8};
    fixture->source.count = count + 1;
}

static int set_up(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    fixture->architecture = model_find("resnet18", NULL);
    fixture->graph = build("resnet18", 1, 3, &fixture->parameters, 1);
    fixture->source_graph = build("resnet18", 3, 4, &fixture->source_parameters, 2);
    fill_source(fixture);
    *state = fixture;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *fixture = *state;
    free(fixture->source.tensors);
    parameters_destroy(fixture->parameters);
    parameters_destroy(fixture->source_parameters);
    graph_destroy(fixture->graph);
    graph_destroy(fixture->source_graph);
    free(fixture);
    return 0;
}

static bool import(struct fixture *fixture, struct import_report *report, struct error *err) {
    return import_weights(&fixture->source, fixture->graph, fixture->architecture, fixture->parameters,
                          report, err);
}

static const float *values_of(const struct graph *graph, const struct parameters *parameters,
                              const char *name) {
    int index = graph_find_parameter(graph, name);
    assert_true(index >= 0);
    return parameters->tensors[index].data;
}

static void body_is_taken_head_stays_and_channels_add_up(void **state) {
    struct fixture *fixture = *state;
    struct import_report report;
    struct error err = {0};
    float head = values_of(fixture->graph, fixture->parameters, "fc.weight")[5];
    if (!import(fixture, &report, &err))
        fail_msg("%s", err.message);
    assert_true(report.fresh_head && report.summed_channels);
    assert_int_equal(report.source_classes, 4);
    assert_int_equal(report.dropped, 1);
    assert_int_equal(report.taken, fixture->graph->parameter_count - 2);
    assert_true(values_of(fixture->graph, fixture->parameters, "fc.weight")[5] == head);
    const char *deep = "layer3.1.conv2.weight";
    assert_memory_equal(values_of(fixture->graph, fixture->parameters, deep),
                        values_of(fixture->source_graph, fixture->source_parameters, deep), 1000);
    const float *grey = values_of(fixture->graph, fixture->parameters, "conv1.weight"); // (64, 1, 7, 7)
    const float *colour =
        values_of(fixture->source_graph, fixture->source_parameters, "conv1.weight"); // (64, 3, 7, 7)
    for (int o = 0; o < 64; o++) {
        for (int k = 0; k < 49; k++) {
            double sum = 0;
            for (int c = 0; c < 3; c++)
                sum += (double)colour[(o * 3 + c) * 49 + k];
            assert_true(grey[o * 49 + k] == (float)sum);
        }
    }
}

static void head_is_taken_where_the_classes_agree(void **state) {
    struct fixture *fixture = *state;
    struct parameters *own;
    struct graph *graph = build("resnet18", 3, 4, &own, 3);
    struct import_report report;
    struct error err = {0};
    assert_true(import_weights(&fixture->source, graph, fixture->architecture, own, &report, &err));
    assert_false(report.fresh_head);
    assert_false(report.summed_channels);
    assert_int_equal(report.taken, graph->parameter_count);
    for (int i = 0; i < own->count; i++)
        assert_memory_equal(own->tensors[i].data, fixture->source_parameters->tensors[i].data,
                            tensor_bytes(&own->tensors[i]));
    parameters_destroy(own);
    graph_destroy(graph);
}

static void weights_without_a_head_leave_it_fresh(void **state) {
    struct fixture *fixture = *state;
    int kept = 0;
    for (int i = 0; i < fixture->source.count; i++) {
        if (strncmp(fixture->source.tensors[i].name, "fc.", 3) != 0)
            fixture->source.tensors[kept++] = fixture->source.tensors[i];
    }
    fixture->source.count = kept;
    struct import_report report;
    struct error err = {0};
    assert_true(import(fixture, &report, &err));
    assert_true(report.fresh_head);
    assert_int_equal(report.source_classes, 0);
}

static void what_does_not_fit_is_named(void **state) {
    struct fixture *fixture = *state;
    struct import_report report;
    struct error err;
    struct safetensors_tensor *tensors = fixture->source.tensors, kept = tensors[3];
    tensors[3].name = "layer9.weight";
    assert_false(import(fixture, &report, &err));
    assert_non_null(strstr(err.message, "layer9.weight is surplus"));
    tensors[3] = kept;
    tensors[3].shape = shape_of(1, INT64_C(1));
    assert_false(import(fixture, &report, &err));
    assert_int_equal(err.code, ERROR_SHAPE);
    assert_non_null(strstr(err.message, kept.name));
    tensors[3] = kept;
    tensors[3].dtype = DTYPE_S32;
    assert_false(import(fixture, &report, &err));
    assert_int_equal(err.code, ERROR_UNSUPPORTED);
    tensors[3] = kept;
    tensors[0] = tensors[fixture->source.count - 1]; /* conv1.weight is gone */
    fixture->source.count--;
    assert_false(import(fixture, &report, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    assert_non_null(strstr(err.message, "conv1.weight is missing"));
}

/** Replaces the source's bn1.bias. */
static void put_bias(struct fixture *fixture, enum dtype dtype, const uint16_t data[64]) {
    for (int i = 0; i < fixture->source.count; i++) {
        if (strcmp(fixture->source.tensors[i].name, "bn1.bias") == 0)
            fixture->source.tensors[i] = (struct safetensors_tensor){"bn1.bias", dtype, {1, {64}}, data, 128};
    }
}

/** Patterns of IEEE 754-2008 binary16 and of bfloat16 (the upper half of binary32), and what they stand for.
 */
static void short_floats_are_widened(void **state) {
    struct fixture *fixture = *state;
    static const uint16_t f16[64] = {0x3c00, 0xc000, 0x7bff, 0x0001, 0x0400, 0x3555},
                          bf16[64] = {0x3f80, 0xc049};
    static const float of_f16[] = {1.0f, -2.0f, 65504.0f, 0x1p-24f, 0x1p-14f, 0.333251953125f, 0.0f};
    static const float of_bf16[] = {1.0f, -3.140625f, 0.0f};
    static const uint16_t infinite[64] = {[63] = 0x7c00};
    struct import_report report;
    struct error err = {0};
    put_bias(fixture, DTYPE_F16, f16);
    assert_true(import(fixture, &report, &err));
    assert_memory_equal(values_of(fixture->graph, fixture->parameters, "bn1.bias"), of_f16, sizeof of_f16);
    put_bias(fixture, DTYPE_BF16, bf16);
    assert_true(import(fixture, &report, &err));
    assert_memory_equal(values_of(fixture->graph, fixture->parameters, "bn1.bias"), of_bf16, sizeof of_bf16);
    put_bias(fixture, DTYPE_F16, infinite);
    assert_false(import(fixture, &report, &err));
    assert_non_null(strstr(err.message, "bn1.bias"));
}

static void published_efficientnet_weights_fit(void **state) {
    (void)state;
    const char *path = "../shared/data/pretrained/efficientnet_lite0_imagenet.safetensors";
    struct file_map map;
    if (!file_map_open(path, &map, NULL)) {
        print_message("skipped: %s is not there\n", path);
        skip();
    }
    struct safetensors source;
    struct error err = {0};
    struct import_report report;
    struct parameters *parameters;
    struct graph *graph = build("efficientnet_lite0", 1, 3, &parameters, 1);
    assert_true(safetensors_parse(map.data, map.size, &source, &err));
    if (!import_weights(&source, graph, model_find("efficientnet_lite0", NULL), parameters, &report, &err))
        fail_msg("%s", err.message);
    assert_int_equal(report.dropped, 49);
    assert_int_equal(report.source_classes, 1000);
    assert_int_equal(report.taken, 296 - 49 - 2);
    assert_true(report.summed_channels);
    safetensors_fini(&source);
    file_map_close(&map);
    parameters_destroy(parameters);
    graph_destroy(graph);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(body_is_taken_head_stays_and_channels_add_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(head_is_taken_where_the_classes_agree, set_up, tear_down),
        cmocka_unit_test_setup_teardown(weights_without_a_head_leave_it_fresh, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_does_not_fit_is_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(short_floats_are_widened, set_up, tear_down),
        cmocka_unit_test(published_efficientnet_weights_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
