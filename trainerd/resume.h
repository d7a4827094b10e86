#pragma once
#include "trainerd/supervisor.h"
#include "trainerd/training.h"

/** Where a worker stands before it trains. Borrows everything. */
struct resume_spec {
    const struct supervisor_worker *place;
    const char *environment; /**< what bit-equality depends on besides configuration and data */
    bool resumes;            /**< goes on from the newest checkpoint, if there is one */
};

/**
 * Sets the training's state, and its plan where there is a checkpoint to go on from: the same on all ranks, which call it alike
 * (checkpoint_agree says what they may disagree on). Also sets who writes checkpoints. Differences to the run that wrote the
 * checkpoint are logged by rank 0: the result will not be bit for bit that run's.
 */
bool resume_training(struct training *training, const struct resume_spec *spec, struct error *err);
