#include "common/metrics/calibration.h"

#include "common/metrics/confusion.h"

#include <math.h>

static const double temperature_least = 1.0 / 20.0, temperature_most = 20.0;

static bool check_row(const struct predictions *predictions, int64_t row, struct error *err) {
    const double *p = predictions->probabilities + row * predictions->classes;
    double sum = 0.0;
    for (int i = 0; i < predictions->classes; i++) {
        /* Written so that a NaN fails. */
        if (!(p[i] >= 0.0 && p[i] <= 1.0))
            return error_set(err, ERROR_INVALID, "sample %lld: %g is no probability", (long long)row, p[i]);
        sum += p[i];
    }
    if (fabs(sum - 1.0) > 1e-4)
        return error_set(err, ERROR_INVALID, "sample %lld: the probabilities sum to %g", (long long)row, sum);
    if (predictions->labels[row] < 0 || predictions->labels[row] >= predictions->classes)
        return error_set(err, ERROR_INVALID, "sample %lld: label %d is none of the %d classes",
                         (long long)row, predictions->labels[row], predictions->classes);
    return true;
}

bool predictions_check(const struct predictions *predictions, struct error *err) {
    if (predictions->count < 1)
        return error_set(err, ERROR_INVALID, "no samples to measure");
    if (predictions->classes < 2 || predictions->classes > METRICS_MAX_CLASSES)
        return error_set(err, ERROR_INVALID, "%d classes: metrics take 2 to %d", predictions->classes,
                         METRICS_MAX_CLASSES);
    for (int64_t row = 0; row < predictions->count; row++)
        if (!check_row(predictions, row, err))
            return false;
    return true;
}

int predictions_best(const struct predictions *predictions, int64_t row) {
    const double *p = predictions->probabilities + row * predictions->classes;
    int best = 0;
    for (int i = 1; i < predictions->classes; i++)
        if (p[i] > p[best])
            best = i;
    return best;
}

static void softmax_row(const float *logits, int classes, double inverse_temperature, double *out) {
    double largest = -INFINITY, sum = 0.0;
    for (int i = 0; i < classes; i++)
        largest = fmax(largest, logits[i]);
    for (int i = 0; i < classes; i++)
        sum += out[i] = exp((logits[i] - largest) * inverse_temperature);
    for (int i = 0; i < classes; i++)
        out[i] /= sum;
}

void calibration_softmax(const float *logits, int64_t count, int classes, double temperature,
                         double *probabilities) {
    for (int64_t row = 0; row < count; row++)
        softmax_row(logits + row * classes, classes, 1.0 / temperature, probabilities + row * classes);
}

double calibration_log_loss(const struct predictions *predictions) {
    double sum = 0.0;
    for (int64_t row = 0; row < predictions->count; row++)
        sum -= log(
            fmax(predictions->probabilities[row * predictions->classes + predictions->labels[row]], 1e-15));
    return sum / (double)predictions->count;
}

double calibration_brier(const struct predictions *predictions) {
    double sum = 0.0;
    for (int64_t row = 0; row < predictions->count; row++) {
        const double *p = predictions->probabilities + row * predictions->classes;
        for (int i = 0; i < predictions->classes; i++) {
            double distance = p[i] - (predictions->labels[row] == i);
            sum += distance * distance;
        }
    }
    return sum / (double)predictions->count;
}

double calibration_error(const struct predictions *predictions) {
    double confidence[CALIBRATION_BINS] = {0}, right[CALIBRATION_BINS] = {0}, error = 0.0;
    for (int64_t row = 0; row < predictions->count; row++) {
        int best = predictions_best(predictions, row);
        double p = predictions->probabilities[row * predictions->classes + best];
        /* Bins are (low, high], as in the paper; p is above 0, being the largest. */
        int bin = (int)ceil(p * CALIBRATION_BINS) - 1;
        bin = bin < 0 ? 0 : bin >= CALIBRATION_BINS ? CALIBRATION_BINS - 1 : bin;
        confidence[bin] += p;
        right[bin] += best == predictions->labels[row];
    }
    for (int bin = 0; bin < CALIBRATION_BINS; bin++)
        error += fabs(confidence[bin] - right[bin]);
    return error / (double)predictions->count;
}

struct logits {
    const float *values; /* (count, classes) */
    const int32_t *labels;
    int64_t count;
    int classes;
};

static bool logits_check(const struct logits *logits, struct error *err) {
    if (logits->count < 1 || logits->classes < 2 || logits->classes > METRICS_MAX_CLASSES)
        return error_set(err, ERROR_INVALID, "temperature: %lld samples of %d classes cannot be fitted",
                         (long long)logits->count, logits->classes);
    for (int64_t i = 0; i < logits->count * logits->classes; i++)
        if (!isfinite(logits->values[i]))
            return error_set(err, ERROR_INVALID, "temperature: a logit of sample %lld is not finite",
                             (long long)(i / logits->classes));
    for (int64_t i = 0; i < logits->count; i++)
        if (logits->labels[i] < 0 || logits->labels[i] >= logits->classes)
            return error_set(err, ERROR_INVALID, "temperature: label %d is no class", logits->labels[i]);
    return true;
}

/* d(loss)/d(inverse temperature) = mean over samples of the mean logit under p - logit of the true class. */
static double loss_slope(const struct logits *logits, double inverse_temperature) {
    double p[METRICS_MAX_CLASSES], slope = 0.0;
    for (int64_t row = 0; row < logits->count; row++) {
        const float *values = logits->values + row * logits->classes;
        softmax_row(values, logits->classes, inverse_temperature, p);
        for (int i = 0; i < logits->classes; i++)
            slope += p[i] * values[i];
        slope -= values[logits->labels[row]];
    }
    return slope / (double)logits->count;
}

bool calibration_fit_temperature(const float *logits, const int32_t *labels, int64_t count, int classes,
                                 double *temperature, struct error *err) {
    struct logits all = {logits, labels, count, classes};
    if (!logits_check(&all, err))
        return false;
    double low = 1.0 / temperature_most, high = 1.0 / temperature_least;
    /* The loss is convex in the inverse temperature, so its slope rises: bisect for its zero, in the
     * logarithm. */
    for (int round = 0; round < 60; round++) {
        double middle = sqrt(low * high);
        if (loss_slope(&all, middle) < 0.0)
            low = middle;
        else
            high = middle;
    }
    *temperature = 1.0 / sqrt(low * high);
    return true;
}
