#pragma once
#include "common/base/error.h"
#include <stdint.h>

/**
 * Class probabilities of a set of samples and what they really are. Borrows its arrays.
 */
struct predictions {
    int classes;
    int64_t count;
    const double *probabilities; /**< (count, classes), rows that sum to 1 */
    const int32_t *labels;       /**< (count), each in [0, classes) */
    const int32_t *groups;       /**< (count) patient of each sample, or NULL: each its own; for intervals */
};

enum { CALIBRATION_BINS = 15 };

/** Checks ranges: at least one sample, labels that are classes, probabilities that are finite, in [0, 1] and
 * sum to 1. */
bool predictions_check(const struct predictions *predictions, struct error *err);

/** The class of a row with the largest probability; the first of equals. */
int predictions_best(const struct predictions *predictions, int64_t row);

/**
 * probabilities = softmax(logits / temperature), row by row; logits and probabilities are (count, classes).
 * Safe for logits of any finite size.
 */
void calibration_softmax(const float *logits, int64_t count, int classes, double temperature,
                         double *probabilities);

/** Mean negative logarithm of the true class's probability, which is taken as at least 1e-15. */
double calibration_log_loss(const struct predictions *predictions);

/** Mean over samples of sum over classes of (probability - truth)^2; in [0, 2] (Brier 1950). */
double calibration_brier(const struct predictions *predictions);

/** Expected calibration error of the best class's probability, over CALIBRATION_BINS equal bins (Guo et al.
 * 2017). */
double calibration_error(const struct predictions *predictions);

/**
 * The temperature in [1/20, 20] that minimises the log loss of softmax(logits / temperature). Logits are
 * (count, classes), labels (count). Errors: no samples, a logit that is not finite, a label that is no class.
 */
bool calibration_fit_temperature(const float *logits, const int32_t *labels, int64_t count, int classes,
                                 double *temperature, struct error *err);
