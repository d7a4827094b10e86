#pragma once
#include "common/metrics/roc.h"

/** A threshold and what it does on the samples that it was chosen on: positive where score >= threshold. */
struct operating_point {
    double threshold;
    double sensitivity, specificity;
    int64_t positives, negatives; /**< samples behind the two figures */
};

/**
 * The highest threshold whose sensitivity is at least the target, which is in (0, 1]. It lies midway between
 * the last score that it takes in and the next one below. Errors: a target out of range.
 */
bool operating_point_for_sensitivity(const struct roc *roc, double target, struct operating_point *out,
                                     struct error *err);

/** The threshold that maximises sensitivity + specificity; the highest of equals (Youden 1950). */
void operating_point_youden(const struct roc *roc, struct operating_point *out);

/** What a fixed threshold does on these samples. */
void operating_point_at(const struct roc *roc, double threshold, struct operating_point *out);

/** Positive and negative predictive value where `prevalence` of the patients are positive; 0 without a
 * denominator. */
void operating_point_predictive_values(const struct operating_point *point, double prevalence,
                                       double *positive, double *negative);
