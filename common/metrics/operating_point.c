#include "common/metrics/operating_point.h"

/* Midway to the next lower score, so that rounding in the last bit of a score does not decide about a
 * patient. */
static double threshold_below(const struct roc *roc, int64_t index) {
    double score = roc->points[index].threshold;
    return index + 1 < roc->count ? score + (roc->points[index + 1].threshold - score) / 2.0 : score;
}

static void fill(const struct roc *roc, int64_t index, double threshold, struct operating_point *out) {
    const struct roc_point *point = &roc->points[index];
    *out = (struct operating_point){threshold, point->true_positive_rate, 1.0 - point->false_positive_rate,
                                    roc->positives, roc->negatives};
}

bool operating_point_for_sensitivity(const struct roc *roc, double target, struct operating_point *out,
                                     struct error *err) {
    if (!(target > 0.0 && target <= 1.0))
        return error_set(err, ERROR_INVALID, "a sensitivity of %g cannot be reached: it is in (0, 1]",
                         target);
    int64_t index = 1;
    /* The last point has a sensitivity of exactly 1. The slack forgives 0.95 not being a binary fraction. */
    while (index + 1 < roc->count && roc->points[index].true_positive_rate < target - 1e-12)
        index++;
    fill(roc, index, threshold_below(roc, index), out);
    return true;
}

void operating_point_youden(const struct roc *roc, struct operating_point *out) {
    int64_t best = 1;
    for (int64_t i = 2; i < roc->count; i++) {
        double gain = roc->points[i].true_positive_rate - roc->points[i].false_positive_rate;
        if (gain > roc->points[best].true_positive_rate - roc->points[best].false_positive_rate + 1e-12)
            best = i;
    }
    fill(roc, best, threshold_below(roc, best), out);
}

void operating_point_at(const struct roc *roc, double threshold, struct operating_point *out) {
    int64_t index = 0;
    while (index + 1 < roc->count && roc->points[index + 1].threshold >= threshold)
        index++;
    fill(roc, index, threshold, out);
}

void operating_point_predictive_values(const struct operating_point *point, double prevalence,
                                       double *positive, double *negative) {
    double true_positive = point->sensitivity * prevalence;
    double false_positive = (1.0 - point->specificity) * (1.0 - prevalence);
    double true_negative = point->specificity * (1.0 - prevalence);
    double false_negative = (1.0 - point->sensitivity) * prevalence;
    double called = true_positive + false_positive, cleared = true_negative + false_negative;
    *positive = called > 0.0 ? true_positive / called : 0.0;
    *negative = cleared > 0.0 ? true_negative / cleared : 0.0;
}
