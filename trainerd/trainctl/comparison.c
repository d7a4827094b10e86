#include "trainerd/trainctl/comparison.h"

#include "common/metrics/report.h"
#include "trainerd/export.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* So near to a threshold other kernels may decide otherwise. */
static const double FAR = 0.01;

static bool same_classes(const struct manifest *a, const struct manifest *b) {
    bool same = a->class_count == b->class_count;
    for (int i = 0; same && i < a->class_count; i++)
        same = strcmp(a->classes[i], b->classes[i]) == 0;
    return same;
}

static bool same_pictures(const struct evaluation *a, const struct evaluation *b) {
    return a->count == b->count && a->count > 0 && a->classes == b->classes &&
           memcmp(a->labels, b->labels, (size_t)a->count * sizeof *a->labels) == 0;
}

static bool check(const struct compared models[2], struct error *err) {
    const struct manifest *a = models[0].manifest, *b = models[1].manifest;
    if (!same_classes(a, b) || a->class_count != models[0].evaluation->classes)
        return error_set(err, ERROR_INVALID, "the models do not answer the same question: their classes differ");
    if (!same_pictures(models[0].evaluation, models[1].evaluation))
        return error_set(err, ERROR_INVALID, "the models did not answer the same pictures");
    return (a->operating_point_count > 0 && b->operating_point_count > 0) ||
           error_set(err, ERROR_INVALID, "a model without an operating point takes no decisions");
}

static bool measure(const struct compared *model, const double *probabilities, int which, struct comparison *out,
                    struct error *err) {
    const struct evaluation *evaluation = model->evaluation;
    const char *const *names = (const char *const *)model->manifest->classes;
    int positive = export_class(names, evaluation->classes, "PNEUMONIA"),
        negative = export_class(names, evaluation->classes, "NORMAL");
    bool pair = positive >= 0 && negative >= 0;
    struct report report = {0};
    struct report_spec spec = {
        .title = "",
        .part = "",
        .class_names = names,
        .bootstrap_rounds = 1,
        .predictions = {evaluation->classes, evaluation->count, probabilities, evaluation->labels, evaluation->groups},
        .positive_class = pair ? positive : -1,
        .negative_class = pair ? negative : -1};
    if (!report_init(&report, &spec, err))
        return false;
    out->accuracy[which] = report.summary.accuracy;
    out->log_loss[which] = report.log_loss;
    out->area[which] = report.pair_curve.points ? report.pair_curve.area : NAN;
    report_fini(&report);
    return true;
}

enum decision { DECISION_INVALID, DECISION_NEGATIVE, DECISION_POSITIVE };

/** As inferd/decide.c decides: what is most probably no chest film is not judged. */
static enum decision decide(const struct manifest *manifest, const double *row) {
    const struct manifest_operating_point *point = &manifest->operating_points[0];
    int invalid = manifest_class(manifest, "INVALID"), best = 0;
    for (int i = 1; i < manifest->class_count; i++)
        best = row[i] > row[best] ? i : best;
    if (best == invalid)
        return DECISION_INVALID;
    return row[manifest_class(manifest, point->class_name)] >= point->threshold ? DECISION_POSITIVE : DECISION_NEGATIVE;
}

static void note_change(struct comparison *out, int64_t image, double before, double after) {
    double change = fabs(after - before);
    int at = COMPARISON_WORST;
    while (at > 0 && (out->worst[at - 1].image < 0 || change > fabs(out->worst[at - 1].after - out->worst[at - 1].before)))
        at--;
    if (at == COMPARISON_WORST)
        return;
    memmove(&out->worst[at + 1], &out->worst[at], (size_t)(COMPARISON_WORST - 1 - at) * sizeof *out->worst);
    out->worst[at] = (struct comparison_change){image, before, after};
}

static void compare_row(struct comparison *out, const struct compared models[2], int64_t image, const double *a,
                        const double *b) {
    const struct manifest_operating_point *point = &models[0].manifest->operating_points[0];
    int class_index = manifest_class(models[0].manifest, point->class_name);
    double before = a[class_index], after = b[class_index];
    bool differ = decide(models[0].manifest, a) != decide(models[1].manifest, b);
    out->disagree += differ;
    out->disagree_far += differ && fabs(before - point->threshold) >= FAR;
    out->mean_change += fabs(after - before) / (double)out->count;
    note_change(out, image, before, after);
}

bool comparison_make(struct comparison *out, const struct compared models[2], struct error *err) {
    *out = (struct comparison){.count = models[0].evaluation->count};
    for (int i = 0; i < COMPARISON_WORST; i++)
        out->worst[i].image = -1;
    if (!check(models, err))
        return false;
    size_t values = (size_t)out->count * (size_t)models[0].evaluation->classes;
    double *probabilities = malloc(2 * values * sizeof *probabilities);
    bool ok = probabilities || error_set(err, ERROR_MEMORY, "out of memory");
    for (int i = 0; ok && i < 2; i++) {
        calibration_softmax(models[i].evaluation->logits, out->count, models[i].evaluation->classes,
                            models[i].manifest->temperature, probabilities + (size_t)i * values);
        ok = measure(&models[i], probabilities + (size_t)i * values, i, out, err);
    }
    for (int64_t k = 0; ok && k < out->count; k++) {
        const double *row = probabilities + k * models[0].evaluation->classes;
        compare_row(out, models, k, row, row + values);
    }
    out->agreement = 1 - (double)out->disagree / (double)out->count;
    free(probabilities);
    return ok;
}

/* --- printing --- */

static void print_line(FILE *to, const char *name, const double values[2]) {
    if (isfinite(values[0]) && isfinite(values[1]))
        fprintf(to, "%-22s %10.5f %10.5f %+10.5f\n", name, values[0], values[1], values[1] - values[0]);
}

static void print_text(const struct comparison *c, const struct compared models[2], const char *part, FILE *to) {
    fprintf(to, "%lld pictures, %s\n%-22s %10s %10s %10s\n", (long long)c->count, part, "", models[0].manifest->precision,
            models[1].manifest->precision, "change");
    print_line(to, "accuracy", c->accuracy);
    print_line(to, "auc", c->area);
    print_line(to, "log loss", c->log_loss);
    fprintf(to, "%-22s %10.5f  (%lld of %lld decisions differ, %lld of them not near the threshold)\n", "agreement",
            c->agreement, (long long)c->disagree, (long long)c->count, (long long)c->disagree_far);
    fprintf(to, "largest changes of the probability of %s (mean %.5f):\n", models[0].manifest->operating_points[0].class_name,
            c->mean_change);
    for (int i = 0; i < COMPARISON_WORST && c->worst[i].image >= 0; i++)
        fprintf(to, "  picture %-8lld %10.5f %10.5f %+10.5f\n", (long long)c->worst[i].image, c->worst[i].before,
                c->worst[i].after, c->worst[i].after - c->worst[i].before);
    fputs(REPORT_NOTICE "\n", to);
}

/** [before, after], undefined figures as null. */
static json_t *pair_of(const double values[2]) {
    json_t *list = json_array();
    for (int i = 0; i < 2; i++)
        json_array_append_new(list, isfinite(values[i]) ? json_real(values[i]) : json_null());
    return list;
}

static json_t *worst_of(const struct comparison *c) {
    json_t *list = json_array();
    for (int i = 0; i < COMPARISON_WORST && c->worst[i].image >= 0; i++)
        json_array_append_new(list, json_pack("{s:I, s:f, s:f}", "picture", (json_int_t)c->worst[i].image, "before",
                                              c->worst[i].before, "after", c->worst[i].after));
    return list;
}

bool comparison_print(const struct comparison *comparison, const struct compared models[2], const char *part, bool json,
                      FILE *to, struct error *err) {
    if (!json) {
        print_text(comparison, models, part, to);
        return true;
    }
    json_t *root =
        json_pack("{s:s, s:I, s:[s, s], s:o, s:o, s:o, s:f, s:I, s:I, s:f, s:o, s:s}", "part", part, "pictures",
                  (json_int_t)comparison->count, "precisions", models[0].manifest->precision, models[1].manifest->precision,
                  "accuracy", pair_of(comparison->accuracy), "auc", pair_of(comparison->area), "log_loss",
                  pair_of(comparison->log_loss), "agreement", comparison->agreement, "decisions_that_differ",
                  (json_int_t)comparison->disagree, "of_them_not_near_the_threshold", (json_int_t)comparison->disagree_far,
                  "mean_change", comparison->mean_change, "largest_changes", worst_of(comparison), "notice", REPORT_NOTICE);
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    if (!text)
        return error_set(err, ERROR_MEMORY, "out of memory");
    fprintf(to, "%s\n", text);
    free(text);
    return true;
}
