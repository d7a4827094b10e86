/* What is fitted for a model and written with it. */
#include "trainerd/export.h"
#include "common/graph/plan.h"
#include "common/image/preprocess.h"
#include "tests/unit/graph/network.h"
#include "tests/unit/trainerd/folder.h"

#include <math.h>

enum { GROUPS = 3, EACH = 10, COUNT = GROUPS * EACH, CLASSES = 3 };
static const char *const class_names[CLASSES] = {"NORMAL", "PNEUMONIA", "INVALID"};

/** Three groups of ten images each. */
struct answers {
    float logits[COUNT * CLASSES];
    int32_t labels[COUNT], groups[COUNT];
    struct evaluation evaluation;
};

/*
 * The network says p = (.7, .2, .1), turned by one class per group, and is right as often as it says:
 * cross-entropy is then least where the softmax gives p itself. The logits are twice log p, so that the
 * temperature must be 2.
 */
static void make_answers(struct answers *answers) {
    static const double p[CLASSES] = {0.7, 0.2, 0.1};
    for (int i = 0; i < COUNT; i++) {
        int group = i / EACH, in_group = i % EACH;
        for (int k = 0; k < CLASSES; k++)
            answers->logits[i * CLASSES + (group + k) % CLASSES] = (float)(2 * log(p[k]));
        answers->labels[i] = (group + (in_group < 7 ? 0 : in_group < 9 ? 1 : 2)) % CLASSES;
        answers->groups[i] = i;
    }
    answers->evaluation = (struct evaluation){CLASSES, COUNT, answers->logits, answers->labels, answers->groups};
}

static void the_temperature_is_the_one_that_calibrates(void **state) {
    (void)state;
    struct answers answers;
    struct evaluation_figures figures;
    make_answers(&answers);
    assert_true(export_figures(&answers.evaluation, 1, 0, &figures, NULL));
    assert_true(fabs(figures.temperature - 2) < 1e-3);
    assert_true(fabs(figures.accuracy - 0.7) < 1e-12);
    assert_true(fabs(figures.balanced_accuracy - 0.7) < 1e-12);
    double entropy = -(0.7 * log(0.7) + 0.2 * log(0.2) + 0.1 * log(0.1));
    assert_true(fabs(figures.log_loss - entropy) < 1e-4);
    for (int i = 0; i < CLASSES; i++)
        assert_true(fabs(figures.recall[i] - 0.7) < 1e-12);
}

static void selection_takes_the_figure_that_is_asked_for(void **state) {
    (void)state;
    const struct evaluation_figures figures = {
        .pair_area = 1, .balanced_accuracy = 2, .accuracy = 3, .macro_f1 = 4, .log_loss = 5};
    assert_true(export_selection(&figures, TRAINER_METRIC_AUC) == 1);
    assert_true(export_selection(&figures, TRAINER_METRIC_BALANCED_ACCURACY) == 2);
    assert_true(export_selection(&figures, TRAINER_METRIC_ACCURACY) == 3);
    assert_true(export_selection(&figures, TRAINER_METRIC_MACRO_F1) == 4);
    assert_true(export_selection(&figures, TRAINER_METRIC_LOSS) == -5);
}

static void classes_are_found_by_name(void **state) {
    (void)state;
    assert_int_equal(export_class(class_names, CLASSES, "PNEUMONIA"), 1);
    assert_int_equal(export_class(class_names, CLASSES, "OTHER"), -1);
}

static const struct model_spec model = {
    .architecture = "resnet18", .stem = "7x7", .input_channels = 1, .size = 28, .classes = CLASSES};

/** Exports the answers with a fresh network on the reference device. */
static bool export_to(const char *path, const char *point_class, struct error *err) {
    struct answers answers;
    make_answers(&answers);
    struct device *device = network_device();
    struct graph *graph = model_build(&model, err);
    assert_non_null(graph);
    struct parameters *parameters = network_parameters(graph, 6);
    struct recipe recipe = recipe_default(28, 28, 1);
    struct export_spec spec = {.name = "chest", .version = "e1", .model = &model, .graph = graph, .parameters = parameters,
                               .device = device, .recipe = &recipe, .class_names = class_names, .evaluation = &answers.evaluation,
                               .data_name = "phantoms", .point = {"balanced", point_class, TRAINER_RULE_YOUDEN, 0},
                               .intended_use = {0, 150, 0, NULL, ""}, .training = {"", "run", "0", "", 1, 1}, .data_digest = ""};
    bool ok = export_model(path, &spec, err);
    parameters_destroy(parameters);
    graph_destroy(graph);
    device_close(device);
    return ok;
}

static void open_model(const char *path, struct model_file *file) {
    struct error err = {0};
    if (!export_to(path, "PNEUMONIA", &err) || !model_file_open(path, file, &err))
        fail_msg("%s", err.message);
}

/* Of NORMAL and PNEUMONIA images only, the best threshold parts the group that says PNEUMONIA with .7 from
 * those with .2 and .1. */
static void the_point_is_fitted_without_invalid_images(void **state) {
    struct model_file file;
    open_model(folder_path(*state, "m.safetensors"), &file);
    const struct manifest_operating_point *point = manifest_operating_point(&file.manifest, NULL);
    assert_non_null(point);
    assert_string_equal(point->name, "balanced");
    assert_string_equal(point->class_name, "PNEUMONIA");
    struct answers answers;
    make_answers(&answers);
    int positives = 0, negatives = 0, hits = 0, rejections = 0;
    for (int i = 0; i < COUNT; i++) {
        bool called = i / EACH == 1; /* the group that says PNEUMONIA with .7 */
        positives += answers.labels[i] == 1;
        negatives += answers.labels[i] == 0;
        hits += answers.labels[i] == 1 && called;
        rejections += answers.labels[i] == 0 && !called;
    }
    assert_true(point->threshold > 0.2 && point->threshold <= 0.7 + 1e-3);
    assert_true(fabs(point->sensitivity - (double)hits / positives) < 1e-12);
    assert_true(fabs(point->specificity - (double)rejections / negatives) < 1e-12);
    model_file_close(&file);
}

/** Answers the file's golden pictures with the file's weights; (count, CLASSES). */
static void answer_golden(const struct model_file *file, const struct tensor *images, double *out) {
    struct error err = {0};
    struct model_spec spec = model_file_spec(file);
    struct graph *graph = model_build(&spec, &err);
    struct parameters *parameters = parameters_create(graph, &err);
    struct recipe recipe;
    assert_true(model_file_load(file, graph, parameters, &err));
    assert_true(recipe_parse(file->manifest.preprocessing, strlen(file->manifest.preprocessing), &recipe, &err));
    struct device *device = network_device();
    struct plan_spec plan_spec = {.graph = graph, .parameters = parameters, .device = device, .batch = 1};
    struct plan *plan = network_plan(&plan_spec);
    float *input = malloc(recipe_values(&recipe) * sizeof *input), logits[CLASSES];
    for (int64_t i = 0; i < images->shape.dims[0]; i++) {
        preprocess_normalise(&recipe, (const uint8_t *)images->data + (size_t)i * recipe_pixels(&recipe), input);
        assert_true(plan_set_images(plan, input, &err) && plan_run(plan, &err) && plan_read_logits(plan, logits, &err));
        calibration_softmax(logits, 1, CLASSES, file->manifest.temperature, out + i * CLASSES);
    }
    free(input);
    plan_destroy(plan);
    device_close(device);
    parameters_destroy(parameters);
    graph_destroy(graph);
}

static void golden_answers_reproduce(void **state) {
    struct model_file file;
    struct tensor images, answers;
    open_model(folder_path(*state, "m.safetensors"), &file);
    assert_true(fabs(file.manifest.temperature - 2) < 1e-3);
    assert_true(model_file_extra(&file, "golden.images", DTYPE_U8, 4, &images, NULL));
    assert_true(model_file_extra(&file, "golden.probabilities", DTYPE_F32, 2, &answers, NULL));
    assert_int_equal(images.shape.dims[0], answers.shape.dims[0]);
    assert_true(images.shape.dims[0] >= 3);
    double *again = calloc((size_t)shape_count(&answers.shape), sizeof *again);
    answer_golden(&file, &images, again);
    for (int64_t i = 0; i < shape_count(&answers.shape); i++)
        assert_true(fabs(again[i] - ((const float *)answers.data)[i]) < 1e-6);
    free(again);
    tensor_fini(&images);
    tensor_fini(&answers);
    model_file_close(&file);
}

/** The area by its definition: how often a positive's probability is above a negative's, ties half. */
static double area_of(const struct answers *answers, int class) {
    double won = 0, pairs = 0;
    for (int i = 0; i < COUNT; i++) {
        for (int k = 0; k < COUNT; k++) {
            if (answers->labels[i] != class || answers->labels[k] == class)
                continue;
            float positive = answers->logits[i * CLASSES + class], negative = answers->logits[k * CLASSES + class];
            won += positive > negative ? 1 : positive < negative ? 0 : .5;
            pairs++;
        }
    }
    return won / pairs;
}

/** The manifest's figure of that name; fails where there is none. */
static double figure(const struct model_file *file, const char *name) {
    for (int i = 0; i < file->manifest.metric_count; i++) {
        if (strcmp(file->manifest.metrics[i].name, name) == 0)
            return file->manifest.metrics[i].value;
    }
    fail_msg("the manifest says nothing of %s", name);
    return NAN;
}

/* The rows of logits are one softmax, turned: classes are ordered by it as by the probability. */
static void the_manifest_carries_what_gates_may_ask(void **state) {
    struct model_file file;
    struct answers answers;
    make_answers(&answers);
    open_model(folder_path(*state, "m.safetensors"), &file);
    for (int i = 0; i < CLASSES; i++) {
        char name[32];
        snprintf(name, sizeof name, "auc.%s", class_names[i]);
        assert_true(fabs(figure(&file, name) - area_of(&answers, i)) < 1e-9);
    }
    assert_true(fabs(figure(&file, "calibration_error")) < 1e-3); /* it is right as often as it says */
    assert_true(fabs(figure(&file, "recall.INVALID") - .7) < 1e-9);
    for (int i = 0; i < file.manifest.metric_count; i++) {
        const char *class_name;
        assert_true(export_measures(file.manifest.metrics[i].name, file.manifest.metrics[i].split, &class_name));
    }
    model_file_close(&file);
}

static void what_no_model_carries_is_known(void **state) {
    (void)state;
    const char *class_name;
    assert_false(export_measures("brier", "validation", &class_name));
    assert_false(export_measures("auc", "test", &class_name));
    assert_false(export_measures("accuracy.NORMAL", "validation", &class_name));
    assert_false(export_measures("recall", "validation", &class_name));
    assert_true(export_measures("recall.NORMAL", "validation", &class_name));
    assert_string_equal(class_name, "NORMAL");
}

static void a_point_of_no_class_is_refused(void **state) {
    struct error err = {0};
    const char *path = folder_path(*state, "m.safetensors");
    assert_false(export_to(path, "TUBERCULOSIS", &err));
    assert_int_equal(err.code, ERROR_INVALID);
    assert_non_null(strstr(err.message, "TUBERCULOSIS"));
    assert_false(file_exists(path));
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_setup, folder_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_temperature_is_the_one_that_calibrates),
        cmocka_unit_test(selection_takes_the_figure_that_is_asked_for),
        cmocka_unit_test(classes_are_found_by_name),
        IN_FOLDER(the_point_is_fitted_without_invalid_images),
        IN_FOLDER(golden_answers_reproduce),
        IN_FOLDER(the_manifest_carries_what_gates_may_ask),
        cmocka_unit_test(what_no_model_carries_is_known),
        IN_FOLDER(a_point_of_no_class_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
