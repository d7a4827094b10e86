#include "common/metrics/confusion.h"
#include "tests/unit/metrics/samples.h"
#include "tests/unit/metrics/test.h"

static struct confusion count_samples(void) {
    static struct samples samples;
    struct predictions predictions = samples_draw(&samples);
    struct confusion confusion;
    assert_true(confusion_init(&confusion, SAMPLE_CLASSES, NULL));
    for (int i = 0; i < SAMPLES; i++)
        assert_true(confusion_add(&confusion, samples.labels[i], predictions_best(&predictions, i), NULL));
    return confusion;
}

/* Expected values of this file: expected.py (scikit-learn), unless worked out beside the test. */

static void counts_truth_by_row(void **state) {
    (void)state;
    static const int64_t expected[3][3] = {{52, 9, 4}, {10, 49, 11}, {7, 15, 43}};
    struct confusion confusion = count_samples();
    for (int truth = 0; truth < 3; truth++)
        for (int answer = 0; answer < 3; answer++)
            assert_int_equal(confusion.counts[truth][answer], expected[truth][answer]);
}

static void scores_each_class(void **state) {
    (void)state;
    static const double expected[3][3] = {{0.753623188, 0.800000000, 0.776119403},
                                          {0.671232877, 0.700000000, 0.685314685},
                                          {0.741379310, 0.661538462, 0.699186992}};
    struct confusion confusion = count_samples();
    struct confusion_summary summary = confusion_summarise(&confusion);
    for (int i = 0; i < 3; i++) {
        assert_near(summary.by_class[i].precision, expected[i][0], 1e-9);
        assert_near(summary.by_class[i].recall, expected[i][1], 1e-9);
        assert_near(summary.by_class[i].f1, expected[i][2], 1e-9);
    }
}

static void means_weigh_classes_equally_or_by_support(void **state) {
    (void)state;
    struct confusion confusion = count_samples();
    struct confusion_summary summary = confusion_summarise(&confusion);
    assert_near(summary.macro.precision, 0.722078458, 1e-9);
    assert_near(summary.macro.recall, 0.720512821, 1e-9);
    assert_near(summary.macro.f1, 0.720207027, 1e-9);
    assert_near(summary.weighted.precision, 0.720807319, 1e-9);
    assert_near(summary.weighted.f1, 0.719334718, 1e-9);
    assert_near(summary.accuracy, 0.72, 1e-9);
    assert_near(summary.balanced_accuracy, 0.720512821, 1e-9);
    assert_int_equal(summary.macro.support, 200);
}

static void class_that_is_never_answered_scores_zero(void **state) {
    (void)state;
    struct confusion confusion;
    assert_true(confusion_init(&confusion, 2, NULL));
    assert_true(confusion_add(&confusion, 0, 0, NULL) && confusion_add(&confusion, 1, 0, NULL));
    struct confusion_summary summary = confusion_summarise(&confusion);
    assert_near(summary.by_class[1].precision, 0.0, 0.0);
    assert_near(summary.by_class[1].f1, 0.0, 0.0);
    assert_near(summary.by_class[0].f1, 2.0 / 3.0, 1e-12); /* precision 1/2, recall 1 */
}

static void absent_class_does_not_lower_the_means(void **state) {
    (void)state;
    struct confusion confusion;
    assert_true(confusion_init(&confusion, 3, NULL));
    assert_true(confusion_add(&confusion, 0, 0, NULL) && confusion_add(&confusion, 1, 1, NULL));
    assert_near(confusion_summarise(&confusion).balanced_accuracy, 1.0, 1e-12);
}

static void merged_ranks_count_as_one(void **state) {
    (void)state;
    struct confusion whole = count_samples(), twice = whole;
    confusion_merge(&twice, &whole);
    assert_int_equal(twice.counts[2][1], 2 * whole.counts[2][1]);
    assert_near(confusion_summarise(&twice).accuracy, 0.72, 1e-12);
}

static void label_out_of_range_is_refused(void **state) {
    (void)state;
    struct confusion confusion;
    struct error err = {0};
    assert_false(confusion_init(&confusion, METRICS_MAX_CLASSES + 1, &err));
    assert_true(confusion_init(&confusion, 2, NULL));
    assert_false(confusion_add(&confusion, 0, 2, &err));
    assert_false(confusion_add(&confusion, -1, 0, &err));
    assert_int_equal(err.code, ERROR_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_truth_by_row),
        cmocka_unit_test(scores_each_class),
        cmocka_unit_test(means_weigh_classes_equally_or_by_support),
        cmocka_unit_test(class_that_is_never_answered_scores_zero),
        cmocka_unit_test(absent_class_does_not_lower_the_means),
        cmocka_unit_test(merged_ranks_count_as_one),
        cmocka_unit_test(label_out_of_range_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
