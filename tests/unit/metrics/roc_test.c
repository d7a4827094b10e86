#include "common/metrics/roc.h"
#include "common/metrics/operating_point.h"
#include "tests/unit/metrics/samples.h"
#include "tests/unit/metrics/test.h"

/* Ten samples whose curve can be drawn by hand: positives at .9 .8 .7 .55 .3, negatives at .6 .55 .4 .2 .1.
 */
static const double hand_scores[10] = {0.9, 0.8, 0.7, 0.55, 0.3, 0.6, 0.55, 0.4, 0.2, 0.1};
static const bool hand_positive[10] = {true, true, true, true, true, false, false, false, false, false};

static struct roc hand_curve(void) {
    struct roc roc;
    assert_true(roc_init(&roc, hand_scores, hand_positive, 10, NULL));
    return roc;
}

static void area_is_the_share_of_pairs_in_order(void **state) {
    (void)state;
    struct roc roc = hand_curve();
    /* Pairs won: 5 + 5 + 5 + (3 and a tie) + 2 = 20.5 of 25. */
    assert_near(roc.area, 20.5 / 25.0, 1e-12);
    assert_int_equal(roc.positives, 5);
    assert_int_equal(roc.negatives, 5);
    roc_fini(&roc);
}

/* Expected: expected.py (scikit-learn's roc_curve and roc_auc_score on integer scores). */
static void ties_make_one_point_and_count_half(void **state) {
    (void)state;
    static struct samples samples;
    samples_draw(&samples);
    double scores[SAMPLES];
    bool positive[SAMPLES];
    for (int i = 0; i < SAMPLES; i++) {
        scores[i] = samples.logits[i * SAMPLE_CLASSES + 1] * 8.0;
        positive[i] = samples.labels[i] == 1;
    }
    struct roc roc;
    assert_true(roc_init(&roc, scores, positive, SAMPLES, NULL));
    assert_near(roc.area, 0.684670330, 1e-9);
    assert_int_equal(roc.count, 33);
    static const double expected[4][3] = {{15, 0.007692308, 0.042857143},
                                          {14, 0.038461538, 0.142857143},
                                          {13, 0.069230769, 0.185714286},
                                          {12, 0.084615385, 0.257142857}};
    for (int i = 0; i < 4; i++) {
        assert_near(roc.points[i + 1].threshold, expected[i][0], 0.0);
        assert_near(roc.points[i + 1].false_positive_rate, expected[i][1], 1e-9);
        assert_near(roc.points[i + 1].true_positive_rate, expected[i][2], 1e-9);
    }
    roc_fini(&roc);
}

static void all_scores_equal_is_a_coin_toss(void **state) {
    (void)state;
    const double scores[4] = {0.5, 0.5, 0.5, 0.5};
    const bool positive[4] = {true, false, false, true};
    struct roc roc;
    assert_true(roc_init(&roc, scores, positive, 4, NULL));
    assert_near(roc.area, 0.5, 1e-12);
    assert_int_equal(roc.count, 2);
    roc_fini(&roc);
}

static void one_sided_samples_and_nan_are_errors(void **state) {
    (void)state;
    const double scores[2] = {0.1, NAN};
    const bool all[2] = {true, true}, both[2] = {true, false};
    struct roc roc;
    struct error err = {0};
    assert_false(roc_init(&roc, scores, all, 2, &err));
    assert_non_null(strstr(err.message, "0 negative"));
    assert_false(roc_init(&roc, scores, both, 2, &err));
    assert_non_null(strstr(err.message, "not a number"));
    assert_false(roc_init(&roc, scores, both, 0, &err));
}

static void target_sensitivity_takes_the_highest_threshold(void **state) {
    (void)state;
    struct roc roc = hand_curve();
    struct operating_point point;
    /* 3 of 5 positives lie above .6, 4 of 5 from .55 on, where 2 of 5 negatives come along; next below is .4.
     */
    assert_true(operating_point_for_sensitivity(&roc, 0.8, &point, NULL));
    assert_near(point.threshold, 0.475, 1e-12);
    assert_near(point.sensitivity, 0.8, 1e-12);
    assert_near(point.specificity, 0.6, 1e-12);
    assert_true(operating_point_for_sensitivity(&roc, 0.6, &point, NULL));
    assert_near(point.threshold, 0.65, 1e-12);
    assert_near(point.specificity, 1.0, 1e-12);
    assert_true(operating_point_for_sensitivity(&roc, 1.0, &point, NULL));
    assert_near(point.threshold, 0.25, 1e-12);
    roc_fini(&roc);
}

static void target_out_of_range_is_an_error(void **state) {
    (void)state;
    struct roc roc = hand_curve();
    struct operating_point point;
    struct error err = {0};
    assert_false(operating_point_for_sensitivity(&roc, 0.0, &point, &err));
    assert_false(operating_point_for_sensitivity(&roc, 1.5, &point, &err));
    assert_false(operating_point_for_sensitivity(&roc, NAN, &point, &err));
    roc_fini(&roc);
}

static void youden_maximises_the_sum(void **state) {
    (void)state;
    struct roc roc = hand_curve();
    struct operating_point point;
    /* J is .6 at .7 (3/5 - 0) and nowhere more: .4 at .55, .4 at .3. */
    operating_point_youden(&roc, &point);
    assert_near(point.threshold, 0.65, 1e-12);
    assert_near(point.sensitivity + point.specificity - 1.0, 0.6, 1e-12);
    roc_fini(&roc);
}

static void fixed_threshold_counts_scores_at_or_above(void **state) {
    (void)state;
    struct roc roc = hand_curve();
    struct operating_point point;
    operating_point_at(&roc, 0.55, &point);
    assert_near(point.sensitivity, 0.8, 1e-12);
    assert_near(point.specificity, 0.6, 1e-12);
    operating_point_at(&roc, 2.0, &point);
    assert_near(point.sensitivity, 0.0, 1e-12);
    assert_near(point.specificity, 1.0, 1e-12);
    roc_fini(&roc);
}

/* Expected: sensitivity .99, specificity .88, prevalence .1 give .099 / (.099 + .108). */
static void predictive_values_follow_prevalence(void **state) {
    (void)state;
    struct operating_point point = {.sensitivity = 0.99, .specificity = 0.88};
    double positive, negative;
    operating_point_predictive_values(&point, 0.1, &positive, &negative);
    assert_near(positive, 0.099 / 0.207, 1e-12);
    assert_near(negative, 0.792 / 0.793, 1e-12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(area_is_the_share_of_pairs_in_order),
        cmocka_unit_test(ties_make_one_point_and_count_half),
        cmocka_unit_test(all_scores_equal_is_a_coin_toss),
        cmocka_unit_test(one_sided_samples_and_nan_are_errors),
        cmocka_unit_test(target_sensitivity_takes_the_highest_threshold),
        cmocka_unit_test(target_out_of_range_is_an_error),
        cmocka_unit_test(youden_maximises_the_sum),
        cmocka_unit_test(fixed_threshold_counts_scores_at_or_above),
        cmocka_unit_test(predictive_values_follow_prevalence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
