/*
 * Whole networks against PyTorch: golden.json, recorded by make_golden.py. Which device is tested is the program's argument.
 */
#include "common/base/file.h"
#include "common/graph/plan.h"
#include "common/models/registry.h"
#include "common/weights/import.h"
#include "tests/golden/pattern.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *device_name = "reference";
static json_t *golden;

struct network {
    struct device *device;
    struct graph *graph;
    struct parameters *parameters;
    int64_t batch, image_size;
};

static int64_t integer(const json_t *row, const char *key) {
    const json_t *value = json_object_get(row, key);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static const char *string(const json_t *row, const char *key) {
    return json_string_value(json_object_get(row, key));
}

static void network_init(struct network *network, const json_t *row) {
    struct error err = {0};
    struct device_spec device = {.name = device_name};
    struct model_spec model = {.architecture = string(row, "architecture"),
                               .stem = string(row, "stem"),
                               .input_channels = (int)integer(row, "channels"),
                               .size = (int)integer(row, "size"),
                               .classes = (int)integer(row, "classes")};
    network->device = device_open(&device, &err);
    network->graph = model_build(&model, &err);
    if (!network->device || !network->graph)
        fail_msg("%s", err.message);
    network->parameters = parameters_create(network->graph, &err);
    pattern_parameters(network->graph, network->parameters);
    network->batch = integer(row, "batch");
    network->image_size = integer(row, "channels") * integer(row, "size") * integer(row, "size");
}

static void network_fini(struct network *network) {
    parameters_destroy(network->parameters);
    graph_destroy(network->graph);
    device_close(network->device);
}

static float *make_images(const struct network *network, int index) {
    char name[32];
    snprintf(name, sizeof name, "images%d", index);
    float *images = malloc((size_t)(network->batch * network->image_size) * sizeof *images);
    pattern_fill(name, images, network->batch * network->image_size);
    return images;
}

static struct plan *make_plan(const struct plan_spec *spec) {
    struct error err = {0};
    struct plan *plan = plan_create(spec, &err);
    if (!plan)
        fail_msg("%s", err.message);
    return plan;
}

/** Largest difference over the largest magnitude. */
static double relative_difference(const float *ours, const json_t *theirs, size_t count) {
    double worst = 0, largest = 0;
    for (size_t i = 0; i < count; i++) {
        double expected = json_number_value(json_array_get(theirs, i));
        worst = fmax(worst, fabs(ours[i] - expected));
        largest = fmax(largest, fabs(expected));
    }
    return worst / largest;
}

static void check_logits(const json_t *row, const struct network *network) {
    struct plan_spec spec = {.graph = network->graph, .parameters = network->parameters, .device = network->device,
                             .mode = PLAN_INFER, .batch = network->batch};
    struct plan *plan = make_plan(&spec);
    struct error err = {0};
    float *images = make_images(network, 0);
    float logits[4096];
    assert_true(plan_set_images(plan, images, &err) && plan_run(plan, &err) && plan_read_logits(plan, logits, &err));
    const json_t *expected = json_object_get(row, "logits");
    double difference = relative_difference(logits, expected, json_array_size(expected));
    print_message("%s %s, %lld px: difference %.2g of the largest logit\n", device_name, string(row, "architecture"),
                  (long long)integer(row, "size"), difference);
    assert_true(difference < 1e-4);
    free(images);
    plan_destroy(plan);
}

/** Plain loops: large images and many steps would take minutes. */
static bool is_reference(void) {
    return strcmp(device_name, "reference") == 0;
}

static bool too_slow(const json_t *row) {
    return is_reference() && integer(row, "size") > 100;
}

static void logits_equal_pytorch(void **state) {
    (void)state;
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(golden, "logits"), i, row) {
        if (too_slow(row))
            continue;
        struct network network;
        network_init(&network, row);
        check_logits(row, &network);
        network_fini(&network);
    }
}

#define PRETRAINED "../shared/data/pretrained/efficientnet_lite0_imagenet.safetensors"

static void import_pretrained(struct network *network, const struct file_map *map) {
    struct error err = {0};
    struct safetensors source;
    struct import_report report;
    bool ok = safetensors_parse(map->data, map->size, &source, &err) &&
              import_weights(&source, network->graph, model_find("efficientnet_lite0", &err), network->parameters, &report, &err);
    if (!ok)
        fail_msg("%s", err.message);
    assert_false(report.fresh_head);
    safetensors_fini(&source);
}

/* The published ImageNet weights, imported as trainctl does it: the whole way from a file to logits. */
static void published_weights_give_the_published_logits(void **state) {
    (void)state;
    const json_t *row = json_object_get(golden, "pretrained");
    struct file_map map;
    if (!row || too_slow(row) || !file_map_open(PRETRAINED, &map, NULL)) {
        print_message("skipped: %s\n", is_reference() ? "plain loops are too slow for it" : PRETRAINED " is not there");
        skip();
    }
    struct network network;
    network_init(&network, row);
    import_pretrained(&network, &map);
    check_logits(row, &network);
    network_fini(&network);
    file_map_close(&map);
}

static float train_step(struct plan *plan, const struct network *network, const json_t *row, int step) {
    struct error err = {0};
    int batches = (int)integer(row, "batches");
    int32_t labels[64];
    for (int i = 0; i < network->batch; i++)
        labels[i] = (int32_t)((i * 7 + step % batches) % integer(row, "classes"));
    int64_t seed[3] = {1, step, 0};
    float hyper[HYPER_COUNT] = {[HYPER_LEARNING_RATE] = (float)json_number_value(json_object_get(row, "learning_rate")),
                                [HYPER_WEIGHT_DECAY] = (float)json_number_value(json_object_get(row, "weight_decay")),
                                [HYPER_MOMENTUM] = 0.9f,
                                [HYPER_GRADIENT_SCALE] = 1.0f};
    float *images = make_images(network, step % batches), loss = NAN;
    bool ok = plan_set_images(plan, images, &err) && plan_set_targets(plan, labels, seed, &err) && plan_run(plan, &err) &&
              plan_update(plan, hyper, &err) && plan_read_loss(plan, &loss, &err);
    if (!ok)
        fail_msg("%s", err.message);
    free(images);
    return loss;
}

static void training_follows_pytorch(void **state) {
    (void)state;
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(golden, "training"), i, row) {
        struct network network;
        network_init(&network, row);
        struct plan_spec spec = {.graph = network.graph, .parameters = network.parameters, .device = network.device,
                                 .mode = PLAN_TRAIN, .batch = network.batch, .optimizer = OP_SGD,
                                 .label_smoothing = (float)json_number_value(json_object_get(row, "label_smoothing"))};
        struct plan *plan = make_plan(&spec);
        const json_t *losses = json_object_get(row, "losses");
        double worst = 0;
        int steps = is_reference() ? 2 : (int)json_array_size(losses);
        for (int step = 0; step < steps; step++)
            worst = fmax(worst, fabs(train_step(plan, &network, row, step) -
                                     json_number_value(json_array_get(losses, (size_t)step))));
        print_message("%s %s: %d steps, worst difference of the loss %.2g\n", device_name, string(row, "architecture"), steps,
                      worst);
        assert_true(worst < 1e-3);
        plan_destroy(plan);
        network_fini(&network);
    }
}

int main(int argc, char **argv) {
    if (argc > 1)
        device_name = argv[1];
    json_error_t problem;
    golden = json_load_file("tests/golden/golden.json", JSON_REJECT_DUPLICATES, &problem);
    if (!golden) {
        fprintf(stderr, "tests/golden/golden.json:%d: %s\n", problem.line, problem.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_equal_pytorch),
        cmocka_unit_test(published_weights_give_the_published_logits),
        cmocka_unit_test(training_follows_pytorch),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(golden);
    return failed;
}
