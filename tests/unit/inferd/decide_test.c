#include "inferd/decide.h"
#include "tests/unit/inferd/fake_model.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* numpy: z = np.array([1., 2., .5]) / T; e = np.exp(z - z.max()); e / e.sum() */
static void probabilities_are_softmax_of_logits_over_temperature(void **state) {
    (void)state;
    static const float logits[] = {1.0f, 2.0f, 0.5f};
    static const struct {
        double temperature, expected[3];
    } rows[] = {
        {1, {0.23122389762214907, 0.6285317192117624, 0.14024438316608848}},
        {2, {0.29175596372884977, 0.48102426325336967, 0.2272197730177806}},
        {0.5, {0.11419519938459446, 0.8437947344813395, 0.04201006613406604}},
    };
    for (int i = 0; i < 3; i++) {
        double out[3];
        assert_true(decide_probabilities(logits, 3, rows[i].temperature, out, NULL));
        for (int k = 0; k < 3; k++) {
            assert_true(fabs(out[k] - rows[i].expected[k]) < 1e-12);
        }
    }
}

static void huge_logits_do_not_overflow(void **state) {
    (void)state;
    static const float logits[] = {3e38f, -3e38f, 0};
    double out[3];
    assert_true(decide_probabilities(logits, 3, 0.01, out, NULL));
    assert_true(out[0] == 1 && out[1] == 0 && out[2] == 0);
}

static void logits_that_are_not_finite_are_no_diagnosis(void **state) {
    (void)state;
    static const float rows[][3] = {{0, NAN, 0}, {INFINITY, 0, 0}, {0, 0, -INFINITY}};
    for (int i = 0; i < 3; i++) {
        struct error err = {0};
        double out[3];
        assert_false(decide_probabilities(rows[i], 3, 1, out, &err));
        assert_int_equal(err.code, ERROR_INTERNAL);
    }
}

/** Logits whose softmax has these probabilities. */
static void logits_of(double normal, double pneumonia, float *out) {
    out[0] = (float)log(normal);
    out[1] = (float)log(pneumonia);
    out[2] = (float)log(1 - normal - pneumonia);
}

static void thresholds_and_the_invalid_class_decide(void **state) {
    (void)state;
    static const struct {
        double normal, pneumonia;
        Thorax__V1__Decision decision;
    } rows[] = {
        /* the fake's "balanced": in at .6, out below .4 */
        {.30, .61, THORAX__V1__DECISION__DECISION_RULE_IN},
        {.35, .59, THORAX__V1__DECISION__DECISION_UNCERTAIN},
        {.55, .41, THORAX__V1__DECISION__DECISION_UNCERTAIN},
        {.55, .39, THORAX__V1__DECISION__DECISION_RULE_OUT},
        {.90, .05, THORAX__V1__DECISION__DECISION_RULE_OUT},
        {.10, .40, THORAX__V1__DECISION__DECISION_INVALID},
        {.01, .01, THORAX__V1__DECISION__DECISION_INVALID},
    };
    struct model *model = fake_model(&(struct fake_model_spec){.name = "any"});
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct verdict verdict = {0};
        float logits[3];
        logits_of(rows[i].normal, rows[i].pneumonia, logits);
        assert_true(decide(&model->info, &model->info.points[0], logits, &verdict, NULL));
        if (verdict.decision != rows[i].decision) {
            fail_msg("row %zu: %s", i, verdict.reason);
        }
    }
    model_release(model);
}

static void the_threshold_itself_is_ruled_in(void **state) {
    (void)state;
    struct model *model = fake_model(&(struct fake_model_spec){.name = "any"});
    struct verdict verdict = {0};
    static const float even[] = {0, 0, -INFINITY};
    float logits[3] = {0, 0, -200}; /* one half each, exactly */
    struct decision_point half = {"half", 1, 0.5, 0.5};
    assert_false(decide(&model->info, &half, even, &verdict, NULL));
    assert_true(decide(&model->info, &half, logits, &verdict, NULL));
    assert_int_equal(verdict.decision, THORAX__V1__DECISION__DECISION_RULE_IN);
    model_release(model);
}

static void only_what_is_known_and_outside_is_warned_of(void **state) {
    (void)state;
    static const float ages[] = {0.5f, 1, 5, 5.1f};
    static const int by_age[] = {1, 0, 0, 1};
    struct model *model = fake_model(&(struct fake_model_spec){.name = "any"});
    for (int i = 0; i < 4; i++) {
        struct verdict verdict = {0};
        decide_warn(&model->info, &ages[i], THORAX__V1__VIEW__VIEW_AP, &verdict);
        assert_int_equal(verdict.warning_count, by_age[i]);
    }
    struct verdict verdict = {0};
    decide_warn(&model->info, NULL, THORAX__V1__VIEW__VIEW_UNSPECIFIED, &verdict);
    assert_int_equal(verdict.warning_count, 0);
    decide_warn(&model->info, NULL, THORAX__V1__VIEW__VIEW_PA, &verdict);
    assert_int_equal(verdict.warning_count, 1);
    model_release(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probabilities_are_softmax_of_logits_over_temperature),
        cmocka_unit_test(huge_logits_do_not_overflow),
        cmocka_unit_test(logits_that_are_not_finite_are_no_diagnosis),
        cmocka_unit_test(thresholds_and_the_invalid_class_decide),
        cmocka_unit_test(the_threshold_itself_is_ruled_in),
        cmocka_unit_test(only_what_is_known_and_outside_is_warned_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
