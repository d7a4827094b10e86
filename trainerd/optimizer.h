#pragma once
#include "common/op/op.h"
#include "trainerd/config.h"

/** OP_SGD or OP_ADAMW. */
enum op_kind optimizer_kind(const struct trainer_config *config);

/** The numbers of one update (enum hyper): the rate by the schedule, and 1 / ranks as the gradients' scale. */
void optimizer_hyper(const struct trainer_config *config, int64_t steps_per_epoch, int64_t global_step, int ranks,
                     float out[HYPER_COUNT]);
