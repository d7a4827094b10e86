#include "inferd/loaded_model.h"
#include "common/graph/plan.h"
#include "common/graph/slow_kernels.h"
#include "common/weights/model_network.h"
#include "inferd/model_info.h"
#include "inferd/self_test.h"
#include "inferd/warm_up.h"
#include <stdlib.h>
#include <string.h>

/*
 * How far a golden probability may be off, by the precision that the plan computes in: far below what moves a
 * decision. f32: other kernels add in another order, and no more. bf16: sums that end on the other side of an edge
 * between two of its numbers are rounded the other way, in every layer. int8: integers are exact, but a first
 * convolution in f32 may do the same once. Measured on a ResNet-18 of 28 pixels, the largest difference between oneDNN
 * 2.6.3, 3.2 and the reference device: f32 2e-7, bf16 2e-4, int8 1e-7. Deeper networks and sharper temperatures get
 * the margin.
 */
static const double golden_tolerance[PRECISION_COUNT] = {
    [PRECISION_F32] = 2e-3, [PRECISION_BF16] = 1e-2, [PRECISION_INT8] = 5e-3};

/** Where one instance computes. */
struct place {
    struct device *device;          /* shares with that of the first place */
    struct plan *plans[LADDER_MAX]; /* one a step of the model's ladder; all share the weights of the first place's first */
    float *logits;                  /* (max_batch, K): a plan reads back its whole batch */
};

struct loaded_model {
    struct model model;
    enum precision precision; /* of the model file */
    int place_count;
    struct place places[INSTANCES_MAX]; /* by instance */
};

static void place_fini(struct place *place) {
    for (int i = 0; i < LADDER_MAX; i++) {
        plan_destroy(place->plans[i]);
    }
    device_close(place->device);
    free(place->logits);
}

static void destroy(struct model *model) {
    struct loaded_model *loaded = (struct loaded_model *)model;
    for (int i = 0; i < loaded->place_count; i++) {
        place_fini(&loaded->places[i]);
    }
    free(loaded);
}

static bool compute(struct model *model, int instance, const float *images, int count, float *logits,
                    struct error *err) {
    struct loaded_model *loaded = (struct loaded_model *)model;
    int step = ladder_step(&model->ladder, count);
    if (instance >= loaded->place_count || count > model->ladder.images[step]) {
        return error_set(err, ERROR_INTERNAL, "a batch of %d images for instance %d: at most %d, for %d instances", count,
                         instance, model->ladder.images[step], loaded->place_count);
    }
    struct place *place = &loaded->places[instance];
    struct plan *plan = place->plans[step];
    if (!plan_set_images(plan, images, err) || !plan_run(plan, err) || !plan_read_logits(plan, place->logits, err)) {
        return false;
    }
    memcpy(logits, place->logits, sizeof *logits * (size_t)count * (size_t)model->info.class_count);
    return true;
}

static const struct model_ops ops = {.compute = compute, .destroy = destroy};

/** The ladder: 1, 2, 4, ... and max_batch. */
static void plan_ladder(struct model *model) {
    struct ladder *ladder = &model->ladder;
    for (int batch = 1; batch < model->max_batch; batch *= 2) {
        ladder->images[ladder->count++] = batch;
    }
    ladder->images[ladder->count++] = model->max_batch;
}

/** Prepares a place's plans. The first plan of all makes the weights. */
static bool fill_place(struct loaded_model *loaded, struct place *place, const struct model_network *network,
                       struct error *err) {
    const struct ladder *ladder = &loaded->model.ladder;
    struct plan_spec spec = {.graph = network->graph,
                             .parameters = network->parameters,
                             .device = place->device,
                             .mode = PLAN_INFER,
                             .precision = network->precision};
    for (int step = 0; step < ladder->count; step++) {
        spec.batch = ladder->images[step];
        spec.share = loaded->places[0].plans[0];
        if (!(place->plans[step] = plan_create(&spec, err))) {
            return false;
        }
        if (place == &loaded->places[0]) {
            slow_kernels_log(place->plans[step]);
        }
    }
    return true;
}

static bool open_places(struct loaded_model *loaded, const struct loaded_model_spec *spec, struct error *err) {
    size_t logits = (size_t)loaded->model.max_batch * (size_t)loaded->model.info.class_count;
    int count = spec->instances ? spec->instances->count : 1;
    struct device_spec device = spec->device;
    device.threads = spec->instances ? spec->instances->threads : device.threads;
    for (loaded->place_count = 0; loaded->place_count < count;) {
        struct place *place = &loaded->places[loaded->place_count++];
        device.share = place == loaded->places ? NULL : loaded->places[0].device;
        place->logits = calloc(logits, sizeof *place->logits);
        if (!place->logits) {
            return error_set(err, ERROR_MEMORY, "no memory for a model");
        }
        if (!(place->device = device_open(&device, err))) {
            return false;
        }
    }
    return true;
}

/** The recipe must make what the network takes. */
static bool check_recipe(const struct recipe *recipe, const struct model_spec *spec, struct error *err) {
    return (recipe->width == spec->size && recipe->height == spec->size &&
            recipe->channels == spec->input_channels) ||
           error_set(err, ERROR_INVALID,
                     "the model file's recipe makes %d x %d x %d, its network takes %d x %d x %d",
                     recipe->channels, recipe->height, recipe->width, spec->input_channels, spec->size,
                     spec->size);
}

static bool build(struct loaded_model *loaded, const struct model_file *file, struct error *err) {
    struct model_spec spec = model_file_spec(file);
    struct model_network network = {0};
    loaded->precision = precision_parse(file->manifest.precision);
    plan_ladder(&loaded->model);
    bool ok = check_recipe(&loaded->model.info.recipe, &spec, err) && model_network_open(file, &network, err) &&
              model_network_is_exact_on(&network, loaded->places[0].device, err);
    for (int i = 0; ok && i < loaded->place_count; i++) {
        ok = fill_place(loaded, &loaded->places[i], &network, err);
    }
    model_network_close(&network);
    return ok;
}

static bool prove(struct loaded_model *loaded, const struct model_file *file, const struct instances *instances,
                  int *count, struct error *err) {
    struct device_info info;
    loaded->places[0].device->ops->info(loaded->places[0].device, &info);
    return warm_up_run(&loaded->model, instances, info.host_memory, err) &&
           self_test_run(&loaded->model, file, golden_tolerance[loaded->precision], count, err);
}

struct model *loaded_model_open(const char *path, const struct loaded_model_spec *spec, int *golden_count,
                                struct error *err) {
    struct model_file file;
    int count = 0;
    if (!model_file_open(path, &file, err)) {
        return NULL;
    }
    struct loaded_model *loaded = calloc(1, sizeof *loaded);
    bool ok = loaded || error_set(err, ERROR_MEMORY, "no memory for a model");
    if (ok) {
        loaded->model.ops = &ops;
        atomic_init(&loaded->model.references, 1);
        loaded->model.max_batch = spec->max_batch;
        ok = model_info_from_manifest(&file.manifest, &loaded->model.info, err);
        loaded->model.info.digest = digest_of(file.map.data, file.map.size);
    }
    ok = ok && open_places(loaded, spec, err) && build(loaded, &file, err) &&
         prove(loaded, &file, spec->instances, &count, err);
    model_file_close(&file);
    if (!ok) {
        model_release(loaded ? &loaded->model : NULL);
        return NULL;
    }
    if (golden_count) {
        *golden_count = count;
    }
    return &loaded->model;
}
