#pragma once
#include "trainerd/checkpoint.h"
#include "trainerd/export.h"
#include "trainerd/job.h"
#include "trainerd/loader.h"
#include "trainerd/metrics_log.h"
#include "trainerd/rendezvous.h"
#include "trainerd/step.h"

/** One rank's part of a training run. Everything but `state` is set up by the worker and borrowed. */
struct training {
    const struct job *job;
    struct rendezvous *rendezvous;
    struct collective *collective;
    struct device *device;
    const struct graph *graph;
    struct parameters *host; /**< of the graph: where weights pass through */
    struct plan *plan;
    struct step *step; /**< of plan, device and collective */
    struct sampler *sampler;
    struct metrics_log *log; /**< rank 0's, else NULL */
    struct training_state state;
    struct collective_times told; /**< how long sums had taken when the epoch before ended */
    int loader_threads;
    int node;        /**< of this rank */
    bool writes;     /**< this rank writes checkpoints */
    bool replicates; /**< so do ranks of other nodes, each into a folder of its own */
};

/** How a run, or this generation's part of it, came to its end. */
enum training_outcome {
    TRAINING_FINISHED,
    TRAINING_STOPPED,  /**< by SIGTERM or SIGUSR1, with a checkpoint of where it stands */
    TRAINING_REGROUPS, /**< by SIGUSR2, with a checkpoint of where it stands: to go on with other ranks */
};

/**
 * Trains from where the state stands to the end: epochs of steps, each followed by an evaluation on the validation part, a
 * checkpoint, and where it is the best so far by train.select_metric a model file that is handed on for publishing. Ends early
 * where nothing gets better for train.early_stopping_patience evaluations. All ranks call it alike. A signal to any
 * rank ends all of them after the same step: one that stops after the step that is under way, SIGUSR2 when the next checkpoint
 * within the epoch is due, or with the epoch; *outcome tells.
 */
bool training_run(struct training *training, enum training_outcome *outcome, struct error *err);
