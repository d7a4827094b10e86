#include "trainerd/engine.h"

#include "trainerd/optimizer.h"

#include <string.h>

struct device *engine_open_device(const struct trainer_config *config, struct error *err) {
    const struct trainer_device_config *device = &config->device;
    struct device_spec spec = {.name = strcmp(device->name, "auto") == 0 ? "onednn" : device->name,
                               .threads = device->threads, .deterministic = true,
                               .direct_convolutions = !device->winograd, .tf32 = device->tf32,
                               .algorithm_cache = device->algorithm_cache};
    return device_open(&spec, err);
}

struct model_spec engine_model(const struct trainer_config *config, int classes) {
    return (struct model_spec){.architecture = config->model.architecture, .stem = config->model.stem,
                               .input_channels = config->model.input_channels, .size = config->model.size,
                               .classes = classes, .dropout = config->model.dropout};
}

struct plan_spec engine_plan(const struct trainer_config *config, int ranks) {
    return (struct plan_spec){.mode = PLAN_TRAIN, .precision = config->train.precision, .parts = config->train.parts,
                              .recompute = config->train.recompute,
                              .batch = config->train.batch_size / ranks / config->train.parts,
                              .bucket_bytes = config->collective.bucket_bytes,
                              .freeze_batch_norm = config->model.freeze_batch_norm,
                              .synchronise_batch_norm = config->model.sync_batch_norm && ranks > 1,
                              .label_smoothing = (float)config->train.label_smoothing,
                              .optimizer = optimizer_kind(config), .ema = config->train.ema_decay > 0};
}
