#pragma once
#include "common/base/error.h"
#include <stdint.h>

/** One corner of the curve: what calling every score >= threshold positive gives. */
struct roc_point {
    double threshold; /**< infinity at the first point, where nothing is positive */
    double false_positive_rate, true_positive_rate;
};

/** A ROC curve from (0, 0) to (1, 1), one point per distinct score, and its area. */
struct roc {
    struct roc_point *points; /**< (count), owned */
    int64_t count;
    double area; /**< exact: tied scores count half, as in the Mann-Whitney statistic */
    int64_t positives, negatives;
};

/**
 * The curve of count samples: scores[i] is higher where positive is likelier, positive[i] is the truth.
 * Returns owned (roc_fini). Errors: a score that is not a number; no positive or no negative sample.
 */
bool roc_init(struct roc *roc, const double *scores, const bool *positive, int64_t count, struct error *err);

/** Frees; harmless on a zeroed curve. */
void roc_fini(struct roc *roc);
