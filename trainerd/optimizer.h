#pragma once
#include "common/op/op.h"
#include "trainerd/config.h"

/** OP_SGD or OP_ADAMW. */
enum op_kind optimizer_kind(const struct trainer_config *config);

/** The rate after the warm-up: optimizer.learning_rate, scaled for the batch as optimizer.scaling says. */
double optimizer_learning_rate(const struct trainer_config *config);

/** Which update it is. */
struct optimizer_moment {
    int64_t steps_per_epoch, global_step;
    int64_t skipped; /**< of the steps before it, those that changed nothing */
    int ranks;
    double loss_scale; /**< what the gradients are multiplied by; 0: 1 */
};

/** The numbers of one update (enum hyper): the rate by the schedule, and 1 / (ranks * parts * loss scale) as gradients' scale. */
void optimizer_hyper(const struct trainer_config *config, const struct optimizer_moment *moment, float out[HYPER_COUNT]);
