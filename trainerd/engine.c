#include "trainerd/engine.h"

#include "trainerd/job.h"
#include "trainerd/optimizer.h"

#include <string.h>

bool engine_on_gpus(const struct trainer_config *config) {
    return strcmp(config->device.name, "cuda") == 0;
}

struct device *engine_open_device(const struct trainer_config *config, int local_rank, struct error *err) {
    const struct trainer_device_config *device = &config->device;
    struct device_spec spec = {.name = strcmp(device->name, "auto") == 0 ? "onednn" : device->name,
                               .index = engine_on_gpus(config) ? local_rank : 0, .threads = device->threads,
                               .deterministic = true,
                               .direct_convolutions = !device->winograd, .tf32 = device->tf32,
                               .algorithm_cache = device->algorithm_cache, .kernel_by_kernel = !device->graphs};
    return device_open(&spec, err);
}

int engine_local_ranks(const struct trainer_config *config) {
    return config->device.ranks > 0 ? config->device.ranks : 1;
}

int engine_ranks(const struct trainer_config *config) {
    return engine_local_ranks(config) * config->cluster.nodes;
}

const char *engine_collective(const struct trainer_config *config, int ranks) {
    if (strcmp(config->collective.name, "auto") != 0)
        return config->collective.name;
    return ranks == 1 ? "solo" : engine_on_gpus(config) ? "nccl" : "gloo";
}

static void *batch_alloc(void *device, size_t bytes, struct error *err) {
    return ((struct device *)device)->ops->host_alloc(device, bytes, err);
}

static void batch_free(void *device, void *memory) {
    if (memory)
        ((struct device *)device)->ops->host_free(device, memory);
}

struct loader_memory engine_batch_memory(struct device *device) {
    return (struct loader_memory){device, batch_alloc, batch_free};
}

struct model_spec engine_model(const struct trainer_config *config, int classes) {
    return (struct model_spec){.architecture = config->model.architecture, .stem = config->model.stem,
                               .input_channels = config->model.input_channels, .size = config->model.size,
                               .classes = classes, .dropout = config->model.dropout};
}

/** GPUs vary training pictures themselves; on CPUs that is the loader's. */
static struct vary vary_of(const struct trainer_config *config) {
    struct recipe recipe = job_recipe(config);
    struct vary vary = {.channels = recipe.channels, .height = recipe.height, .width = recipe.width};
    if (!engine_on_gpus(config) || !config->device.augment)
        return (struct vary){0};
    memcpy(vary.mean, recipe.mean, sizeof vary.mean);
    memcpy(vary.stddev, recipe.stddev, sizeof vary.stddev);
    return vary;
}

struct plan_spec engine_plan(const struct trainer_config *config, int ranks) {
    return (struct plan_spec){.mode = PLAN_TRAIN, .precision = config->train.precision, .parts = config->train.parts,
                              .recompute = config->train.recompute, .vary = vary_of(config),
                              .batch = config->train.batch_size / ranks / config->train.parts,
                              .bucket_bytes = config->collective.bucket_bytes,
                              .bf16_reductions = config->collective.gradients == PRECISION_BF16 && ranks > 1,
                              .freeze_batch_norm = config->model.freeze_batch_norm,
                              .synchronise_batch_norm = config->model.sync_batch_norm && ranks > 1,
                              .label_smoothing = (float)config->train.label_smoothing,
                              .optimizer = optimizer_kind(config), .ema = config->train.ema_decay > 0};
}
