#pragma once
#include "common/device/device.h"
#include "inferd/instances.h"
#include "inferd/model.h"

struct loaded_model_spec {
    struct device_spec
        device; /**< each model opens its own, one for each instance: a device belongs to one thread at a time */
    int max_batch; /**< plans are made for 1, 2, 4, ... up to this */
    const struct instances *instances; /**< borrowed; say how many threads compute, too. NULL: one, as `device` says */
};

/**
 * Loads a model file: manifest, weights (once), for each instance a plan for each batch size of the ladder; runs them, so
 * that the first request does not pay for it; and, where the file carries golden images, lets the model answer
 * them as it would a request's picture and compares. A model that gives other answers here than where it was
 * made is refused. *golden_count (may be NULL) says how many were compared. Returns owned (model_release),
 * NULL on error. Any thread; the model may be used by another one afterwards.
 */
struct model *loaded_model_open(const char *path, const struct loaded_model_spec *spec, int *golden_count,
                                struct error *err);
