#pragma once
#include "common/graph/plan.h"
#include "trainerd/loss_scale.h"

enum { CHECKPOINT_TEXT_SIZE = 256, CHECKPOINT_PATH_SIZE = 4096 };

/** Where a run stands between two steps: with the plan's buffers, all that is needed to go on bit for bit. */
struct training_state {
    int64_t epoch, step; /**< the next step: its epoch, and its place in it, from 0 */
    int64_t global_step; /**< steps done */
    uint64_t seed;
    double best_metric;  /**< of the selection metric; NaN: none yet */
    int64_t best_epoch;
    int64_t stale_epochs; /**< evaluations since the best */
    double loss_sum;      /**< rank-mean losses of this epoch's steps, added up */
    int64_t models;       /**< model files written so far */
    struct loss_scale loss_scale; /**< not begun where the precision needs none */
    bool finished;
    uint64_t run; /**< identity of the run; 0: unknown, as in checkpoints of before there was one */
    int ranks;
    int parts; /**< into which a rank's share of a batch was cut */
    char config_digest[65]; /**< of the keys that decide the result */
    char data_digest[65];
    char environment[CHECKPOINT_TEXT_SIZE]; /**< what bit-equality depends on besides: device, threads, program version */
};

/**
 * Writes FOLDER/step-000000123.safetensors atomically: values, optimiser state and EMA as canonical tensors (value/NAME,
 * state/NAME, ...), the state as metadata. Then removes what is older than the newest keep_last (at least 1) up to this one.
 */
bool checkpoint_save(const char *folder, struct plan *plan, const struct graph *graph, const struct training_state *state,
                     int keep_last, struct error *err);

/** Reads a checkpoint into the plan. ERROR_FORMAT, ERROR_INVALID: it is damaged or of another network. */
bool checkpoint_load(const char *path, struct plan *plan, const struct graph *graph, struct training_state *state,
                     struct error *err);

/** Most bytes that a checkpoint of a network with such parameters can have, whatever the optimiser. */
size_t checkpoint_bytes_max(const struct parameters *parameters);

/** "FOLDER/step-000000123.safetensors". */
bool checkpoint_path(const char *folder, int64_t step, char out[CHECKPOINT_PATH_SIZE], struct error *err);

/** Removes what writers that were killed left half-written. Nobody may be writing to the folder. */
void checkpoint_clean(const char *folder);

/** A checkpoint whose header is whole. */
struct checkpoint_found {
    char path[CHECKPOINT_PATH_SIZE];
    struct training_state state;
    size_t bytes;
    int skipped; /**< newer ones that are damaged; also counted where none is found */
};

/** The newest of a run; 0: of any. ERROR_NOT_FOUND where there is none. */
bool checkpoint_find(const char *folder, uint64_t run, struct checkpoint_found *out, struct error *err);

/**
 * The newest checkpoint in the folder whose header is whole: its path in out (CHECKPOINT_PATH_SIZE). ERROR_NOT_FOUND where
 * there is none. Damaged ones are skipped, and counted in *skipped.
 */
bool checkpoint_newest(const char *folder, char *out, int *skipped, struct error *err);
