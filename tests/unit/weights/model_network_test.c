/* Models in 8 bits as files: what comes back is what was written, and tables that fit no network are refused. */
#include "common/weights/model_network.h"

#include "common/graph/passes.h"
#include "tests/unit/weights/sample_manifest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { ROWS = 64 };

/** resnet18 with random weights, folded, and a table for it. */
struct fixture {
    struct graph *graph, *folded;
    struct parameters *parameters, *folded_parameters;
    struct quantisation_row rows[ROWS];
    struct quantisation table;
    struct model_network network; /* that the table makes of it */
    struct manifest_quantised described[ROWS];
    struct manifest manifest;
    char path[64];
};

static void describe(struct fixture *fixture) {
    for (int i = 0; i < fixture->table.count; i++) {
        const struct quantisation_row *row = &fixture->rows[i];
        fixture->described[i] = (struct manifest_quantised){row->node, row->int8 ? "int8" : "f32", dtype_name(row->dtype),
                                                            (double)row->scale};
    }
    fixture->manifest = sample_manifest();
    fixture->manifest.format = 2;
    fixture->manifest.precision = "int8";
    fixture->manifest.quantised = fixture->described;
    fixture->manifest.quantised_count = fixture->table.count;
}

/** A row for the pictures and for every convolution; u8 behind a ReLU. */
static void fill_table(struct fixture *fixture) {
    fixture->table.rows = fixture->rows;
    for (int i = 0; i < fixture->folded->node_count; i++) {
        const struct graph_node *node = &fixture->folded->nodes[i];
        if (node->op.kind != OP_INPUT && node->op.kind != OP_CONV2D)
            continue;
        struct quantisation_row *row = &fixture->rows[fixture->table.count++];
        bool positive = node->op.kind == OP_CONV2D && node->op.conv2d.activation == ACTIVATION_RELU;
        *row = (struct quantisation_row){"", node->op.kind == OP_CONV2D, positive ? DTYPE_U8 : DTYPE_S8,
                                         0.01f + 0.001f * (float)i};
        snprintf(row->node, sizeof row->node, "%s", node->name);
    }
}

static void quantise(struct fixture *fixture, int weight_bits) {
    struct error err = {0};
    model_network_close(&fixture->network);
    fixture->network.graph = graph_quantise(fixture->folded, &fixture->table, &err);
    if (!fixture->network.graph)
        fail_msg("%s", err.message);
    fixture->network.parameters = quantise_parameters(fixture->folded, fixture->folded_parameters, &fixture->table,
                                                      fixture->network.graph, weight_bits, &err);
    assert_non_null(fixture->network.parameters);
}

static int set_up(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct model_spec spec = {.architecture = "resnet18", .stem = "3x3", .input_channels = 1, .size = 28, .classes = 3};
    assert_true(digest_start(NULL));
    fixture->graph = model_build(&spec, NULL);
    fixture->parameters = parameters_create(fixture->graph, NULL);
    parameters_initialise(fixture->graph, fixture->parameters, 7);
    fixture->folded = graph_fold_for_inference(fixture->graph, fixture->parameters, NULL, PRECISION_F32,
                                               &fixture->folded_parameters, NULL);
    assert_non_null(fixture->folded);
    fill_table(fixture);
    describe(fixture);
    quantise(fixture, 8);
    snprintf(fixture->path, sizeof fixture->path, "/tmp/thorax-model-network-%d", (int)getpid());
    *state = fixture;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *fixture = *state;
    unlink(fixture->path);
    model_network_close(&fixture->network);
    parameters_destroy(fixture->folded_parameters);
    graph_destroy(fixture->folded);
    parameters_destroy(fixture->parameters);
    graph_destroy(fixture->graph);
    free(fixture);
    return 0;
}

static bool save(const struct fixture *fixture, const struct model_network *network, struct error *err) {
    struct model_content content = {network->graph, network->parameters, &fixture->manifest, NULL, 0};
    return model_file_save(fixture->path, &content, err);
}

static void open_file(const struct fixture *fixture, struct model_file *file) {
    struct error err = {0};
    if (!model_file_open(fixture->path, file, &err))
        fail_msg("%s", err.message);
}

static void assert_same_network(const struct model_network *a, const struct model_network *b) {
    char *first = graph_text(a->graph), *second = graph_text(b->graph);
    assert_string_equal(first, second);
    free(first);
    free(second);
    assert_int_equal(a->parameters->count, b->parameters->count);
    for (int i = 0; i < a->parameters->count; i++)
        assert_memory_equal(a->parameters->tensors[i].data, b->parameters->tensors[i].data,
                            tensor_bytes(&a->parameters->tensors[i]));
}

static void a_network_in_8_bits_comes_back(void **state) {
    struct fixture *fixture = *state;
    struct model_file file;
    struct model_network network;
    struct error err = {0};
    assert_true(save(fixture, &fixture->network, &err));
    open_file(fixture, &file);
    if (!model_network_open(&file, &network, &err))
        fail_msg("%s", err.message);
    assert_same_network(&network, &fixture->network);
    assert_int_equal(network.precision, PRECISION_F32); /* of a plan: the graph itself says where it computes in 8 bits */
    model_network_close(&network);
    model_network_close(&network); /* harmless */
    model_file_close(&file);
}

static void other_precisions_keep_graph_and_weights(void **state) {
    static const struct {
        const char *name;
        enum precision precision;
    } cases[] = {{"f32", PRECISION_F32}, {"bf16", PRECISION_BF16}};
    struct fixture *fixture = *state;
    struct model_network trained = {fixture->graph, fixture->parameters, PRECISION_F32}, network;
    for (int i = 0; i < 2; i++) {
        struct model_file file;
        struct error err = {0};
        fixture->manifest.precision = cases[i].name;
        fixture->manifest.format = i == 0 ? 1 : 2;
        fixture->manifest.quantised_count = 0;
        assert_true(save(fixture, &trained, &err));
        open_file(fixture, &file);
        assert_true(model_network_open(&file, &network, &err));
        assert_int_equal(network.precision, cases[i].precision);
        assert_int_equal(model_network_weight_bits(&network), 0);
        assert_same_network(&network, &trained);
        model_network_close(&network);
        model_file_close(&file);
    }
}

/** Saves and opens; the network must be refused with these words. */
static void assert_no_network(const struct fixture *fixture, const struct model_network *weights, const char *words) {
    struct model_file file;
    struct model_network network;
    struct error err = {0};
    if (!save(fixture, weights, &err))
        fail_msg("%s", err.message);
    open_file(fixture, &file);
    assert_false(model_network_open(&file, &network, &err));
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
    assert_null(network.graph);
    assert_null(network.parameters);
    model_file_close(&file);
}

static void tables_of_other_networks_are_refused(void **state) {
    struct fixture *fixture = *state;
    struct manifest_quantised *rows = fixture->described, kept = rows[3];
    rows[3].node = "layer9.0.conv1";
    assert_no_network(fixture, &fixture->network, "model chest: quantisation: the network has no node layer9.0.conv1");
    rows[3] = rows[2];
    assert_no_network(fixture, &fixture->network, "stands twice");
    rows[3] = kept;
    rows[0].computes = "int8"; /* the pictures */
    assert_no_network(fixture, &fixture->network, "is no convolution and computes in int8");
    rows[0].computes = "f32";
    rows[3].node = "layer1.0.conv1.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    assert_no_network(fixture, &fixture->network, "is too long");
    rows[3].node = "conv1.";
    assert_no_network(fixture, &fixture->network, "no node conv1.");
    rows[3] = kept;
    fixture->manifest.quantised_count--; /* the last one computes in f32 then, and its weights are 8-bit ones */
    assert_no_network(fixture, &fixture->network, "layer4.1.conv2.factor is surplus");
}

static void scales_that_leave_no_finite_number_are_refused(void **state) {
    struct fixture *fixture = *state;
    struct quantisation_row *rows = fixture->rows;
    int last = fixture->table.count - 1; /* the second of its block: it adds what came in */
    fixture->described[last].scale = 1e-25;
    for (int i = 0; i < last; i++)
        fixture->described[i].scale = 1e25;
    assert_true(fixture->folded->nodes[fixture->folded->node_count - 1].op.kind == OP_LINEAR && rows[last].int8);
    assert_no_network(fixture, &fixture->network, "not a finite number");
}

static void weights_of_another_precision_are_refused(void **state) {
    struct fixture *fixture = *state;
    struct model_network trained = {fixture->graph, fixture->parameters, PRECISION_F32};
    assert_no_network(fixture, &trained, "surplus"); /* batch norms, which 8 bits have no more */
    fixture->manifest.precision = "f32";
    fixture->manifest.format = 1;
    fixture->manifest.quantised_count = 0;
    assert_no_network(fixture, &fixture->network, "surplus"); /* factors */
}

/** The manifest cannot be written, and so not read either: both check the same. */
static void assert_no_manifest(const struct fixture *fixture, const char *words) {
    struct error err = {0};
    assert_false(save(fixture, &fixture->network, &err));
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
}

static void manifests_of_no_sense_are_refused(void **state) {
    struct fixture *fixture = *state;
    struct manifest_quantised *many = calloc(MANIFEST_MAX_QUANTISED + 1, sizeof *many);
    fixture->described[1].scale = 1e-30;
    assert_no_manifest(fixture, "quantised 2: scale");
    fixture->described[1].scale = 1e30;
    assert_no_manifest(fixture, "quantised 2: scale");
    fixture->described[1].scale = 0.01;
    fixture->manifest.precision = "f32";
    fixture->manifest.format = 1;
    assert_no_manifest(fixture, "in precision f32");
    fixture->manifest.precision = "int8";
    assert_no_manifest(fixture, "int8 in format 1");
    fixture->manifest.format = 2;
    for (int i = 0; i <= MANIFEST_MAX_QUANTISED; i++)
        many[i] = fixture->described[1];
    fixture->manifest.quantised = many;
    fixture->manifest.quantised_count = MANIFEST_MAX_QUANTISED + 1;
    assert_no_manifest(fixture, "quantised");
    free(many);
}

/** The weight of a convolution, by its node. */
static struct tensor *weight_of(const struct fixture *fixture, const char *node) {
    char name[GRAPH_NAME_SIZE + 8];
    snprintf(name, sizeof name, "%s.weight", node);
    int index = graph_find_parameter(fixture->network.graph, name);
    assert_true(index >= 0);
    return &fixture->network.parameters->tensors[index];
}

/* 255 * 64 * 2 still fits into 16 bits, on the negative side. Beside a source of s8 weights are halved there: odd ones lose. */
static void weight_bits_follow_the_sources_type(void **state) {
    struct fixture *fixture = *state;
    assert_int_equal(model_network_weight_bits(&fixture->network), 8);
    quantise(fixture, 7);
    assert_int_equal(model_network_weight_bits(&fixture->network), 7);
    int8_t *unsigned_source = weight_of(fixture, "layer1.0.conv2")->data, *signed_source = weight_of(fixture, "conv1")->data;
    unsigned_source[5] = -64;
    signed_source[5] = -128;
    assert_int_equal(model_network_weight_bits(&fixture->network), 7);
    unsigned_source[5] = 64;
    assert_int_equal(model_network_weight_bits(&fixture->network), 8);
    unsigned_source[5] = -65;
    assert_int_equal(model_network_weight_bits(&fixture->network), 8);
    unsigned_source[5] = 0;
    signed_source[5] = 1;
    assert_int_equal(model_network_weight_bits(&fixture->network), 8);
    signed_source[5] = 126;
    assert_int_equal(model_network_weight_bits(&fixture->network), 7);
}

/** The reference device, as if it computed in so many bits. */
static int pretended_bits;
static const struct device_ops *real_ops;
static void pretend(struct device *device, struct device_info *out) {
    real_ops->info(device, out);
    out->int8_weight_bits = pretended_bits;
}

static void a_processor_that_would_saturate_is_told(void **state) {
    struct fixture *fixture = *state;
    struct error err = {0};
    struct device *device = device_open(&(struct device_spec){.name = "reference", .threads = 1}, &err);
    assert_non_null(device);
    struct device_ops ops = *device->ops;
    real_ops = device->ops;
    ops.info = pretend;
    device->ops = &ops;
    pretended_bits = 8;
    assert_true(model_network_is_exact_on(&fixture->network, device, &err));
    pretended_bits = 7;
    assert_false(model_network_is_exact_on(&fixture->network, device, &err));
    assert_int_equal(err.code, ERROR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "--weight-bits 7"));
    quantise(fixture, 7);
    assert_true(model_network_is_exact_on(&fixture->network, device, &err));
    device->ops = real_ops;
    device_close(device);
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH(a_network_in_8_bits_comes_back),
        WITH(other_precisions_keep_graph_and_weights),
        WITH(tables_of_other_networks_are_refused),
        WITH(scales_that_leave_no_finite_number_are_refused),
        WITH(weights_of_another_precision_are_refused),
        WITH(manifests_of_no_sense_are_refused),
        WITH(weight_bits_follow_the_sources_type),
        WITH(a_processor_that_would_saturate_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
