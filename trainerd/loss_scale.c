#include "trainerd/loss_scale.h"

#include <math.h>

static const double first_factor = 0x1p16, smallest_factor = 1, largest_factor = 0x1p24;

bool loss_scale_needed(enum precision precision) {
    return precision == PRECISION_F16;
}

void loss_scale_begin(struct loss_scale *scale) {
    if (scale->factor == 0)
        scale->factor = first_factor;
}

void loss_scale_step(struct loss_scale *scale, bool finite) {
    if (!finite) {
        scale->factor = fmax(scale->factor / 2, smallest_factor);
        scale->good_steps = 0;
        scale->skipped++;
    } else if (++scale->good_steps == LOSS_SCALE_PATIENCE) {
        scale->factor = fmin(scale->factor * 2, largest_factor);
        scale->good_steps = 0;
    }
}
