#include "common/weights/model_file.h"

#include "tests/unit/weights/sample_manifest.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/** conv 2x1x3x3 without bias, batch norm, pooling, linear 3x2: every kind of parameter, few elements. */
static struct graph *small_graph(void) {
    struct graph *graph = graph_create();
    struct op conv = {.kind = OP_CONV2D,
                      .conv2d = {.channels_out = 2, .groups = 1, .window = {{3, 3}, {1, 1}, {1, 1}, {1, 1}}}};
    struct op norm = {.kind = OP_BATCH_NORM, .batch_norm = {.epsilon = 1e-5f, .momentum = 0.1f}};
    struct op pool = {.kind = OP_GLOBAL_AVERAGE_POOL};
    struct op linear = {.kind = OP_LINEAR, .linear = {3, true}};
    struct error err = {0};
    int x = graph_add_input(graph, 1, 8, 8, &err);
    x = graph_add(graph, "conv1", &conv, &x, &err);
    x = graph_add(graph, "bn1", &norm, &x, &err);
    x = graph_add(graph, "pool", &pool, &x, &err);
    x = graph_add(graph, "fc", &linear, &x, &err);
    if (x < 0)
        fail_msg("%s", err.message);
    return graph;
}

struct fixture {
    struct graph *graph;
    struct parameters *parameters;
    struct manifest manifest;
    char path[64];
};

static int set_up(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_true(digest_start(NULL));
    fixture->graph = small_graph();
    fixture->parameters = parameters_create(fixture->graph, NULL);
    parameters_initialise(fixture->graph, fixture->parameters, 7);
    fixture->manifest = sample_manifest();
    snprintf(fixture->path, sizeof fixture->path, "/tmp/thorax-model-%d", (int)getpid());
    *state = fixture;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *fixture = *state;
    unlink(fixture->path);
    parameters_destroy(fixture->parameters);
    graph_destroy(fixture->graph);
    free(fixture);
    return 0;
}

static bool save(const struct fixture *fixture, const struct safetensors_tensor *extras, int extra_count) {
    struct error err = {0};
    struct model_content content = {fixture->graph, fixture->parameters, &fixture->manifest, extras,
                                    extra_count};
    bool ok = model_file_save(fixture->path, &content, &err);
    return ok;
}

static void weights_manifest_and_extras_come_back(void **state) {
    struct fixture *fixture = *state;
    static const uint8_t images[] = {1, 2, 3, 4};
    struct safetensors_tensor extra = {"golden.images", DTYPE_U8, {4, {1, 1, 2, 2}}, images, 0};
    assert_true(save(fixture, &extra, 1));
    struct model_file file;
    struct error err = {0};
    if (!model_file_open(fixture->path, &file, &err))
        fail_msg("%s", err.message);
    assert_string_equal(file.manifest.name, "chest");
    struct model_spec spec = model_file_spec(&file);
    assert_string_equal(spec.architecture, "resnet18");
    assert_int_equal(spec.classes, 3);
    struct parameters *back = parameters_create(fixture->graph, &err);
    assert_true(model_file_load(&file, fixture->graph, back, &err));
    for (int i = 0; i < back->count; i++)
        assert_memory_equal(back->tensors[i].data, fixture->parameters->tensors[i].data,
                            tensor_bytes(&back->tensors[i]));
    struct tensor golden;
    assert_true(model_file_extra(&file, "golden.images", DTYPE_U8, 4, &golden, &err));
    assert_memory_equal(golden.data, images, sizeof images);
    tensor_fini(&golden);
    assert_false(model_file_extra(&file, "golden.images", DTYPE_F32, 4, &golden, &err));
    assert_int_equal(err.code, ERROR_SHAPE);
    assert_false(model_file_extra(&file, "golden.x", DTYPE_F32, 4, &golden, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    parameters_destroy(back);
    model_file_close(&file);
}

static void extras_keep_to_their_names(void **state) {
    struct fixture *fixture = *state;
    static const uint8_t byte = 1;
    struct safetensors_tensor extra = {"conv1.images", DTYPE_U8, {1, {1}}, &byte, 0};
    assert_false(save(fixture, &extra, 1));
}

static void same_content_gives_same_bytes(void **state) {
    struct fixture *fixture = *state;
    struct digest first, second;
    assert_true(save(fixture, NULL, 0));
    assert_true(digest_file(fixture->path, &first, NULL));
    assert_true(save(fixture, NULL, 0));
    assert_true(digest_file(fixture->path, &second, NULL));
    assert_true(digest_equal(&first, &second));
}

static void changed_weights_are_found_out(void **state) {
    struct fixture *fixture = *state;
    assert_true(save(fixture, NULL, 0));
    FILE *file = fopen(fixture->path, "r+b");
    assert_non_null(file);
    fseek(file, -1, SEEK_END);
    int last = fgetc(file);
    fseek(file, -1, SEEK_END);
    fputc(last ^ 1, file);
    fclose(file);
    struct model_file model;
    struct error err;
    assert_false(model_file_open(fixture->path, &model, &err));
    assert_int_equal(err.code, ERROR_FORMAT);
    assert_non_null(strstr(err.message, "not those that the manifest names"));
}

static void weights_alone_are_no_model(void **state) {
    struct fixture *fixture = *state;
    assert_true(safetensors_write(fixture->path, &(struct safetensors_content){0}, NULL));
    struct model_file model;
    struct error err;
    assert_false(model_file_open(fixture->path, &model, &err));
    assert_non_null(strstr(err.message, "without a manifest"));
    assert_non_null(strstr(err.hint, "trainctl import"));
}

/** Loads a list of tensors into the small graph. */
static bool load(const struct fixture *fixture, struct safetensors_tensor *tensors, int count,
                 struct error *err) {
    struct safetensors file = {.count = count, .tensors = tensors};
    struct parameters *to = parameters_create(fixture->graph, NULL);
    bool ok = model_file_load_tensors(&file, fixture->graph, to, err);
    parameters_destroy(to);
    return ok;
}

/** The fixture's parameters as tensors of a file, with room for one more. */
static struct safetensors_tensor *all_tensors(const struct fixture *fixture) {
    struct safetensors_tensor *tensors = calloc((size_t)fixture->graph->parameter_count + 1, sizeof *tensors);
    for (int i = 0; i < fixture->graph->parameter_count; i++) {
        const struct tensor *tensor = &fixture->parameters->tensors[i];
        tensors[i] = (struct safetensors_tensor){fixture->graph->parameters[i].name, DTYPE_F32, tensor->shape,
                                                 tensor->data, tensor_bytes(tensor)};
    }
    return tensors;
}

static void mismatches_name_the_tensor(void **state) {
    struct fixture *fixture = *state;
    int count = fixture->graph->parameter_count;
    struct safetensors_tensor *tensors = all_tensors(fixture);
    struct error err;
    assert_true(load(fixture, tensors, count, &err));

    assert_false(load(fixture, tensors, count - 1, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    assert_non_null(strstr(err.message, tensors[count - 1].name));

    tensors[count] = tensors[0];
    tensors[count].name = "conv9.weight";
    assert_false(load(fixture, tensors, count + 1, &err));
    assert_int_equal(err.code, ERROR_FORMAT);
    assert_non_null(strstr(err.message, "conv9.weight"));

    struct shape right = tensors[0].shape;
    tensors[0].shape = shape_of(4, INT64_C(1), INT64_C(2), INT64_C(3), INT64_C(3));
    assert_false(load(fixture, tensors, count, &err));
    assert_int_equal(err.code, ERROR_SHAPE);
    assert_non_null(strstr(err.message, "(1, 2, 3, 3), the network needs (2, 1, 3, 3)"));
    tensors[0].shape = right;

    tensors[1].dtype = DTYPE_S32;
    assert_false(load(fixture, tensors, count, &err));
    assert_int_equal(err.code, ERROR_UNSUPPORTED);
    free(tensors);
}

/* The network of small_graph, its convolution quantised. */
static struct graph *quantised_graph(void) {
    struct graph *graph = graph_create();
    struct op conv = {.kind = OP_CONV2D,
                      .conv2d = {.channels_out = 2, .groups = 1, .window = {{3, 3}, {1, 1}, {1, 1}, {1, 1}},
                                 .int8 = {.src = DTYPE_U8, .dst = DTYPE_F32}}};
    int x = graph_add_input(graph, 1, 8, 8, NULL);
    assert_int_equal(graph_add(graph, "conv1", &conv, &x, NULL), 1);
    return graph;
}

static void bytes_are_weights_where_the_network_is_quantised(void **state) {
    struct fixture *fixture = *state;
    struct graph *graph = quantised_graph();
    struct parameters *parameters = parameters_create(graph, NULL), *back = parameters_create(graph, NULL);
    struct model_content content = {graph, parameters, &fixture->manifest, NULL, 0};
    struct model_file file;
    struct error err = {0};
    int weight = graph_find_parameter(graph, "conv1.weight");
    for (int i = 0; i < 18; i++)
        ((int8_t *)parameters->tensors[weight].data)[i] = (int8_t)(i * 15 - 128);
    assert_true(model_file_save(fixture->path, &content, &err));
    assert_true(model_file_open(fixture->path, &file, &err));
    if (!model_file_load(&file, graph, back, &err))
        fail_msg("%s", err.message);
    assert_memory_equal(back->tensors[weight].data, parameters->tensors[weight].data, 18);
    model_file_close(&file);

    parameters->tensors[weight].dtype = DTYPE_U8; /* the same bytes, meant otherwise */
    assert_true(model_file_save(fixture->path, &content, &err) && model_file_open(fixture->path, &file, &err));
    assert_false(model_file_load(&file, graph, back, &err));
    assert_int_equal(err.code, ERROR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "conv1.weight: elements of type u8, expected s8"));
    model_file_close(&file);
    parameters_destroy(parameters);
    parameters_destroy(back);
    graph_destroy(graph);
}

static void values_that_would_poison_answers_are_refused(void **state) {
    struct fixture *fixture = *state;
    int count = fixture->graph->parameter_count;
    struct error err;
    static const struct {
        const char *name;
        float value;
    } cases[] = {{"fc.bias", NAN}, {"conv1.weight", INFINITY}, {"bn1.running_var", -1e-3f}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int index = graph_find_parameter(fixture->graph, cases[i].name);
        float *values = fixture->parameters->tensors[index].data, kept = values[1];
        values[1] = cases[i].value;
        struct safetensors_tensor *tensors = all_tensors(fixture);
        assert_false(load(fixture, tensors, count, &err));
        assert_int_equal(err.code, ERROR_FORMAT);
        assert_non_null(strstr(err.message, cases[i].name));
        values[1] = kept;
        free(tensors);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(weights_manifest_and_extras_come_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(extras_keep_to_their_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(same_content_gives_same_bytes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(changed_weights_are_found_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(weights_alone_are_no_model, set_up, tear_down),
        cmocka_unit_test_setup_teardown(mismatches_name_the_tensor, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bytes_are_weights_where_the_network_is_quantised, set_up, tear_down),
        cmocka_unit_test_setup_teardown(values_that_would_poison_answers_are_refused, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
