#pragma once
#include "common/graph/plan.h"
#include "trainerd/collective/collective.h"

/** What a step works with, all borrowed. The plan's gradients belong to the collective while a step runs. */
struct step_spec {
    struct plan *plan;
    struct device *device; /**< the plan's */
    struct collective *collective;
    int64_t timeout_ms; /**< for each wait */
};

/** Tickets of the sums that are under way. */
struct step_tickets {
    int count, waited; /**< started, and of those, waited for by the host */
    int ids[COLLECTIVE_TICKETS];
};

/** One optimiser step over all ranks, again and again. */
struct step {
    struct step_spec spec;
    struct step_tickets tickets;
    float *losses;      /**< (parts), page-locked */
    struct event *over; /**< reached when all of a step is done; NULL where the device works while it is called */
};

/** Makes what steps need, so that none of them allocates. Where it fails, step_fini is still due. */
bool step_init(struct step *step, const struct step_spec *spec, struct error *err);
/** After the collective was closed: what is freed may wait for the device, which may wait for the collective. */
void step_fini(struct step *step);

/** This rank's share of a global batch: N = the plan's parts times its batch. Page-locked memory is not waited for. */
struct step_input {
    const void *images;    /**< (N, C, H, W) f32; of a plan that varies, (N, ...) pictures with their variations */
    const int32_t *labels; /**< (N) */
    int64_t seed[3];       /**< the run's seed, the step, the global index of the first image: what dropout draws from */
};

/**
 * Part by part uploads and runs the plan's segments, sums each bucket of gradients over the ranks while the last part's
 * backward pass goes on, and updates the weights. Sums that block (synchronised batch norm) come before what needs them, in each
 * part. On a GPU all of this is only queued, without a wait of the host; on a CPU it is done, the host waiting where sums are
 * needed. hyper[HYPER_GRADIENT_SCALE] must hold 1 / (ranks * parts). The input stays as it is until step_end.
 * Errors, here and in step_end, name the node or the rank; they abort the collective, so that nothing here waits for it any more.
 */
bool step_begin(struct step *step, const struct step_input *input, const float hyper[HYPER_COUNT], struct error *err);

/** Asks, until the step is done, whether the other ranks are well. `loss` is this rank's mean loss. */
bool step_end(struct step *step, float *loss, struct error *err);

/** Both. */
bool step_run(struct step *step, const struct step_input *input, const float hyper[HYPER_COUNT], float *loss,
              struct error *err);
