#pragma once
#include "common/graph/parameters.h"
#include "common/device/device.h"
#include "common/op/precision.h"
#include "common/metrics/calibration.h"
#include "trainerd/collective/collective.h"
#include "trainerd/dataset.h"
#include "trainerd/image_cache.h"
#include "trainerd/rendezvous.h"

/** What to evaluate, on what. Borrows everything. */
struct evaluate_spec {
    const struct graph *graph;
    const struct parameters *parameters; /**< the same on every rank */
    struct device *device;
    enum precision precision; /**< as plan_spec has it */
    const struct dataset *dataset;
    const struct image_cache *cache;
    const struct recipe *recipe;
    enum dataset_part part;
    int batch_size;                /**< of this rank */
    int loader_threads;
    struct collective *collective;  /**< NULL: this process alone */
    struct rendezvous *rendezvous;  /**< gets a heartbeat each batch; may be NULL */
};

/** The network's answers to a whole part, each image once, in the data set's order: the same on every rank. */
struct evaluation {
    int classes;
    int64_t count;
    float *logits;   /**< (count, classes), owned */
    int32_t *labels; /**< (count), owned */
    int32_t *groups; /**< (count) patients, owned */
};

/**
 * Answers a part, sharded over the ranks and gathered: exact, no image twice. Images that could not be decoded are left out.
 * ERROR_INVALID where the part is empty. evaluation_fini frees.
 */
bool evaluate_part(const struct evaluate_spec *spec, struct evaluation *out, struct error *err);
void evaluation_fini(struct evaluation *evaluation);

/** softmax(logits / temperature) as predictions; probabilities (count, classes) is the caller's and borrowed. */
struct predictions evaluation_predictions(const struct evaluation *evaluation, double temperature, double *probabilities);
