#include "common/metrics/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *report_interval_name(enum report_interval which) {
    static const char *const names[REPORT_INTERVALS] = {"accuracy", "balanced_accuracy", "sensitivity",
                                                        "specificity", "pair_auc"};
    return names[which];
}

double report_pair_score(const struct predictions *predictions, int64_t row, int positive_class,
                         int negative_class) {
    const double *p = predictions->probabilities + row * predictions->classes;
    double sum = p[positive_class] + p[negative_class];
    /* Rounded to float, so that equal logits tie whatever the last bit of their quotient. */
    return sum > 0.0 ? (double)(float)(p[positive_class] / sum) : 0.5;
}

/* Scores and truths of the samples that a curve is about. */
struct curve_samples {
    double *scores;
    bool *positive;
    int64_t count;
};

static void curve_samples_fini(struct curve_samples *samples) {
    free(samples->scores);
    free(samples->positive);
}

static bool curve_samples_init(struct curve_samples *samples, int64_t capacity, struct error *err) {
    *samples = (struct curve_samples){malloc((size_t)capacity * sizeof(double)), malloc((size_t)capacity), 0};
    if (samples->scores && samples->positive)
        return true;
    curve_samples_fini(samples);
    return error_set(err, ERROR_MEMORY, "report: out of memory");
}

bool report_pair_curve(struct roc *roc, const struct predictions *predictions, int positive_class,
                       int negative_class, struct error *err) {
    *roc = (struct roc){0};
    struct curve_samples samples;
    if (!curve_samples_init(&samples, predictions->count, err))
        return false;
    for (int64_t row = 0; row < predictions->count; row++) {
        int label = predictions->labels[row];
        if (label != positive_class && label != negative_class)
            continue;
        samples.scores[samples.count] = report_pair_score(predictions, row, positive_class, negative_class);
        samples.positive[samples.count++] = label == positive_class;
    }
    bool ok = roc_init(roc, samples.scores, samples.positive, samples.count, err);
    curve_samples_fini(&samples);
    return ok;
}

static bool class_curve(struct roc *roc, const struct predictions *predictions, int which,
                        struct error *err) {
    struct curve_samples samples;
    if (!curve_samples_init(&samples, predictions->count, err))
        return false;
    for (int64_t row = 0; row < predictions->count; row++) {
        samples.scores[row] = predictions->probabilities[row * predictions->classes + which];
        samples.positive[row] = predictions->labels[row] == which;
    }
    bool ok = roc_init(roc, samples.scores, samples.positive, predictions->count, err);
    curve_samples_fini(&samples);
    return ok;
}

static bool has_pair(const struct report_spec *spec) {
    return spec->positive_class >= 0 && spec->negative_class >= 0;
}

/* A curve needs samples of both sides; where they are missing it stays empty, which is no error of the
 * report. */
static bool trace_curves(struct report *report, struct error *err) {
    const struct report_spec *spec = &report->spec;
    const struct class_scores *by_class = report->summary.by_class;
    for (int i = 0; i < spec->predictions.classes; i++) {
        bool defined = by_class[i].support > 0 && by_class[i].support < report->summary.total;
        if (defined && !class_curve(&report->class_curves[i], &spec->predictions, i, err))
            return false;
    }
    if (!has_pair(spec) || by_class[spec->positive_class].support == 0 ||
        by_class[spec->negative_class].support == 0)
        return true;
    if (!report_pair_curve(&report->pair_curve, &spec->predictions, spec->positive_class,
                           spec->negative_class, err))
        return false;
    if (spec->pair_threshold)
        operating_point_at(&report->pair_curve, *spec->pair_threshold, &report->pair_point);
    return true;
}

/* What the resampled statistics look at. Ranks make the area of a resample linear in its size. */
struct resampled {
    const struct report_spec *spec;
    int *best;            /* (count) most probable class */
    int64_t *ranks;       /* (count) place of the pair score among the distinct ones; -1: not of the pair */
    int64_t rank_count;   /* distinct pair scores */
    int64_t *rank_counts; /* (rank_count, 2) scratch: negatives and positives of a resample */
};

static void count_right(const struct resampled *data, const int64_t *indices, int64_t count,
                        int64_t counts[METRICS_MAX_CLASSES][2]) {
    for (int64_t i = 0; i < count; i++) {
        int label = data->spec->predictions.labels[indices[i]];
        counts[label][0]++;
        counts[label][1] += data->best[indices[i]] == label;
    }
}

static double resampled_accuracy(const void *context, const int64_t *indices, int64_t count) {
    const struct resampled *data = context;
    int64_t right = 0;
    for (int64_t i = 0; i < count; i++)
        right += data->best[indices[i]] == data->spec->predictions.labels[indices[i]];
    return (double)right / (double)count;
}

static double resampled_balanced(const void *context, const int64_t *indices, int64_t count) {
    const struct resampled *data = context;
    int64_t counts[METRICS_MAX_CLASSES][2] = {{0}};
    count_right(data, indices, count, counts);
    double sum = 0.0;
    int present = 0;
    for (int i = 0; i < data->spec->predictions.classes; i++) {
        if (counts[i][0] == 0)
            continue;
        sum += (double)counts[i][1] / (double)counts[i][0];
        present++;
    }
    return sum / present;
}

static double resampled_recall(const struct resampled *data, const int64_t *indices, int64_t count,
                               int which) {
    int64_t counts[METRICS_MAX_CLASSES][2] = {{0}};
    if (which < 0)
        return NAN;
    count_right(data, indices, count, counts);
    return counts[which][0] ? (double)counts[which][1] / (double)counts[which][0] : NAN;
}

static double resampled_sensitivity(const void *context, const int64_t *indices, int64_t count) {
    const struct resampled *data = context;
    return resampled_recall(data, indices, count, data->spec->positive_class);
}

static double resampled_specificity(const void *context, const int64_t *indices, int64_t count) {
    const struct resampled *data = context;
    return resampled_recall(data, indices, count, data->spec->negative_class);
}

static double resampled_pair_area(const void *context, const int64_t *indices, int64_t count) {
    const struct resampled *data = context;
    memset(data->rank_counts, 0, (size_t)data->rank_count * 2 * sizeof *data->rank_counts);
    for (int64_t i = 0; i < count; i++) {
        int64_t rank = data->ranks[indices[i]];
        if (rank >= 0)
            data->rank_counts[rank * 2 +
                              (data->spec->predictions.labels[indices[i]] == data->spec->positive_class)]++;
    }
    double below = 0.0, wins = 0.0, positives = 0.0;
    for (int64_t rank = 0; rank < data->rank_count; rank++) {
        double negative = (double)data->rank_counts[rank * 2],
               positive = (double)data->rank_counts[rank * 2 + 1];
        wins += positive * (below + negative / 2.0);
        below += negative;
        positives += positive;
    }
    return below > 0.0 && positives > 0.0 ? wins / below / positives : NAN;
}

/* The curve's points hold the distinct scores in falling order after the first: a binary search gives the
 * rank. */
static int64_t rank_of(const struct roc *roc, double score) {
    int64_t low = 1, high = roc->count - 1;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (roc->points[middle].threshold > score)
            low = middle + 1;
        else
            high = middle;
    }
    return roc->count - 1 - low;
}

static void resampled_fini(struct resampled *data) {
    free(data->best);
    free(data->ranks);
    free(data->rank_counts);
}

static bool resampled_init(struct resampled *data, const struct report *report) {
    const struct report_spec *spec = &report->spec;
    const struct predictions *predictions = &spec->predictions;
    size_t count = (size_t)predictions->count;
    *data = (struct resampled){.spec = spec,
                               .best = malloc(count * sizeof *data->best),
                               .ranks = malloc(count * sizeof *data->ranks),
                               .rank_count = report->pair_curve.count > 0 ? report->pair_curve.count - 1 : 0};
    data->rank_counts = calloc((size_t)data->rank_count * 2 + 1, sizeof *data->rank_counts);
    if (!data->best || !data->ranks || !data->rank_counts)
        return false;
    for (int64_t row = 0; row < predictions->count; row++) {
        int label = predictions->labels[row];
        bool paired =
            data->rank_count > 0 && (label == spec->positive_class || label == spec->negative_class);
        data->best[row] = predictions_best(predictions, row);
        data->ranks[row] =
            paired ? rank_of(&report->pair_curve,
                             report_pair_score(predictions, row, spec->positive_class, spec->negative_class))
                   : -1;
    }
    return true;
}

static bool estimate_intervals(struct report *report, struct error *err) {
    static const bootstrap_statistic statistics[REPORT_INTERVALS] = {
        [REPORT_ACCURACY] = resampled_accuracy,       [REPORT_BALANCED_ACCURACY] = resampled_balanced,
        [REPORT_SENSITIVITY] = resampled_sensitivity, [REPORT_SPECIFICITY] = resampled_specificity,
        [REPORT_PAIR_AREA] = resampled_pair_area,
    };
    const struct report_spec *spec = &report->spec;
    struct bootstrap_spec bootstrap = {.count = spec->predictions.count,
                                       .groups = spec->predictions.groups,
                                       .rounds = spec->bootstrap_rounds,
                                       .seed = spec->seed};
    struct resampled data;
    bool ok = resampled_init(&data, report) || error_set(err, ERROR_MEMORY, "report: out of memory");
    ok = ok && bootstrap_intervals(&bootstrap, statistics, REPORT_INTERVALS, &data, report->intervals, err);
    resampled_fini(&data);
    return ok;
}

static bool check_spec(const struct report_spec *spec, struct error *err) {
    int classes = spec->predictions.classes;
    if (has_pair(spec) && (spec->positive_class >= classes || spec->negative_class >= classes ||
                           spec->positive_class == spec->negative_class))
        return error_set(err, ERROR_INVALID, "report: classes %d and %d are no pair of %d classes",
                         spec->positive_class, spec->negative_class, classes);
    return predictions_check(&spec->predictions, err);
}

bool report_init(struct report *report, const struct report_spec *spec, struct error *err) {
    *report = (struct report){.spec = *spec};
    const struct predictions *predictions = &report->spec.predictions;
    if (!check_spec(spec, err) || !confusion_init(&report->confusion, predictions->classes, err))
        return false;
    for (int64_t row = 0; row < predictions->count; row++)
        if (!confusion_add(&report->confusion, predictions->labels[row], predictions_best(predictions, row),
                           err))
            return false;
    report->summary = confusion_summarise(&report->confusion);
    report->log_loss = calibration_log_loss(predictions);
    report->brier = calibration_brier(predictions);
    report->calibration_error = calibration_error(predictions);
    if (trace_curves(report, err) && estimate_intervals(report, err))
        return true;
    report_fini(report);
    return false;
}

void report_fini(struct report *report) {
    for (int i = 0; i < METRICS_MAX_CLASSES; i++)
        roc_fini(&report->class_curves[i]);
    roc_fini(&report->pair_curve);
}
