#pragma once
#include "common/graph/plan.h"
#include "trainerd/collective/collective.h"

/** One optimiser step over all ranks. Borrows both; the plan's gradients belong to the collective while a step runs. */
struct step {
    struct plan *plan;
    struct collective *collective;
    int64_t timeout_ms; /**< for each wait */
};

/** This rank's share of a global batch: N = the plan's parts times its batch. */
struct step_input {
    const float *images;   /**< (N, C, H, W) */
    const int32_t *labels; /**< (N) */
    int64_t seed[3];       /**< the run's seed, the step, the global index of the first image: what dropout draws from */
};

/**
 * Part by part uploads and runs the plan's segments, sums each bucket of gradients over the ranks while the last part's
 * backward pass goes on, and updates the weights. Sums that block (synchronised batch norm) are waited for, in each part.
 * hyper[HYPER_GRADIENT_SCALE] must hold 1 / (ranks * parts). Where the plan stages images (plan_stages) the work is only queued,
 * and the input has to stay until step_loss returns. Errors name the node or the rank.
 */
bool step_run(const struct step *step, const struct step_input *input, const float hyper[HYPER_COUNT], struct error *err);

/** This rank's mean loss of the step that was run. Waits for its last part, not for the update. */
bool step_loss(const struct step *step, float *loss, struct error *err);
