#include "common/metrics/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void print_scores(FILE *out, const char *name, const struct class_scores *scores) {
    fprintf(out, "%16.16s  %9.4f  %9.4f  %9.4f  %9lld\n", name, scores->precision, scores->recall, scores->f1,
            (long long)scores->support);
}

static void print_classes(FILE *out, const struct report *report) {
    const struct confusion_summary *summary = &report->summary;
    fprintf(out, "%16s  %9s  %9s  %9s  %9s\n", "", "precision", "recall", "f1-score", "support");
    for (int i = 0; i < report->confusion.classes; i++)
        print_scores(out, report->spec.class_names[i], &summary->by_class[i]);
    fprintf(out, "\n%16s  %9s  %9s  %9.4f  %9lld\n", "accuracy", "", "", summary->accuracy,
            (long long)summary->total);
    print_scores(out, "macro avg", &summary->macro);
    print_scores(out, "weighted avg", &summary->weighted);
}

static void print_confusion(FILE *out, const struct report *report) {
    fprintf(out, "\nconfusion matrix (rows: truth, columns: answer)\n%16s", "");
    for (int i = 0; i < report->confusion.classes; i++)
        fprintf(out, "  %9.9s", report->spec.class_names[i]);
    fprintf(out, "\n");
    for (int truth = 0; truth < report->confusion.classes; truth++) {
        fprintf(out, "%16.16s", report->spec.class_names[truth]);
        for (int answer = 0; answer < report->confusion.classes; answer++)
            fprintf(out, "  %9lld", (long long)report->confusion.counts[truth][answer]);
        fprintf(out, "\n");
    }
}

static void print_curves(FILE *out, const struct report *report) {
    const struct report_spec *spec = &report->spec;
    fprintf(out, "\narea under the ROC curve\n");
    for (int i = 0; i < report->confusion.classes; i++)
        if (report->class_curves[i].count > 0)
            fprintf(out, "%16.16s  %9.4f  against the rest\n", spec->class_names[i],
                    report->class_curves[i].area);
    if (report->pair_curve.count == 0)
        return;
    fprintf(out, "%16.16s  %9.4f  against %s alone\n", spec->class_names[spec->positive_class],
            report->pair_curve.area, spec->class_names[spec->negative_class]);
    if (spec->pair_threshold)
        fprintf(out,
                "\nat the threshold %.4f: sensitivity %.4f (%lld samples), specificity %.4f (%lld samples)\n",
                report->pair_point.threshold, report->pair_point.sensitivity,
                (long long)report->pair_point.positives, report->pair_point.specificity,
                (long long)report->pair_point.negatives);
}

static void print_intervals(FILE *out, const struct report *report) {
    fprintf(out, "\n95 %% intervals (bootstrap%s)\n",
            report->spec.predictions.groups ? ", whole patients" : "");
    for (int i = 0; i < REPORT_INTERVALS; i++)
        if (!isnan(report->intervals[i].low))
            fprintf(out, "%18s  %.4f to %.4f\n", report_interval_name((enum report_interval)i),
                    report->intervals[i].low, report->intervals[i].high);
}

char *report_text(const struct report *report, struct error *err) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) {
        error_set_errno(err, "report");
        return NULL;
    }
    fprintf(out, "%s on %s: %lld samples\n%s\n\n", report->spec.title, report->spec.part,
            (long long)report->summary.total, REPORT_NOTICE);
    print_classes(out, report);
    print_confusion(out, report);
    print_curves(out, report);
    fprintf(out, "\nlog loss %.4f   Brier score %.4f   expected calibration error %.4f\n", report->log_loss,
            report->brier, report->calibration_error);
    print_intervals(out, report);
    if (fclose(out) == 0)
        return text;
    free(text);
    error_set(err, ERROR_MEMORY, "report: out of memory");
    return NULL;
}
