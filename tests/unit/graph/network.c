#include "tests/unit/graph/network.h"

#include "common/base/rng.h"

#include <stdlib.h>

struct graph *network_graph(double dropout) {
    struct error err = {0};
    struct graph *graph = graph_create();
    struct layers layers = {graph, &err, 1e-5f};
    struct convolution three = {4, 3, 1, 1, false}, project = {6, 1, 2, 1, false}, strided = {6, 3, 2, 1, false};
    int input = graph_add_input(graph, NETWORK_CHANNELS, NETWORK_SIDE, NETWORK_SIDE, &err);
    int x = layer_batch_norm(&layers, "bn1", layer_convolution(&layers, "conv1", input, &three));
    int stem = layer_activation(&layers, "relu1", x, ACTIVATION_RELU);
    x = layer_batch_norm(&layers, "bn2", layer_convolution(&layers, "conv2", stem, &three));
    int block = layer_activation(&layers, "relu2", layer_add(&layers, "add2", x, stem), ACTIVATION_RELU);
    int side = layer_batch_norm(&layers, "bn3", layer_convolution(&layers, "conv3", block, &project));
    x = layer_batch_norm(&layers, "bn4", layer_convolution(&layers, "conv4", block, &strided));
    x = layer_activation(&layers, "relu4", layer_add(&layers, "add4", side, x), ACTIVATION_RELU6);
    if (layer_head(&layers, "fc", x, NETWORK_CLASSES, dropout) < 0)
        fail_msg("%s", err.message);
    return graph;
}

struct parameters *network_parameters(const struct graph *graph, uint64_t seed) {
    struct error err = {0};
    struct parameters *parameters = parameters_create(graph, &err);
    assert_non_null(parameters);
    parameters_initialise(graph, parameters, seed);
    for (int i = 0; i < graph->parameter_count; i++) {
        if (graph->parameters[i].role.shape.rank != 1)
            continue;
        struct rng rng;
        rng_init(&rng, seed, RNG_TEST, (uint64_t)i, 0);
        float *data = parameters->tensors[i].data;
        for (int64_t j = 0; j < shape_count(&graph->parameters[i].role.shape); j++)
            data[j] += rng_uniform(&rng, -0.4f, 0.4f);
    }
    return parameters;
}

float *network_images(int count) {
    float *images = malloc((size_t)count * NETWORK_PIXELS * sizeof *images);
    assert_non_null(images);
    struct rng rng;
    rng_init(&rng, 77, RNG_TEST, 0, 0);
    for (int i = 0; i < count * NETWORK_PIXELS; i++)
        images[i] = rng_normal(&rng);
    return images;
}

struct device *network_device(void) {
    struct error err = {0};
    struct device_spec spec = {.name = "reference", .threads = 1};
    struct device *device = device_open(&spec, &err);
    if (!device)
        fail_msg("%s", err.message);
    return device;
}

struct plan *network_plan(const struct plan_spec *spec) {
    struct error err = {0};
    struct plan *plan = plan_create(spec, &err);
    if (!plan)
        fail_msg("%s", err.message);
    return plan;
}

void network_answer(struct plan *plan, int batch, float *logits) {
    struct error err = {0};
    float *images = network_images(batch);
    bool ok = plan_set_images(plan, images, &err) && plan_run(plan, &err) && plan_read_logits(plan, logits, &err);
    free(images);
    if (!ok)
        fail_msg("%s", err.message);
}

void network_step(struct plan *plan, int batch) {
    struct error err = {0};
    int32_t labels[64];
    const int64_t seed[3] = {1, 0, 0};
    for (int i = 0; i < batch; i++)
        labels[i] = i % NETWORK_CLASSES;
    float *images = network_images(batch);
    bool ok = plan_set_images(plan, images, &err) && plan_set_targets(plan, labels, seed, &err) && plan_run(plan, &err);
    free(images);
    if (!ok)
        fail_msg("%s", err.message);
}

int network_setup(void **state) {
    struct network_fixture *fixture = calloc(1, sizeof *fixture);
    fixture->device = network_device();
    fixture->graph = network_graph(0.5);
    fixture->parameters = network_parameters(fixture->graph, 3);
    *state = fixture;
    return 0;
}

int network_teardown(void **state) {
    struct network_fixture *fixture = *state;
    parameters_destroy(fixture->parameters);
    graph_destroy(fixture->graph);
    device_close(fixture->device);
    free(fixture);
    return 0;
}
