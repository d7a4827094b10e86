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
    int gpu;                        /* its device's index */
    size_t free_bytes;              /* of its GPU's memory when the device was opened */
    struct device *device;          /* shares with that of the first place on the same GPU, or on the CPU */
    struct plan *plans[LADDER_MAX]; /* one a step of the model's ladder; all share the weights of that place's first */
    float *images; /* (max_batch, C, H, W), page-locked, so that nobody waits for an upload; NULL on a CPU, which needs none */
    float *logits; /* (max_batch, K), page-locked: a plan reads back its whole batch */
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
    if (place->images) {
        place->device->ops->host_free(place->device, place->images);
    }
    if (place->logits) {
        place->device->ops->host_free(place->device, place->logits);
    }
    device_close(place->device);
}

static void destroy(struct model *model) {
    struct loaded_model *loaded = (struct loaded_model *)model;
    for (int i = 0; i < loaded->place_count; i++) {
        place_fini(&loaded->places[i]);
    }
    free(loaded);
}

static float *batch_images(struct model *model, int instance) {
    struct loaded_model *loaded = (struct loaded_model *)model;
    return instance < loaded->place_count ? loaded->places[instance].images : NULL;
}

/** The images as the plan may upload them without waiting. */
static const float *stage(struct place *place, const struct model *model, const float *images, int count) {
    if (!place->images || images == place->images) {
        return images;
    }
    memcpy(place->images, images, sizeof *images * recipe_values(&model->info.recipe) * (size_t)count);
    return place->images;
}

/**
 * Queues everything, and waits once, at the end. Where that fails nothing of it is under way any more either; where the device is
 * lost that is the error, whatever a library said of it before.
 */
static bool run_plan(struct place *place, struct plan *plan, const float *images, struct error *err) {
    if (plan_set_images(plan, images, err) && plan_run(plan, err) && plan_read_logits(plan, place->logits, err)) {
        return true;
    }
    struct error lost = {0};
    if (!place->device->ops->synchronise(place->device, NULL, &lost) && lost.code == ERROR_LOST && err) {
        *err = lost;
    }
    return false;
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
    if (!run_plan(place, place->plans[step], stage(place, model, images, count), err)) {
        return false;
    }
    memcpy(logits, place->logits, sizeof *logits * (size_t)count * (size_t)model->info.class_count);
    return true;
}

static const struct model_ops ops = {.images = batch_images, .compute = compute, .destroy = destroy};

/** The ladder: 1, 2, 4, ... and max_batch. */
static void plan_ladder(struct model *model) {
    struct ladder *ladder = &model->ladder;
    for (int batch = 1; batch < model->max_batch; batch *= 2) {
        ladder->images[ladder->count++] = batch;
    }
    ladder->images[ladder->count++] = model->max_batch;
}

/** The first place on the same GPU, or on the CPU: it may be the place itself. */
static struct place *host_of(struct loaded_model *loaded, const struct place *place) {
    struct place *host = loaded->places;
    while (host->gpu != place->gpu) {
        host++;
    }
    return host;
}

/** Prepares a place's plans. The first plan on each GPU, or on the CPU, makes the weights. */
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
        spec.share = host_of(loaded, place)->plans[0];
        if (!(place->plans[step] = plan_create(&spec, err))) {
            return false;
        }
        if (place == &loaded->places[0]) {
            slow_kernels_log(place->plans[step]);
        }
    }
    return true;
}

static bool open_place(struct loaded_model *loaded, struct place *place, const struct device_spec *spec, struct error *err) {
    size_t batch = sizeof(float) * (size_t)loaded->model.max_batch;
    struct device_spec device = *spec;
    struct device_info info;
    struct place *host = host_of(loaded, place);
    device.index = place->gpu;
    device.share = host->device; /* NULL for the host itself */
    if (!(place->device = device_open(&device, err))) {
        return false;
    }
    place->device->ops->info(place->device, &info);
    place->free_bytes = host == place ? info.free_bytes : host->free_bytes;
    place->logits = place->device->ops->host_alloc(place->device, batch * (size_t)loaded->model.info.class_count, err);
    if (place->logits && !info.host_memory) {
        place->images = place->device->ops->host_alloc(place->device, batch * recipe_values(&loaded->model.info.recipe), err);
    }
    return place->logits && (info.host_memory || place->images);
}

static bool open_places(struct loaded_model *loaded, const struct loaded_model_spec *spec, struct error *err) {
    int count = spec->instances ? spec->instances->count : 1;
    struct device_spec device = spec->device;
    device.threads = spec->instances ? spec->instances->threads : device.threads;
    while (loaded->place_count < count) {
        struct place *place = &loaded->places[loaded->place_count];
        place->gpu = instances_gpu(spec->instances, loaded->place_count++, spec->device.index);
        if (!open_place(loaded, place, &device, err)) {
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

/** What somebody needs to know who is told that memory ended on a GPU. False. */
static bool explain_memory(struct place *place, struct error *err) {
    struct device_info info;
    place->device->ops->info(place->device, &info);
    if (!err || err->code != ERROR_MEMORY || info.host_memory) {
        return false;
    }
    error_prefix(err, "the model does not fit on GPU %d, where %zu of %zu MiB were free", place->gpu,
                 place->free_bytes >> 20, info.memory_bytes >> 20);
    return error_hint(err, "less is needed with a smaller batch.max, fewer device.instances, or model.keep_previous: false");
}

static bool build(struct loaded_model *loaded, const struct model_file *file, struct error *err) {
    struct model_spec spec = model_file_spec(file);
    struct model_network network = {0};
    loaded->precision = precision_parse(file->manifest.precision);
    plan_ladder(&loaded->model);
    bool ok = check_recipe(&loaded->model.info.recipe, &spec, err) && model_network_open(file, &network, err) &&
              model_network_is_exact_on(&network, loaded->places[0].device, err);
    for (int i = 0; ok && i < loaded->place_count; i++) {
        ok = fill_place(loaded, &loaded->places[i], &network, err) || explain_memory(&loaded->places[i], err);
    }
    model_network_close(&network);
    return ok;
}

static bool prove(struct loaded_model *loaded, const struct model_file *file, const struct instances *instances,
                  int *count, struct error *err) {
    struct device_info info;
    loaded->places[0].device->ops->info(loaded->places[0].device, &info);
    struct self_test_spec test = {.model = &loaded->model,
                                  .instances = info.host_memory ? 1 : loaded->place_count,
                                  .tolerance = golden_tolerance[loaded->precision]};
    return warm_up_run(&loaded->model, instances, info.host_memory, err) && self_test_run(&test, file, count, err);
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
