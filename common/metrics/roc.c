#include "common/metrics/roc.h"

#include <math.h>
#include <stdlib.h>

struct scored {
    double score;
    bool positive;
};

static int by_falling_score(const void *left, const void *right) {
    double a = ((const struct scored *)left)->score, b = ((const struct scored *)right)->score;
    return (a < b) - (a > b);
}

static struct scored *sorted_samples(const double *scores, const bool *positive, int64_t count,
                                     struct error *err) {
    struct scored *samples = malloc((size_t)(count + 1) * sizeof *samples);
    if (!samples) {
        error_set(err, ERROR_MEMORY, "ROC curve: out of memory");
        return NULL;
    }
    for (int64_t i = 0; i < count; i++) {
        samples[i] = (struct scored){scores[i], positive[i]};
        if (isnan(scores[i])) {
            error_set(err, ERROR_INVALID, "ROC curve: the score of sample %lld is not a number",
                      (long long)i);
            free(samples);
            return NULL;
        }
    }
    qsort(samples, (size_t)count, sizeof *samples, by_falling_score);
    return samples;
}

/* Walks the scores downwards; a run of equal scores is one straight edge, hence the trapezoid that counts
 * ties half. */
static void trace(struct roc *roc, const struct scored *samples, int64_t count) {
    int64_t true_positives = 0, false_positives = 0;
    double twice_area = 0.0;
    roc->points[roc->count++] = (struct roc_point){INFINITY, 0.0, 0.0};
    for (int64_t i = 0; i < count;) {
        double threshold = samples[i].score;
        int64_t true_before = true_positives, false_before = false_positives;
        for (; i < count && samples[i].score == threshold; i++) {
            true_positives += samples[i].positive;
            false_positives += !samples[i].positive;
        }
        twice_area += (double)(false_positives - false_before) * (double)(true_positives + true_before);
        roc->points[roc->count++] =
            (struct roc_point){threshold, (double)false_positives / (double)roc->negatives,
                               (double)true_positives / (double)roc->positives};
    }
    roc->area = twice_area / 2.0 / (double)roc->positives / (double)roc->negatives;
}

bool roc_init(struct roc *roc, const double *scores, const bool *positive, int64_t count, struct error *err) {
    *roc = (struct roc){0};
    for (int64_t i = 0; i < count; i++)
        roc->positives += positive[i];
    roc->negatives = count - roc->positives;
    if (roc->positives == 0 || roc->negatives == 0)
        return error_set(err, ERROR_INVALID,
                         "ROC curve: %lld positive and %lld negative samples, one of each at least",
                         (long long)roc->positives, (long long)roc->negatives);
    struct scored *samples = sorted_samples(scores, positive, count, err);
    if (!samples)
        return false;
    roc->points = malloc((size_t)(count + 1) * sizeof *roc->points);
    if (roc->points)
        trace(roc, samples, count);
    free(samples);
    return roc->points || error_set(err, ERROR_MEMORY, "ROC curve: out of memory");
}

void roc_fini(struct roc *roc) {
    free(roc->points);
    *roc = (struct roc){0};
}
