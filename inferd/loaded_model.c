#include "inferd/loaded_model.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/graph/plan.h"
#include "common/graph/slow_kernels.h"
#include "common/image/preprocess.h"
#include "common/weights/model_network.h"
#include "inferd/decide.h"
#include "inferd/model_info.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GOLDEN_MAX = 1024, RUNS_MIN = 2 };

/*
 * How far a golden probability may be off, by the precision that the plan computes in: far below what moves a
 * decision. f32: other kernels add in another order, and no more. A precision that a plan learns gets its row
 * here, from a measurement.
 */
static const double golden_tolerance[] = {[PRECISION_F32] = 2e-3};

struct loaded_model {
    struct model model;
    struct device *device;
    bool on_host;                   /* the device is the CPU */
    enum precision precision;       /* of the model file */
    struct plan *plans[LADDER_MAX]; /* one a step of the model's ladder; they share the weights of the first */
    float *logits; /* (max_batch, K): a plan reads back its whole batch */
};

static void destroy(struct model *model) {
    struct loaded_model *loaded = (struct loaded_model *)model;
    for (int i = 0; i < model->ladder.count; i++) {
        plan_destroy(loaded->plans[i]);
    }
    device_close(loaded->device);
    free(loaded->logits);
    free(loaded);
}

static bool compute(struct model *model, const float *images, int count, float *logits, struct error *err) {
    struct loaded_model *loaded = (struct loaded_model *)model;
    int step = ladder_step(&model->ladder, count);
    struct plan *plan = loaded->plans[step];
    if (count > model->ladder.images[step]) {
        return error_set(err, ERROR_INTERNAL, "a batch of %d images: at most %d", count,
                         model->ladder.images[step]);
    }
    if (!plan_set_images(plan, images, err) || !plan_run(plan, err) ||
        !plan_read_logits(plan, loaded->logits, err)) {
        return false;
    }
    memcpy(logits, loaded->logits, sizeof *logits * (size_t)count * (size_t)model->info.class_count);
    return true;
}

static const struct model_ops ops = {.compute = compute, .destroy = destroy};

static bool add_plan(struct loaded_model *loaded, const struct plan_spec *base, int batch,
                     struct error *err) {
    struct plan_spec spec = *base;
    struct ladder *ladder = &loaded->model.ladder;
    spec.batch = batch;
    spec.share = loaded->plans[0];
    struct plan *plan = plan_create(&spec, err);
    if (plan) {
        slow_kernels_log(plan);
        ladder->images[ladder->count] = batch;
        loaded->plans[ladder->count++] = plan;
    }
    return plan != NULL;
}

/** Plans for 1, 2, 4, ... and max_batch. */
static bool build_ladder(struct loaded_model *loaded, const struct model_network *network, struct error *err) {
    struct plan_spec spec = {.graph = network->graph,
                             .parameters = network->parameters,
                             .device = loaded->device,
                             .mode = PLAN_INFER,
                             .precision = network->precision};
    for (int batch = 1; batch < loaded->model.max_batch; batch *= 2) {
        if (!add_plan(loaded, &spec, batch, err)) {
            return false;
        }
    }
    return add_plan(loaded, &spec, loaded->model.max_batch, err);
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
    loaded->logits = calloc((size_t)loaded->model.max_batch * (size_t)loaded->model.info.class_count,
                            sizeof *loaded->logits);
    bool ok = loaded->logits || error_set(err, ERROR_MEMORY, "no memory for a model");
    ok = ok && check_recipe(&loaded->model.info.recipe, &spec, err);
    ok = ok && model_network_open(file, &network, err) && model_network_is_exact_on(&network, loaded->device, err) &&
         build_ladder(loaded, &network, err);
    model_network_close(&network);
    return ok;
}

/** On a CPU not the time in which others had the core: how long a batch waits for it says nothing of the batch. */
static int64_t cost_clock_ns(const struct loaded_model *loaded) {
    return loaded->on_host ? clock_thread_ns() : clock_now_ns();
}

/** Runs a step's plan on an even picture, and notes what it cost. */
static bool try_step(struct loaded_model *loaded, int step, float *images, struct error *err) {
    float logits[MODEL_MAX_BATCH * MODEL_MAX_CLASSES];
    struct ladder *ladder = &loaded->model.ladder;
    int64_t start_ns = cost_clock_ns(loaded);
    if (!compute(&loaded->model, images, ladder->images[step], logits, err)) {
        return error_prefix(err, "warm-up with %d images", ladder->images[step]);
    }
    ladder_note(ladder, step, (double)(cost_clock_ns(loaded) - start_ns) / 1e3);
    return true;
}

/** Runs every plan, the first time to warm it up; the small ones more often: little disturbs them much. */
static bool warm_up(struct loaded_model *loaded, float *images, struct error *err) {
    struct ladder *ladder = &loaded->model.ladder;
    for (int step = 0; step < ladder->count; step++) {
        int runs = RUNS_MIN + loaded->model.max_batch / ladder->images[step];
        for (int run = 0; run < runs; run++) {
            if (!try_step(loaded, step, images, err)) {
                return false;
            }
        }
        log_event(LOG_DEBUG, "batch_cost", "images=%d us=%.0f", ladder->images[step], ladder->cost_us[step]);
    }
    return true;
}

static bool compare_golden(struct loaded_model *loaded, int index, const uint8_t *grey, const float *expected,
                           float *images, struct error *err) {
    const struct model_info *info = &loaded->model.info;
    float logits[MODEL_MAX_CLASSES];
    double probabilities[MODEL_MAX_CLASSES];
    preprocess_normalise(&info->recipe, grey, images);
    if (!compute(&loaded->model, images, 1, logits, err) ||
        !decide_probabilities(logits, info->class_count, info->temperature, probabilities, err)) {
        return error_prefix(err, "golden image %d", index);
    }
    for (int k = 0; k < info->class_count; k++) {
        if (!(fabs(probabilities[k] - (double)expected[k]) <= golden_tolerance[loaded->precision])) {
            return error_set(
                err, ERROR_INVALID,
                "self-test: golden image %d gives %s %.4f here and %.4f where the model was made", index,
                info->classes[k], probabilities[k], (double)expected[k]);
        }
    }
    return true;
}

static bool compare_all(struct loaded_model *loaded, const struct tensor *greys,
                        const struct tensor *expected, float *images, struct error *err) {
    const struct model_info *info = &loaded->model.info;
    const struct shape *shape = &greys->shape;
    if (shape->dims[0] > GOLDEN_MAX || shape->dims[1] != 1 || shape->dims[2] != info->recipe.height ||
        shape->dims[3] != info->recipe.width || expected->shape.dims[0] != shape->dims[0] ||
        expected->shape.dims[1] != info->class_count) {
        return error_set(err, ERROR_SHAPE,
                         "the model file's golden images or probabilities do not fit its network");
    }
    for (int i = 0; i < (int)shape->dims[0]; i++) {
        const uint8_t *grey = (const uint8_t *)greys->data + recipe_pixels(&info->recipe) * (size_t)i;
        const float *row = (const float *)expected->data + (size_t)info->class_count * (size_t)i;
        if (!compare_golden(loaded, i, grey, row, images, err)) {
            return false;
        }
    }
    return true;
}

/** Lets the model answer its golden images. A file without them is let pass, and the count says so. */
static bool self_test(struct loaded_model *loaded, const struct model_file *file, float *images, int *count,
                      struct error *err) {
    struct tensor greys = {0}, expected = {0};
    struct error reason = {0};
    if (!model_file_extra(file, "golden.images", DTYPE_U8, 4, &greys, &reason)) {
        return reason.code == ERROR_NOT_FOUND || error_set(err, reason.code, "%s", reason.message);
    }
    bool ok = model_file_extra(file, "golden.probabilities", DTYPE_F32, 2, &expected, err) &&
              compare_all(loaded, &greys, &expected, images, err);
    *count = ok ? (int)greys.shape.dims[0] : 0;
    tensor_fini(&greys);
    tensor_fini(&expected);
    return ok;
}

static bool prove(struct loaded_model *loaded, const struct model_file *file, int *count, struct error *err) {
    size_t values = recipe_values(&loaded->model.info.recipe) * (size_t)loaded->model.max_batch;
    float *images = calloc(values, sizeof *images);
    if (!images) {
        return error_set(err, ERROR_MEMORY, "no memory for the self-test");
    }
    bool ok = warm_up(loaded, images, err) && self_test(loaded, file, images, count, err);
    free(images);
    return ok;
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
    ok = ok && (loaded->device = device_open(&spec->device, err)) != NULL;
    if (ok) {
        struct device_info info;
        loaded->device->ops->info(loaded->device, &info);
        loaded->on_host = info.host_memory;
    }
    ok = ok && build(loaded, &file, err) && prove(loaded, &file, &count, err);
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
