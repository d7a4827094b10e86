#include "inferd/ladder.h"
#include <assert.h>
#include <stdbool.h>

static const double WEIGHT = 1. / 8, OUTLIER = 2;

int ladder_step(const struct ladder *ladder, int images) {
    int step = 0;
    while (step + 1 < ladder->count && ladder->images[step] < images) {
        step++;
    }
    return step;
}

void ladder_learn(struct ladder *ladder, int images, double us) {
    if (ladder->count > 0) {
        double *cost = &ladder->cost_us[ladder_step(ladder, images)];
        double reading = us < OUTLIER * *cost ? us : OUTLIER * *cost;
        *cost = *cost > 0 ? *cost + WEIGHT * (reading - *cost) : us;
    }
}

static bool is_measured(const struct ladder *ladder) {
    for (int i = 0; i < ladder->count; i++) {
        if (!(ladder->cost_us[i] > 0)) {
            return false;
        }
    }
    return ladder->count > 0;
}

/** The step that costs least an image, when full. */
static int cheapest(const struct ladder *ladder) {
    int best = 0;
    for (int i = 1; i < ladder->count; i++) {
        if (ladder->cost_us[i] * ladder->images[best] < ladder->cost_us[best] * ladder->images[i]) {
            best = i;
        }
    }
    return ladder->images[best];
}

/** The first batch of the best split: sums[m] is what the last m of them wait for, those to come included. */
static int best_first(const struct ladder *ladder, int waiting) {
    double sums[LADDER_MAX_IMAGES + 1] = {0};
    int first = 1;
    for (int left = 1; left <= waiting; left++) {
        for (int i = 0; i < ladder->count; i++) {
            int taken = ladder->images[i] < left ? ladder->images[i] : left;
            double sum = ladder->cost_us[i] * (left + waiting) + sums[left - taken];
            if (i == 0 || sum < sums[left]) {
                sums[left] = sum;
                first = taken;
            }
        }
    }
    return first;
}

int ladder_take(const struct ladder *ladder, int waiting) {
    assert(waiting > 0 && ladder->count > 0);
    int most = ladder->images[ladder->count - 1];
    if (!is_measured(ladder)) {
        return waiting < most ? waiting : most;
    }
    return waiting < most ? best_first(ladder, waiting) : cheapest(ladder);
}
