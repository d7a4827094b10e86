#include "common/metrics/report.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *scores_json(const struct class_scores *scores) {
    return json_pack("{s:o, s:o, s:o, s:I}", "precision", number(scores->precision), "recall",
                     number(scores->recall), "f1", number(scores->f1), "support",
                     (json_int_t)scores->support);
}

static json_t *classes_json(const struct report *report) {
    json_t *classes = json_object();
    for (int i = 0; i < report->confusion.classes; i++) {
        json_t *scores = scores_json(&report->summary.by_class[i]);
        double area = report->class_curves[i].count > 0 ? report->class_curves[i].area : NAN;
        json_object_set_new(scores, "auc", number(area));
        json_object_set_new(classes, report->spec.class_names[i], scores);
    }
    return classes;
}

static json_t *confusion_json(const struct report *report) {
    json_t *names = json_array(), *rows = json_array();
    for (int truth = 0; truth < report->confusion.classes; truth++) {
        json_t *row = json_array();
        for (int answer = 0; answer < report->confusion.classes; answer++)
            json_array_append_new(row, json_integer(report->confusion.counts[truth][answer]));
        json_array_append_new(rows, row);
        json_array_append_new(names, json_string(report->spec.class_names[truth]));
    }
    return json_pack("{s:o, s:o}", "classes", names, "counts", rows);
}

static json_t *pair_json(const struct report *report) {
    const struct report_spec *spec = &report->spec;
    if (report->pair_curve.count == 0)
        return json_null();
    json_t *pair =
        json_pack("{s:s, s:s, s:o}", "positive", spec->class_names[spec->positive_class], "negative",
                  spec->class_names[spec->negative_class], "auc", number(report->pair_curve.area));
    if (spec->pair_threshold)
        json_object_set_new(pair, "operating_point",
                            json_pack("{s:o, s:o, s:o, s:I, s:I}", "threshold",
                                      number(report->pair_point.threshold), "sensitivity",
                                      number(report->pair_point.sensitivity), "specificity",
                                      number(report->pair_point.specificity), "positives",
                                      (json_int_t)report->pair_point.positives, "negatives",
                                      (json_int_t)report->pair_point.negatives));
    return pair;
}

static json_t *intervals_json(const struct report *report) {
    json_t *intervals = json_object();
    for (int i = 0; i < REPORT_INTERVALS; i++)
        json_object_set_new(intervals, report_interval_name((enum report_interval)i),
                            json_pack("{s:o, s:o}", "low", number(report->intervals[i].low), "high",
                                      number(report->intervals[i].high)));
    return intervals;
}

char *report_json(const struct report *report, struct error *err) {
    const struct confusion_summary *summary = &report->summary;
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "title",
        report->spec.title, "part", report->spec.part, "notice", REPORT_NOTICE, "samples",
        (json_int_t)summary->total, "accuracy", number(summary->accuracy), "balanced_accuracy",
        number(summary->balanced_accuracy), "macro", scores_json(&summary->macro), "weighted",
        scores_json(&summary->weighted), "classes", classes_json(report), "confusion", confusion_json(report),
        "pair", pair_json(report), "log_loss", number(report->log_loss), "brier", number(report->brier),
        "calibration_error", number(report->calibration_error), "intervals_95", intervals_json(report));
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(root);
    if (!text)
        error_set(err, ERROR_INTERNAL, "report: a title or class name is not UTF-8, or memory ended");
    return text;
}
