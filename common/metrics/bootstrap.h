#pragma once
#include "common/base/error.h"
#include "common/metrics/interval.h"
#include <stdint.h>

/** How to resample. Zero rounds or confidence take the default. */
struct bootstrap_spec {
    int64_t count;         /**< samples */
    const int32_t *groups; /**< (count) patient of each sample: drawn as a whole; NULL: each sample its own */
    int rounds;            /**< resamples; default 1,000 */
    double confidence;     /**< default 0.95 */
    uint64_t seed;
};

/** A statistic of the samples that indices name, (count), repeats included; NaN where it is undefined for
 * them. */
typedef double (*bootstrap_statistic)(const void *context, const int64_t *indices, int64_t count);

/**
 * Percentile intervals of `statistics` functions over the same resamples. The same seed gives the same
 * intervals. out is (statistics). An interval whose statistic was undefined in more than half of the
 * resamples is NaN, NaN. Source: Efron and Tibshirani 1993, chapter 13; whole patients are drawn because
 * pictures of one are alike.
 */
bool bootstrap_intervals(const struct bootstrap_spec *spec, const bootstrap_statistic *statistics,
                         int statistic_count, const void *context, struct interval *out, struct error *err);
