#pragma once
#include "common/op/precision.h"
#include <stdbool.h>
#include <stdint.h>

/**
 * Dynamic loss scaling (Micikevicius et al., "Mixed precision training", 2018): in f16 small gradients would become zero, so the
 * loss is multiplied by a power of two and the gradients divided by it again. The factor is as large as the gradients allow: a
 * step whose gradients are not all finite is skipped and halves it, LOSS_SCALE_PATIENCE good steps in a row double it.
 * Every rank looks at the same sums of gradients, so that all decide alike. Plain data, kept in the checkpoint.
 */
struct loss_scale {
    double factor;      /**< 0: not begun */
    int64_t good_steps; /**< in a row, with this factor */
    int64_t skipped;    /**< steps, of the whole run */
};

enum { LOSS_SCALE_PATIENCE = 2000 };

/** Whether gradients of the precision need it. */
bool loss_scale_needed(enum precision precision);

/** Gives a scale that has not begun its first factor, 2^16. */
void loss_scale_begin(struct loss_scale *scale);

/** After a step. The factor stays within 1 and 2^24. */
void loss_scale_step(struct loss_scale *scale, bool finite);
