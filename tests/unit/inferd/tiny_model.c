#include "tests/unit/inferd/tiny_model.h"
#include "common/graph/plan.h"
#include "common/image/phantom.h"
#include "common/image/preprocess.h"
#include "common/weights/model_file.h"
#include <math.h>
#include <stdlib.h>

enum { GOLDEN = 2, CLASSES = 3, SIDE = 28, MAX_PIXELS = TINY_MODEL_MAX_SIZE * TINY_MODEL_MAX_SIZE };

/** The network, and what it answers to its golden images. */
struct tiny {
    struct model_spec model;
    struct graph *graph;
    struct parameters *parameters;
    uint8_t greys[GOLDEN * MAX_PIXELS];
    float images[GOLDEN * MAX_PIXELS];
    float answers[GOLDEN * CLASSES];
};

/** softmax, written down here again: the test must not take it from what it tests. */
static void softmax(float *row, double temperature) {
    double sum = 0;
    for (int k = 0; k < CLASSES; k++) {
        sum += exp(row[k] / temperature);
    }
    for (int k = 0; k < CLASSES; k++) {
        row[k] = (float)(exp(row[k] / temperature) / sum);
    }
}

const char *tiny_model_device(void) {
    const char *name = "reference";
    const struct device_ops *row;
    for (int i = 0; (row = device_registry_row(i)); i++) {
        name = row->available(NULL) ? row->name : name;
    }
    return name;
}

static bool answer_golden(struct tiny *tiny, const struct tiny_model_spec *spec, struct error *err) {
    int side = (int)tiny->model.size, pixels = side * side;
    struct recipe recipe = recipe_default(side, side, 1);
    for (int i = 0; i < GOLDEN; i++) {
        struct image image;
        uint8_t *grey = tiny->greys + i * pixels;
        if (!phantom_draw((enum phantom_kind)i, 16 * (uint64_t)i, 64, 64, &image, err)) {
            return false;
        }
        bool ok = preprocess_pixels(&recipe, &image, grey, err);
        image_fini(&image);
        if (!ok) {
            return false;
        }
        preprocess_normalise(&recipe, grey, tiny->images + i * pixels);
    }
    struct device *device = device_open(
        &(struct device_spec){.name = spec->golden_device ? spec->golden_device : tiny_model_device()}, err);
    struct plan *plan = device ? plan_create(&(struct plan_spec){.graph = tiny->graph,
                                                                 .parameters = tiny->parameters,
                                                                 .device = device,
                                                                 .batch = GOLDEN},
                                             err)
                               : NULL;
    bool ok = plan && plan_set_images(plan, tiny->images, err) && plan_run(plan, err) &&
              plan_read_logits(plan, tiny->answers, err);
    plan_destroy(plan);
    device_close(device);
    for (int i = 0; ok && i < GOLDEN; i++) {
        softmax(tiny->answers + i * CLASSES, spec->temperature);
    }
    return ok;
}

static bool save(const char *path, struct tiny *tiny, const struct tiny_model_spec *spec, struct error *err) {
    static const char *classes[] = {"NORMAL", "PNEUMONIA", "INVALID"}, *views[] = {"AP", "PA"};
    struct manifest_operating_point points[] = {{"rule_in", "PNEUMONIA", 0.6, 0.8, 0.9},
                                                {"rule_out", "PNEUMONIA", 0.2, 0.99, 0.5}};
    char json[RECIPE_JSON_SIZE];
    int side = (int)tiny->model.size;
    struct recipe recipe = recipe_default(spec->recipe_size ? spec->recipe_size : side, side, 1);
    if (!recipe_print(&recipe, json, sizeof json, err)) {
        return false;
    }
    struct manifest manifest = manifest_empty();
    manifest.name = spec->name;
    manifest.version = "1";
    manifest.architecture = (struct manifest_architecture){tiny->model.architecture, tiny->model.stem, 1, side};
    manifest.class_count = CLASSES;
    manifest.classes = classes;
    manifest.preprocessing = json;
    manifest.temperature = spec->temperature;
    manifest.operating_point_count = 2;
    manifest.operating_points = points;
    manifest.intended_use = (struct manifest_intended_use){1, 5, 2, views, "for tests"};
    manifest.training = (struct manifest_training){"", "none", "test", "2026-11-23T00:00:00.000Z", 1, 1};
    struct safetensors_tensor extras[] = {
        {.name = "golden.images",
         .dtype = DTYPE_U8,
         .shape = shape_of(4, (int64_t)GOLDEN, (int64_t)1, (int64_t)side, (int64_t)side),
         .data = tiny->greys},
        {.name = "golden.probabilities",
         .dtype = DTYPE_F32,
         .shape = shape_of(2, (int64_t)GOLDEN, (int64_t)CLASSES),
         .data = tiny->answers},
    };
    struct model_content content = {.graph = tiny->graph,
                                    .parameters = tiny->parameters,
                                    .manifest = &manifest,
                                    .extras = extras,
                                    .extra_count = spec->golden ? 2 : 0};
    return model_file_save(path, &content, err);
}

bool tiny_model_write(const char *path, const struct tiny_model_spec *spec, struct error *err) {
    struct tiny *tiny = calloc(1, sizeof *tiny);
    bool ok = tiny || error_set(err, ERROR_MEMORY, "no memory");
    if (ok) {
        tiny->model = (struct model_spec){.architecture = spec->architecture ? spec->architecture : "resnet18",
                                          .stem = "3x3",
                                          .input_channels = 1,
                                          .size = spec->size ? spec->size : SIDE,
                                          .classes = CLASSES};
        ok = (tiny->graph = model_build(&tiny->model, err)) != NULL &&
             (tiny->parameters = parameters_create(tiny->graph, err)) != NULL;
    }
    if (ok) {
        parameters_initialise(tiny->graph, tiny->parameters, spec->seed);
        ok = !spec->golden || answer_golden(tiny, spec, err);
        tiny->answers[0] += spec->golden_shift;
        ok = ok && save(path, tiny, spec, err);
    }
    if (tiny) {
        parameters_destroy(tiny->parameters);
        graph_destroy(tiny->graph);
    }
    free(tiny);
    return ok;
}
