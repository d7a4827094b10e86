#pragma once
#include "common/metrics/bootstrap.h"
#include "common/metrics/calibration.h"
#include "common/metrics/confusion.h"
#include "common/metrics/operating_point.h"
#include "common/metrics/roc.h"

/** What every report says of itself. */
#define REPORT_NOTICE "For research and integration; not a medical device."

/** Statistics that a report gives an interval for. */
enum report_interval {
    REPORT_ACCURACY,
    REPORT_BALANCED_ACCURACY,
    REPORT_SENSITIVITY, /**< share of the positive class that was taken for it */
    REPORT_SPECIFICITY, /**< share of the negative class that was taken for it */
    REPORT_PAIR_AREA,   /**< area under the ROC curve, positive against negative class */
    REPORT_INTERVALS
};

/** What to report on. Borrows everything. */
struct report_spec {
    const char *title; /**< of the model, e.g. its name */
    const char *part;  /**< of the data, e.g. "test" */
    const char *const *class_names;
    struct predictions predictions;
    int positive_class,
        negative_class; /**< the pair that matters most (PNEUMONIA, NORMAL), both -1 where there is none */
    const double *pair_threshold; /**< of pair_score, the model's operating point; NULL: none */
    int bootstrap_rounds;         /**< 0: the default */
    uint64_t seed;                /**< of the resampling */
};

/** Everything measured; report_fini frees it. Figures that the samples cannot give (a class is absent) are
 * NaN. */
struct report {
    struct report_spec spec;
    struct confusion confusion; /**< by the most probable class */
    struct confusion_summary summary;
    struct roc class_curves[METRICS_MAX_CLASSES]; /**< each class against the rest; empty where undefined */
    struct roc pair_curve;             /**< positive against negative class, other samples left out */
    struct operating_point pair_point; /**< at pair_threshold */
    struct interval intervals[REPORT_INTERVALS]; /**< 95 %, whole patients resampled */
    double log_loss, brier, calibration_error;
};

/** A report's text, one key for one statistic, e.g. "balanced_accuracy". */
const char *report_interval_name(enum report_interval which);

/**
 * How much the positive class is likelier than the negative one, in [0, 1]: p / (p + n). It is what
 * thresholds of the pair are about, whatever the other classes hold.
 */
double report_pair_score(const struct predictions *predictions, int64_t row, int positive_class,
                         int negative_class);

/**
 * The ROC curve of positive against negative class by report_pair_score, over the samples of these two
 * classes. Returns owned (roc_fini). Errors: as roc_init; out of memory.
 */
bool report_pair_curve(struct roc *roc, const struct predictions *predictions, int positive_class,
                       int negative_class, struct error *err);

/** Measures. The spec's arrays must outlive the report. Errors: predictions_check's; out of memory. */
bool report_init(struct report *report, const struct report_spec *spec, struct error *err);

/** Frees; harmless on a zeroed report. */
void report_fini(struct report *report);

/** Tables in scikit-learn's manner, for people. Returns owned (free), NULL on error. */
char *report_text(const struct report *report, struct error *err);

/** The same as JSON, undefined figures as null. Returns owned (free), NULL on error. */
char *report_json(const struct report *report, struct error *err);
