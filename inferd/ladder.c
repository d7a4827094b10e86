#include "inferd/ladder.h"
#include <assert.h>
#include <stdbool.h>

int ladder_step(const struct ladder *ladder, int images) {
    int step = 0;
    while (step + 1 < ladder->count && ladder->images[step] < images) {
        step++;
    }
    return step;
}

void ladder_note(struct ladder *ladder, int step, double us) {
    double *cost = &ladder->cost_us[step];
    *cost = *cost > 0 && *cost < us ? *cost : us;
}

static bool is_measured(const struct ladder *ladder) {
    for (int i = 0; i < ladder->count; i++) {
        if (!(ladder->cost_us[i] > 0)) {
            return false;
        }
    }
    return ladder->count > 0;
}

/** The first batch of the best split. sums[m]: what the last m of them, and as many that are to come as wait now,
 * wait for from there on. */
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
    return best_first(ladder, waiting < LADDER_MAX_IMAGES ? waiting : LADDER_MAX_IMAGES);
}
