#include "trainerd/export.h"

#include "common/graph/plan.h"
#include "common/image/phantom.h"
#include "common/image/preprocess.h"
#include "common/metrics/confusion.h"
#include "common/metrics/operating_point.h"
#include "common/metrics/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GOLDEN_EACH = 2, GOLDEN_COUNT = GOLDEN_EACH * PHANTOM_KINDS, GOLDEN_SIDE = 256, GOLDEN_SEED = 0x601d };

int export_class(const char *const *names, int count, const char *name) {
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0)
            return i;
    }
    return -1;
}

/** What is said of each class, and the mean of the areas. */
static void take_classes(const struct report *report, struct evaluation_figures *out) {
    double sum = 0;
    int classes = report->spec.predictions.classes;
    for (int i = 0; i < classes; i++) {
        out->recall[i] = report->summary.by_class[i].recall;
        out->area[i] = report->class_curves[i].points ? report->class_curves[i].area : NAN;
        sum += out->area[i];
    }
    out->mean_area = sum / classes;
}

bool export_figures(const struct evaluation *evaluation, int positive, int negative,
                    struct evaluation_figures *out, struct error *err) {
    *out = (struct evaluation_figures){.pair_area = NAN, .mean_area = NAN};
    double *probabilities = malloc((size_t)evaluation->count * (size_t)evaluation->classes * sizeof *probabilities);
    if (!probabilities)
        return error_set(err, ERROR_MEMORY, "evaluation: out of memory");
    static const char *const unnamed[METRICS_MAX_CLASSES] = {"0", "1", "2", "3", "4", "5", "6", "7",
                                                             "8", "9", "10", "11", "12", "13", "14", "15"};
    struct report report = {0};
    bool ok = calibration_fit_temperature(evaluation->logits, evaluation->labels, evaluation->count, evaluation->classes,
                                          &out->temperature, err);
    if (ok) {
        struct report_spec spec = {.title = "", .part = "", .class_names = unnamed, .bootstrap_rounds = 1,
                                   .predictions = evaluation_predictions(evaluation, out->temperature, probabilities),
                                   .positive_class = negative < 0 ? -1 : positive,
                                   .negative_class = positive < 0 ? -1 : negative};
        ok = report_init(&report, &spec, err);
    }
    if (ok) {
        out->accuracy = report.summary.accuracy;
        out->balanced_accuracy = report.summary.balanced_accuracy;
        out->macro_f1 = report.summary.macro.f1;
        out->log_loss = report.log_loss;
        out->calibration_error = report.calibration_error;
        out->pair_area = report.pair_curve.points ? report.pair_curve.area : NAN;
        take_classes(&report, out);
    }
    report_fini(&report);
    free(probabilities);
    return ok;
}

double export_selection(const struct evaluation_figures *figures, enum trainer_metric metric) {
    const double by_metric[] = {
        [TRAINER_METRIC_AUC] = figures->pair_area,
        [TRAINER_METRIC_BALANCED_ACCURACY] = figures->balanced_accuracy,
        [TRAINER_METRIC_ACCURACY] = figures->accuracy,
        [TRAINER_METRIC_MACRO_F1] = figures->macro_f1,
        [TRAINER_METRIC_LOSS] = -figures->log_loss,
    };
    return by_metric[metric];
}

/** The curve of the point's class, by its own probability as inferd compares it, over all samples but those of `left_out`. */
static bool probability_curve(const struct predictions *predictions, int positive, int left_out,
                              struct roc *roc, struct error *err) {
    double *scores = malloc((size_t)predictions->count * sizeof *scores);
    bool *truth = malloc((size_t)predictions->count * sizeof *truth);
    bool ok = (scores && truth) || error_set(err, ERROR_MEMORY, "evaluation: out of memory");
    int64_t count = 0;
    for (int64_t i = 0; ok && i < predictions->count; i++) {
        if (predictions->labels[i] == left_out)
            continue;
        scores[count] = predictions->probabilities[i * predictions->classes + positive];
        truth[count++] = predictions->labels[i] == positive;
    }
    ok = ok && roc_init(roc, scores, truth, count, err);
    free(scores);
    free(truth);
    return ok;
}

static bool fit_point(const struct export_spec *spec, const struct predictions *predictions, struct manifest_operating_point *out,
                      struct error *err) {
    int classes = spec->evaluation->classes;
    int positive = export_class(spec->class_names, classes, spec->point.class_name);
    if (positive < 0)
        return error_set(err, ERROR_INVALID, "publish.operating_point.class: the data has no class \"%.60s\"",
                         spec->point.class_name);
    struct roc roc;
    struct operating_point point;
    if (!probability_curve(predictions, positive, export_class(spec->class_names, classes, "INVALID"), &roc, err))
        return false;
    bool ok = true;
    if (spec->point.rule == TRAINER_RULE_YOUDEN)
        operating_point_youden(&roc, &point);
    else
        ok = operating_point_for_sensitivity(&roc, spec->point.target, &point, err);
    roc_fini(&roc);
    if (ok)
        *out = (struct manifest_operating_point){spec->point.name, spec->point.class_name,
                                                 fmin(fmax(point.threshold, 0), 1), /* "nothing is positive" is infinity */
                                                 point.sensitivity, point.specificity};
    return ok;
}

static bool draw_golden(const struct recipe *recipe, uint8_t *greys, struct error *err) {
    for (int i = 0; i < GOLDEN_COUNT; i++) {
        struct image image;
        if (!phantom_draw((enum phantom_kind)(i / GOLDEN_EACH), GOLDEN_SEED + 16 * (uint64_t)i, GOLDEN_SIDE,
                          GOLDEN_SIDE, &image, err))
            return false;
        bool ok = preprocess_pixels(recipe, &image, greys + (size_t)i * recipe_pixels(recipe), err);
        image_fini(&image);
        if (!ok)
            return false;
    }
    return true;
}

/** What the weights make of the golden pictures: (GOLDEN_COUNT, classes). */
static bool answer_golden(const struct export_spec *spec, const uint8_t *greys, double temperature,
                          float *out, struct error *err) {
    size_t values = recipe_values(spec->recipe);
    int classes = spec->evaluation->classes;
    float *images = malloc(GOLDEN_COUNT * values * sizeof *images);
    double probabilities[GOLDEN_COUNT * METRICS_MAX_CLASSES];
    struct plan_spec plan_spec = {.graph = spec->graph, .parameters = spec->parameters, .device = spec->device,
                                  .mode = PLAN_INFER, .batch = GOLDEN_COUNT,
                                  .precision = spec->precision == PRECISION_INT8 ? PRECISION_F32 : spec->precision};
    struct plan *plan = images ? plan_create(&plan_spec, err) : NULL;
    if (!images)
        error_set(err, ERROR_MEMORY, "golden images: out of memory");
    for (int i = 0; plan && i < GOLDEN_COUNT; i++)
        preprocess_normalise(spec->recipe, greys + (size_t)i * recipe_pixels(spec->recipe), images + (size_t)i * values);
    bool ok = plan && plan_set_images(plan, images, err) && plan_run(plan, err) && plan_read_logits(plan, out, err);
    if (ok) {
        calibration_softmax(out, GOLDEN_COUNT, classes, temperature, probabilities);
        for (int i = 0; i < GOLDEN_COUNT * classes; i++)
            out[i] = (float)probabilities[i];
    }
    plan_destroy(plan);
    free(images);
    return ok;
}

/** What was fitted and answered for a model file. */
struct fitted {
    struct evaluation_figures figures;
    struct manifest_operating_point point;
    uint8_t *greys; /* the golden pictures */
    float answers[GOLDEN_COUNT * METRICS_MAX_CLASSES];
};

/* One row a figure that manifests carry. */
static const struct {
    const char *name;
    size_t offset;
    bool by_class; /* one a class, with the class after a dot */
} MEASURES[] = {
    {"accuracy", offsetof(struct evaluation_figures, accuracy), false},
    {"balanced_accuracy", offsetof(struct evaluation_figures, balanced_accuracy), false},
    {"macro_f1", offsetof(struct evaluation_figures, macro_f1), false},
    {"log_loss", offsetof(struct evaluation_figures, log_loss), false},
    {"calibration_error", offsetof(struct evaluation_figures, calibration_error), false},
    {"auc", offsetof(struct evaluation_figures, pair_area), false},
    {"recall", offsetof(struct evaluation_figures, recall), true},
    {"auc", offsetof(struct evaluation_figures, area), true},
};
const char export_measured[] = "accuracy, balanced_accuracy, macro_f1, log_loss, calibration_error, auc, recall.CLASS, auc.CLASS";
static const char measured_split[] = "validation";

enum { MEASURE_COUNT = sizeof MEASURES / sizeof *MEASURES, MEASURE_NAME_SIZE = 128 };

bool export_measures(const char *metric, const char *split, const char **class_name) {
    const char *dot = strchr(metric, '.');
    size_t length = dot ? (size_t)(dot - metric) : strlen(metric);
    *class_name = dot ? dot + 1 : "";
    for (int i = 0; i < MEASURE_COUNT && strcmp(split, measured_split) == 0; i++) {
        if (MEASURES[i].by_class == (dot != NULL) && strlen(MEASURES[i].name) == length &&
            strncmp(MEASURES[i].name, metric, length) == 0)
            return true;
    }
    return false;
}

/** What a manifest says of the validation part. */
struct measured {
    int count;
    struct manifest_metric metrics[MEASURE_COUNT * METRICS_MAX_CLASSES];
    char names[MEASURE_COUNT * METRICS_MAX_CLASSES][MEASURE_NAME_SIZE];
};

/** Figures that cannot be given, e.g. of a class that has no samples, are left out. */
static void list_metrics(const struct export_spec *spec, const struct evaluation_figures *figures, struct measured *out) {
    out->count = 0;
    for (int i = 0; i < MEASURE_COUNT; i++) {
        const double *values = (const double *)((const char *)figures + MEASURES[i].offset);
        for (int k = 0; k < (MEASURES[i].by_class ? spec->evaluation->classes : 1); k++) {
            char *name = out->names[out->count];
            snprintf(name, MEASURE_NAME_SIZE, "%s%s%.100s", MEASURES[i].name, MEASURES[i].by_class ? "." : "",
                     MEASURES[i].by_class ? spec->class_names[k] : "");
            if (isfinite(values[k]))
                out->metrics[out->count++] = (struct manifest_metric){name, spec->data_name, measured_split, values[k]};
        }
    }
}

/** The quantisation as manifests have it; owned, NULL: out of memory. */
static struct manifest_quantised *list_quantised(const struct quantisation *table, int *count, struct error *err) {
    *count = table ? table->count : 0;
    struct manifest_quantised *rows = calloc((size_t)*count + 1, sizeof *rows);
    if (!rows)
        error_set(err, ERROR_MEMORY, "model file: out of memory");
    for (int i = 0; rows && i < *count; i++) {
        const struct quantisation_row *from = &table->rows[i];
        rows[i] = (struct manifest_quantised){from->node, from->int8 ? "int8" : "f32", dtype_name(from->dtype),
                                              (double)from->scale};
    }
    return rows;
}

/** Puts the manifest around it, and writes. */
static bool save(const char *path, const struct export_spec *spec, struct fitted *fitted, struct error *err) {
    const struct evaluation_figures *figures = &fitted->figures;
    char recipe[RECIPE_JSON_SIZE];
    if (!recipe_print(spec->recipe, recipe, sizeof recipe, err))
        return false;
    struct measured measured;
    list_metrics(spec, figures, &measured);
    int classes = spec->evaluation->classes;
    struct manifest manifest = manifest_empty();
    manifest.format = spec->precision == PRECISION_F32 ? 1 : MANIFEST_FORMAT;
    manifest.precision = precision_name(spec->precision);
    if (!(manifest.quantised = list_quantised(spec->quantisation, &manifest.quantised_count, err)))
        return false;
    manifest.name = spec->name;
    manifest.version = spec->version;
    manifest.architecture = (struct manifest_architecture){spec->model->architecture,
                                                           spec->model->stem ? spec->model->stem : "7x7",
                                                           spec->model->input_channels, spec->model->size};
    manifest.class_count = classes;
    manifest.classes = (const char **)spec->class_names;
    manifest.preprocessing = recipe;
    manifest.temperature = figures->temperature;
    manifest.operating_point_count = 1;
    manifest.operating_points = &fitted->point;
    manifest.metric_count = measured.count;
    manifest.metrics = measured.metrics;
    manifest.intended_use = spec->intended_use;
    manifest.data_digest = spec->data_digest;
    manifest.training = spec->training;
    struct safetensors_tensor extras[] = {
        {.name = "golden.images",
         .dtype = DTYPE_U8,
         .data = fitted->greys,
         .shape = shape_of(4, (int64_t)GOLDEN_COUNT, (int64_t)1, (int64_t)spec->recipe->height,
                           (int64_t)spec->recipe->width)},
        {.name = "golden.probabilities",
         .dtype = DTYPE_F32,
         .data = fitted->answers,
         .shape = shape_of(2, (int64_t)GOLDEN_COUNT, (int64_t)classes)},
    };
    struct model_content content = {.graph = spec->graph, .parameters = spec->parameters, .manifest = &manifest,
                                    .extras = extras, .extra_count = 2};
    bool ok = model_file_save(path, &content, err);
    free(manifest.quantised);
    return ok;
}

bool export_model(const char *path, const struct export_spec *spec, struct error *err) {
    const struct evaluation *evaluation = spec->evaluation;
    int classes = evaluation->classes;
    int positive = export_class(spec->class_names, classes, "PNEUMONIA"),
        negative = export_class(spec->class_names, classes, "NORMAL");
    struct fitted fitted = {.greys = malloc(GOLDEN_COUNT * recipe_pixels(spec->recipe))};
    double *probabilities = malloc((size_t)evaluation->count * (size_t)classes * sizeof *probabilities);
    bool ok = (fitted.greys && probabilities) || error_set(err, ERROR_MEMORY, "model file: out of memory");
    ok = ok && export_figures(evaluation, positive, negative, &fitted.figures, err);
    if (ok) {
        double temperature = fitted.figures.temperature;
        struct predictions predictions = evaluation_predictions(evaluation, temperature, probabilities);
        ok = fit_point(spec, &predictions, &fitted.point, err) && draw_golden(spec->recipe, fitted.greys, err) &&
             answer_golden(spec, fitted.greys, temperature, fitted.answers, err) && save(path, spec, &fitted, err);
    }
    free(probabilities);
    free(fitted.greys);
    return ok;
}
