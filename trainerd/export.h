#pragma once
#include "common/image/recipe.h"
#include "common/weights/model_network.h"
#include "common/metrics/confusion.h"
#include "trainerd/config.h"
#include "trainerd/evaluate.h"

/** What becomes a model: weights, how they were checked, and what is to be said of them. Borrows everything. */
struct export_spec {
    const char *name, *version;
    const struct model_spec *model;
    const struct graph *graph;           /**< as it was trained, or quantised */
    const struct parameters *parameters; /**< of that graph */
    enum precision precision; /**< in which the evaluation was done and the model answers; INT8: the graph is quantised */
    const struct quantisation *quantisation; /**< INT8: the graph's; else NULL */
    struct device *device;
    const struct recipe *recipe;
    const char *const *class_names;      /**< (classes) */
    const struct evaluation *evaluation; /**< of the validation part: temperature, thresholds and metrics come from it */
    const char *data_name;               /**< of the data set, for the metrics: never a path */
    struct trainer_operating_point_config point; /**< to fit: the model's default */
    struct manifest_intended_use intended_use;
    struct manifest_training training;
    const char *data_digest;
};

/** The figures of one evaluation, as selection, logs and manifests use them. */
struct evaluation_figures {
    double temperature;
    double accuracy, balanced_accuracy, macro_f1, log_loss, calibration_error;
    double pair_area;       /**< AUC of PNEUMONIA against NORMAL; NaN where the data has not both */
    double mean_area;       /**< mean of each class's AUC against the rest; NaN where undefined */
    double recall[METRICS_MAX_CLASSES];
    double area[METRICS_MAX_CLASSES]; /**< AUC of each class against the rest; NaN where undefined */
};

/** Fits the temperature and measures. positive and negative: class indices of the pair, -1: none. */
bool export_figures(const struct evaluation *evaluation, int positive, int negative,
                    struct evaluation_figures *out, struct error *err);

/** The figure that configs select by, turned so that more is better; NaN where the data cannot give it. */
double export_selection(const struct evaluation_figures *figures, enum trainer_metric metric);

/**
 * Writes a model file: temperature and operating point fitted on the evaluation (the point on its class
 * against all others but INVALID), its metrics, and golden answers: synthetic phantoms of each kind with the
 * probabilities that the weights give to them here.
 */
bool export_model(const char *path, const struct export_spec *spec, struct error *err);

/** What a model's manifest says of its validation part, for people: the names as gates use them. */
extern const char export_measured[];

/** Whether the models that are written here carry a figure of that name. class_name: out, of whom it is; "": of all. */
bool export_measures(const char *metric, const char *split, const char **class_name);

/** The index of a class name, -1 where it is not among them. */
int export_class(const char *const *names, int count, const char *name);
