/* Two models' answers beside each other. What is expected was worked out by hand from the table of pictures. */
#include "trainerd/trainctl/comparison.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { COUNT = 7, CLASSES = 3, NORMAL = 0, PNEUMONIA = 1, INVALID = 2 };

/* Thresholds of PNEUMONIA are .5 before and .4 after; INVALID is what is most probably no chest film. */
static const struct {
    double before[CLASSES], after[CLASSES];
    int32_t label;
} pictures[COUNT] = {
    {{.80, .10, .10}, {.70, .20, .10}, NORMAL},    /* negative, and stays it */
    {{.20, .70, .10}, {.08, .82, .10}, PNEUMONIA}, /* positive, and stays it */
    {{.50, .45, .05}, {.50, .45, .05}, NORMAL},    /* the same answer, but above the other threshold: differs, far from .5 */
    {{.10, .20, .70}, {.10, .20, .70}, INVALID},
    {{.10, .30, .60}, {.10, .60, .30}, INVALID},       /* INVALID, then positive: differs, far */
    {{.445, .505, .05}, {.61, .34, .05}, PNEUMONIA},   /* positive, then negative: differs, but was near the threshold */
    {{.05, .90, .05}, {.05, .90, .05}, NORMAL},
};

/** Both models, what they said, and their temperatures: the second's logits are twice as large, and so is its temperature. */
struct fixture {
    const char *names[CLASSES];
    struct manifest_operating_point points[2];
    struct manifest manifests[2];
    float logits[2][COUNT * CLASSES];
    int32_t labels[2][COUNT], groups[COUNT];
    struct evaluation evaluations[2];
    struct compared models[2];
};

static int setup(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    fixture->names[NORMAL] = "NORMAL";
    fixture->names[PNEUMONIA] = "PNEUMONIA";
    fixture->names[INVALID] = "INVALID";
    for (int which = 0; which < 2; which++) {
        for (int i = 0; i < COUNT; i++) {
            const double *row = which ? pictures[i].after : pictures[i].before;
            for (int k = 0; k < CLASSES; k++)
                fixture->logits[which][i * CLASSES + k] = (float)((which + 1) * log(row[k]));
            fixture->labels[which][i] = pictures[i].label;
            fixture->groups[i] = i;
        }
        fixture->points[which] = (struct manifest_operating_point){"balanced", "PNEUMONIA", which ? .4 : .5, 0, 0};
        fixture->manifests[which] = manifest_empty();
        fixture->manifests[which].precision = which ? "int8" : "f32";
        fixture->manifests[which].class_count = CLASSES;
        fixture->manifests[which].classes = fixture->names;
        fixture->manifests[which].temperature = which + 1;
        fixture->manifests[which].operating_point_count = 1;
        fixture->manifests[which].operating_points = &fixture->points[which];
        fixture->evaluations[which] = (struct evaluation){CLASSES, COUNT, fixture->logits[which], fixture->labels[which],
                                                          fixture->groups};
        fixture->models[which] = (struct compared){&fixture->manifests[which], &fixture->evaluations[which]};
    }
    *state = fixture;
    return 0;
}

static int teardown(void **state) {
    free(*state);
    return 0;
}

static struct comparison compare(const struct fixture *fixture) {
    struct comparison comparison;
    struct error err = {0};
    if (!comparison_make(&comparison, fixture->models, &err))
        fail_msg("%s", err.message);
    return comparison;
}

static void assert_near(double found, double expected) {
    if (!(fabs(found - expected) < 1e-6))
        fail_msg("%.9g, expected %.9g", found, expected);
}

static void decisions_are_those_of_members(void **state) {
    struct comparison comparison = compare(*state);
    assert_int_equal(comparison.count, COUNT);
    assert_int_equal(comparison.disagree, 3);
    assert_int_equal(comparison.disagree_far, 2);
    assert_near(comparison.agreement, 4.0 / 7);
}

/* Accuracy: all but the last are right before; after, the fifth and sixth are wrong too. Area: of the six
 * pairs of a pneumonia and a normal picture, four are in order before and three after. */
static void figures_are_by_each_models_temperature(void **state) {
    struct comparison comparison = compare(*state);
    assert_near(comparison.accuracy[0], 6.0 / 7);
    assert_near(comparison.accuracy[1], 4.0 / 7);
    assert_near(comparison.area[0], 4.0 / 6);
    assert_near(comparison.area[1], 3.0 / 6);
    assert_near(comparison.log_loss[0], -(log(.8) + log(.7) + log(.5) + log(.7) + log(.6) + log(.505) + log(.05)) / 7);
    assert_near(comparison.log_loss[1], -(log(.7) + log(.82) + log(.5) + log(.7) + log(.3) + log(.34) + log(.05)) / 7);
}

static void largest_changes_come_first(void **state) {
    static const int64_t order[COMPARISON_WORST] = {4, 5, 1, 0, 2};
    struct comparison comparison = compare(*state);
    for (int i = 0; i < COMPARISON_WORST; i++) {
        assert_int_equal(comparison.worst[i].image, order[i]);
        assert_near(comparison.worst[i].before, pictures[order[i]].before[PNEUMONIA]);
        assert_near(comparison.worst[i].after, pictures[order[i]].after[PNEUMONIA]);
    }
    assert_near(comparison.mean_change, (.10 + .12 + .30 + .165) / 7);
}

static void few_pictures_leave_places_empty(void **state) {
    struct fixture *fixture = *state;
    fixture->evaluations[0].count = fixture->evaluations[1].count = 2;
    struct comparison comparison = compare(fixture);
    assert_int_equal(comparison.worst[0].image, 1);
    assert_int_equal(comparison.worst[1].image, 0);
    for (int i = 2; i < COMPARISON_WORST; i++)
        assert_int_equal(comparison.worst[i].image, -1);
}

/** What is printed; owned. */
static char *print(const struct fixture *fixture, bool json) {
    struct comparison comparison = compare(fixture);
    struct error err = {0};
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);
    bool ok = comparison_print(&comparison, fixture->models, "phantoms, test part", json, to, &err);
    fclose(to);
    if (!ok)
        fail_msg("%s", err.message);
    return text;
}

static double number_at(const json_t *root, const char *list, size_t index) {
    return json_number_value(json_array_get(json_object_get(root, list), index));
}

static void json_says_what_the_table_says(void **state) {
    char *json = print(*state, true), *text = print(*state, false);
    json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    assert_int_equal(json_integer_value(json_object_get(root, "decisions_that_differ")), 3);
    assert_int_equal(json_integer_value(json_object_get(root, "of_them_not_near_the_threshold")), 2);
    assert_near(json_number_value(json_object_get(root, "agreement")), 4.0 / 7);
    assert_near(number_at(root, "auc", 0), 4.0 / 6);
    assert_near(number_at(root, "accuracy", 1), 4.0 / 7);
    const json_t *worst = json_array_get(json_object_get(root, "largest_changes"), 0);
    assert_int_equal(json_integer_value(json_object_get(worst, "picture")), 4);
    assert_string_equal(json_string_value(json_array_get(json_object_get(root, "precisions"), 1)), "int8");
    assert_non_null(strstr(text, "0.57143  (3 of 7 decisions differ, 2 of them not near the threshold)"));
    assert_non_null(strstr(text, "auc                       0.66667    0.50000   -0.16667"));
    json_decref(root);
    free(json);
    free(text);
}

/* Without NORMAL and PNEUMONIA there is no area: it is undefined, not 0, and JSON has no NaN. */
static void an_area_that_is_undefined_is_not_printed(void **state) {
    struct fixture *fixture = *state;
    fixture->names[PNEUMONIA] = fixture->points[0].class_name = fixture->points[1].class_name = "EFFUSION";
    struct comparison comparison = compare(fixture);
    assert_true(isnan(comparison.area[0]) && isnan(comparison.area[1]));
    assert_int_equal(comparison.disagree, 3);
    char *json = print(fixture, true), *text = print(fixture, false);
    json_t *root = json_loads(json, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(root, "auc")), 2);
    assert_true(json_is_null(json_array_get(json_object_get(root, "auc"), 0)));
    assert_null(strstr(text, "auc"));
    json_decref(root);
    free(json);
    free(text);
}

static void assert_refused(const struct fixture *fixture, const char *word) {
    struct comparison comparison;
    struct error err = {0};
    assert_false(comparison_make(&comparison, fixture->models, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    if (!strstr(err.message, word))
        fail_msg("\"%s\" does not say \"%s\"", err.message, word);
}

static void models_of_another_question_are_refused(void **state) {
    struct fixture *fixture = *state;
    const char *others[CLASSES] = {"NORMAL", "INVALID", "PNEUMONIA"};
    fixture->manifests[1].classes = others; /* the same classes in another order are others */
    assert_refused(fixture, "classes differ");
    fixture->manifests[1].classes = fixture->names;
    fixture->manifests[1].class_count = 2;
    assert_refused(fixture, "classes differ");
    fixture->manifests[1].class_count = CLASSES;
    fixture->evaluations[1].count--;
    assert_refused(fixture, "same pictures");
    fixture->evaluations[1].count++;
    fixture->labels[1][3] = NORMAL;
    assert_refused(fixture, "same pictures");
    fixture->labels[1][3] = INVALID;
    fixture->evaluations[0].count = fixture->evaluations[1].count = 0;
    assert_refused(fixture, "same pictures");
    fixture->evaluations[0].count = fixture->evaluations[1].count = COUNT;
    fixture->manifests[1].operating_point_count = 0;
    assert_refused(fixture, "operating point");
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH(decisions_are_those_of_members),
        WITH(figures_are_by_each_models_temperature),
        WITH(largest_changes_come_first),
        WITH(few_pictures_leave_places_empty),
        WITH(json_says_what_the_table_says),
        WITH(an_area_that_is_undefined_is_not_printed),
        WITH(models_of_another_question_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
