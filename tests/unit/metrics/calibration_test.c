#include "common/metrics/calibration.h"
#include "tests/unit/metrics/samples.h"
#include "tests/unit/metrics/test.h"

/* Expected: expected.py. */
static void losses_match_the_reference(void **state) {
    (void)state;
    static struct samples samples;
    struct predictions predictions = samples_draw(&samples);
    assert_near(calibration_log_loss(&predictions), 0.884804649, 1e-9);
    assert_near(calibration_brier(&predictions), 0.496931104, 1e-9);
    assert_near(calibration_error(&predictions), 0.138436963, 1e-9);
}

/* Expected: expected.py. */
static void temperature_minimises_the_log_loss(void **state) {
    (void)state;
    static struct samples samples;
    samples_draw(&samples);
    double temperature;
    assert_true(calibration_fit_temperature(samples.logits, samples.labels, SAMPLES, SAMPLE_CLASSES,
                                            &temperature, NULL));
    assert_near(temperature, 1.232503, 2e-5);
}

static void temperature_scales_with_the_logits(void **state) {
    (void)state;
    static struct samples samples;
    samples_draw(&samples);
    for (int i = 0; i < SAMPLES * SAMPLE_CLASSES; i++)
        samples.logits[i] *= 4.0f;
    double temperature;
    assert_true(calibration_fit_temperature(samples.logits, samples.labels, SAMPLES, SAMPLE_CLASSES,
                                            &temperature, NULL));
    assert_near(temperature, 4.0 * 1.232503, 1e-4);
}

static void separable_samples_stop_at_the_bound(void **state) {
    (void)state;
    const float logits[4] = {1.0f, 0.0f, 0.0f, 1.0f};
    const int32_t right[2] = {0, 1}, wrong[2] = {1, 0};
    double temperature;
    assert_true(calibration_fit_temperature(logits, right, 2, 2, &temperature, NULL));
    assert_near(temperature, 1.0 / 20.0, 1e-9);
    assert_true(calibration_fit_temperature(logits, wrong, 2, 2, &temperature, NULL));
    assert_near(temperature, 20.0, 1e-6);
}

static void broken_logits_are_refused(void **state) {
    (void)state;
    const float logits[2] = {INFINITY, 0.0f}, fine[2] = {1.0f, 0.0f};
    const int32_t label = 0, beyond = 2;
    double temperature;
    struct error err = {0};
    assert_false(calibration_fit_temperature(logits, &label, 1, 2, &temperature, &err));
    assert_false(calibration_fit_temperature(fine, &beyond, 1, 2, &temperature, &err));
    assert_false(calibration_fit_temperature(fine, &label, 0, 2, &temperature, &err));
}

static void softmax_survives_large_logits(void **state) {
    (void)state;
    const float logits[3] = {3e38f, 0.0f, -3e38f};
    double p[3];
    calibration_softmax(logits, 1, 3, 1.0, p);
    assert_near(p[0], 1.0, 0.0);
    assert_near(p[2], 0.0, 0.0);
}

static void certain_and_wrong_has_a_finite_loss(void **state) {
    (void)state;
    const double p[2] = {1.0, 0.0};
    const int32_t label = 1;
    struct predictions predictions = {2, 1, p, &label, NULL};
    assert_near(calibration_log_loss(&predictions), -log(1e-15), 1e-9);
    assert_near(calibration_brier(&predictions), 2.0, 1e-12);
    assert_near(calibration_error(&predictions), 1.0, 1e-12);
}

static void rows_that_are_no_distribution_are_refused(void **state) {
    (void)state;
    const double negative[2] = {-0.1, 1.1}, not_a_number[2] = {NAN, 1.0}, light[2] = {0.3, 0.3},
                 fine[2] = {0.3, 0.7};
    const int32_t label = 0, beyond = 5;
    struct predictions predictions = {2, 1, negative, &label, NULL};
    struct error err = {0};
    assert_false(predictions_check(&predictions, &err));
    predictions.probabilities = not_a_number;
    assert_false(predictions_check(&predictions, &err));
    predictions.probabilities = light;
    assert_false(predictions_check(&predictions, &err));
    predictions.probabilities = fine;
    assert_true(predictions_check(&predictions, &err));
    predictions.labels = &beyond;
    assert_false(predictions_check(&predictions, &err));
    predictions.count = 0;
    assert_false(predictions_check(&predictions, &err));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_match_the_reference),
        cmocka_unit_test(temperature_minimises_the_log_loss),
        cmocka_unit_test(temperature_scales_with_the_logits),
        cmocka_unit_test(separable_samples_stop_at_the_bound),
        cmocka_unit_test(broken_logits_are_refused),
        cmocka_unit_test(softmax_survives_large_logits),
        cmocka_unit_test(certain_and_wrong_has_a_finite_loss),
        cmocka_unit_test(rows_that_are_no_distribution_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
