#pragma once
#include "common/device/device.h"
#include "common/graph/quantise.h"
#include "common/graph/range.h"

/** What is calibrated, on what, and how. Borrows everything. */
struct calibrate_spec {
    const struct graph *folded; /**< graph_fold_for_inference's, with its parameters */
    const struct parameters *parameters;
    struct device *device;
    const float *images; /**< (count, C, H, W), normalised: training pictures */
    int count;           /**< a multiple of `batch` */
    int search_count;    /**< of them, the first so many are answered again with each choice; a multiple of `batch` */
    int batch;
    int weight_bits;          /**< 7 or 8 */
    enum range_method method; /**< of every tensor; RANGE_METHOD_COUNT: each by the one that costs the answers least */
    bool stem_too;            /**< false: whether the first convolution computes in 8 bits is decided by what it costs */
    void (*progress)(void *context, int done, int total, double loss); /**< may be NULL */
    void *context;
};

/** What was chosen, and what it costs: mean squared differences of logits (less each picture's mean) from those in f32. */
struct calibration {
    struct quantisation table;  /**< rows owned: calibration_fini */
    enum range_method *methods; /**< by row; owned */
    double first_loss, loss;    /**< with every tensor by RANGE_MSE and all in 8 bits; of what was chosen */
    double logit_power;         /**< mean square of the logits themselves, for scale */
    bool stem_in_f32;
};

/**
 * Chooses how a network is quantised. Observes the ranges of all tensors that convolutions read or write, then tries, tensor
 * by tensor, each method's range with everything else as it stands, and keeps what changes the answers least. calibration_fini
 * frees; on error nothing is to be freed.
 */
bool calibrate(const struct calibrate_spec *spec, struct calibration *out, struct error *err);
/** Harmless on a zeroed or finished one. */
void calibration_fini(struct calibration *calibration);
