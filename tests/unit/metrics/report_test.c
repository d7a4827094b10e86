#include "common/metrics/report.h"
#include "common/base/file.h"
#include "common/metrics/plot.h"
#include "tests/unit/metrics/samples.h"
#include "tests/unit/metrics/test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const names[] = {"NORMAL", "PNEUMONIA", "INVALID"};

static struct report_spec spec_of(struct samples *samples) {
    static const double threshold = 0.5;
    return (struct report_spec){.title = "resnet18-small",
                                .part = "validation",
                                .class_names = names,
                                .predictions = samples_draw(samples),
                                .positive_class = 1,
                                .negative_class = 0,
                                .pair_threshold = &threshold,
                                .bootstrap_rounds = 400,
                                .seed = 1};
}

static void make_report(struct report *report) {
    static struct samples samples;
    struct report_spec spec = spec_of(&samples);
    struct error err = {0};
    if (!report_init(report, &spec, &err))
        fail_msg("%s", err.message);
}

/* Expected: expected.py. */
static void areas_match_the_reference(void **state) {
    (void)state;
    struct report report;
    make_report(&report);
    assert_near(report.class_curves[0].area, 0.824615385, 1e-9);
    assert_near(report.class_curves[1].area, 0.768021978, 1e-9);
    assert_near(report.class_curves[2].area, 0.785470085, 1e-9);
    assert_near(report.pair_curve.area, 0.814395604, 1e-9);
    assert_int_equal(report.pair_curve.positives + report.pair_curve.negatives, 135);
    report_fini(&report);
}

/* Each figure lies in its own interval, and the interval of an accuracy of .72 over 200 is about +-.062. */
static void intervals_surround_their_figures(void **state) {
    (void)state;
    struct report report;
    make_report(&report);
    const double figures[REPORT_INTERVALS] = {report.summary.accuracy, report.summary.balanced_accuracy,
                                              report.summary.by_class[1].recall,
                                              report.summary.by_class[0].recall, report.pair_curve.area};
    for (int i = 0; i < REPORT_INTERVALS; i++) {
        assert_true(report.intervals[i].low < figures[i] && figures[i] < report.intervals[i].high);
        assert_true(report.intervals[i].high - report.intervals[i].low < 0.3);
    }
    assert_near(report.intervals[REPORT_ACCURACY].high - report.intervals[REPORT_ACCURACY].low, 0.124, 0.02);
    report_fini(&report);
}

static void text_says_what_it_is_and_shows_the_table(void **state) {
    (void)state;
    struct report report;
    make_report(&report);
    char *text = report_text(&report, NULL);
    assert_non_null(strstr(text, "not a medical device"));
    assert_non_null(strstr(text, "PNEUMONIA     0.6712     0.7000     0.6853         70"));
    assert_non_null(strstr(text, "accuracy                           0.7200        200"));
    assert_non_null(strstr(text, "PNEUMONIA         10         49         11"));
    free(text);
    report_fini(&report);
}

static void json_holds_the_same_figures(void **state) {
    (void)state;
    struct report report;
    make_report(&report);
    char *text = report_json(&report, NULL);
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    double accuracy, area, threshold, low;
    json_int_t count;
    const char *notice;
    assert_int_equal(json_unpack(root, "{s:F, s:s, s:{s:{s:F}}, s:{s:{s:F}}, s:{s:{s:F}}}", "accuracy",
                                 &accuracy, "notice", &notice, "classes", "PNEUMONIA", "auc", &area, "pair",
                                 "operating_point", "threshold", &threshold, "intervals_95", "accuracy",
                                 "low", &low),
                     0);
    assert_int_equal(json_unpack(root, "{s:{s:[[I]]}}", "confusion", "counts", &count), 0);
    assert_near(accuracy, 0.72, 1e-6);
    assert_near(area, 0.768021978, 1e-5);
    assert_near(threshold, 0.5, 1e-6);
    assert_near(low, report.intervals[REPORT_ACCURACY].low, 1e-5);
    assert_int_equal(count, 52);
    assert_string_equal(notice, REPORT_NOTICE);
    json_decref(root);
    free(text);
    report_fini(&report);
}

static void absent_class_becomes_null_not_an_error(void **state) {
    (void)state;
    const double p[6] = {0.7, 0.2, 0.1, 0.6, 0.3, 0.1};
    const int32_t labels[2] = {0, 0};
    struct report_spec spec = {.title = "t",
                               .part = "p",
                               .class_names = names,
                               .positive_class = 1,
                               .negative_class = 0,
                               .predictions = {3, 2, p, labels, NULL},
                               .bootstrap_rounds = 20};
    struct report report;
    assert_true(report_init(&report, &spec, NULL));
    assert_int_equal(report.class_curves[0].count, 0);
    char *text = report_json(&report, NULL);
    assert_non_null(strstr(text, "\"pair\": null"));
    assert_null(strstr(text, "nan"));
    free(text);
    report_fini(&report);
}

static void pair_must_name_two_classes(void **state) {
    (void)state;
    static struct samples samples;
    struct report_spec spec = spec_of(&samples);
    struct report report;
    struct error err = {0};
    spec.negative_class = 1;
    assert_false(report_init(&report, &spec, &err));
    spec.negative_class = 3;
    assert_false(report_init(&report, &spec, &err));
    assert_int_equal(err.code, ERROR_INVALID);
}

static void pictures_are_png_files(void **state) {
    (void)state;
    struct report report;
    make_report(&report);
    char folder[] = "/tmp/thorax-report-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%d.png", folder, i);
        struct error err = {0};
        if (!(i ? plot_roc : plot_confusion)(&report, path, &err))
            fail_msg("%s", err.message);
        struct bytes png;
        assert_true(file_read(path, 1 << 20, &png, NULL));
        assert_true(png.size > 2000 && memcmp(png.data, "\x89PNG\r\n\x1a\n", 8) == 0);
        free(png.data);
    }
    if (!getenv("THORAX_KEEP"))
        assert_true(file_remove_tree(folder, NULL));
    report_fini(&report);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(areas_match_the_reference),
        cmocka_unit_test(intervals_surround_their_figures),
        cmocka_unit_test(text_says_what_it_is_and_shows_the_table),
        cmocka_unit_test(json_holds_the_same_figures),
        cmocka_unit_test(absent_class_becomes_null_not_an_error),
        cmocka_unit_test(pair_must_name_two_classes),
        cmocka_unit_test(pictures_are_png_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
