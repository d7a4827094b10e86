#include "trainerd/schedule.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static const struct schedule_spec cosine = {
    .kind = SCHEDULE_COSINE, .base_rate = 0.4, .warmup_steps = 10, .total_steps = 110, .final_fraction = 0.1};

static void assert_near(double a, double b) {
    if (!(fabs(a - b) < 1e-12))
        fail_msg("%.15g is not %.15g", a, b);
}

static void test_warms_up_in_a_straight_line(void **state) {
    (void)state;
    for (int64_t step = 0; step < 10; step++)
        assert_near(schedule_rate(&cosine, step), 0.4 * (double)(step + 1) / 10);
}

/** Loshchilov and Hutter, equation 5: final + (base - final) (1 + cos(pi t / T)) / 2, at t/T = 0, 1/4, 1/3,
 * 1/2, 1. */
static void test_decays_along_half_a_cosine(void **state) {
    (void)state;
    assert_near(schedule_rate(&cosine, 10), 0.4);
    assert_near(schedule_rate(&cosine, 35), 0.04 + 0.36 * (1 + sqrt(0.5)) / 2);
    assert_near(schedule_rate(&cosine, 60), 0.04 + 0.36 / 2);
    assert_near(schedule_rate(&cosine, 110), 0.04);
    struct schedule_spec thirds = cosine;
    thirds.total_steps = 10 + 3;
    assert_near(schedule_rate(&thirds, 11), 0.04 + 0.36 * 0.75);
}

static void test_stays_at_the_end(void **state) {
    (void)state;
    assert_near(schedule_rate(&cosine, 111), 0.04);
    assert_near(schedule_rate(&cosine, INT64_MAX / 2), 0.04);
}

static void test_other_decays(void **state) {
    (void)state;
    struct schedule_spec spec = cosine;
    spec.kind = SCHEDULE_LINEAR;
    assert_near(schedule_rate(&spec, 35), 0.04 + 0.36 * 0.75);
    spec.kind = SCHEDULE_CONSTANT;
    assert_near(schedule_rate(&spec, 100), 0.4);
}

static void test_no_warm_up_and_nothing_but_warm_up(void **state) {
    (void)state;
    struct schedule_spec spec = {.kind = SCHEDULE_COSINE, .base_rate = 1, .total_steps = 4};
    assert_near(schedule_rate(&spec, 0), 1);
    assert_near(schedule_rate(&spec, 2), 0.5);
    spec.warmup_steps = 4;
    assert_near(schedule_rate(&spec, 3), 1);
    assert_near(schedule_rate(&spec, 4), 0);
}

static void test_refuses_what_makes_no_sense(void **state) {
    (void)state;
    struct error err = {0};
    assert_true(schedule_check(&cosine, &err));
    struct schedule_spec bad[5] = {cosine, cosine, cosine, cosine, cosine};
    bad[0].base_rate = 0;
    bad[1].base_rate = NAN;
    bad[2].total_steps = 0;
    bad[3].warmup_steps = 111;
    bad[4].final_fraction = 1.5;
    for (int i = 0; i < 5; i++) {
        err.code = ERROR_NONE;
        assert_false(schedule_check(&bad[i], &err));
        assert_int_equal(err.code, ERROR_INVALID);
    }
    enum schedule_kind kind;
    assert_true(schedule_parse("linear", &kind, &err) && kind == SCHEDULE_LINEAR);
    assert_false(schedule_parse("step", &kind, &err));
    assert_non_null(strstr(err.message, "cosine"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_warms_up_in_a_straight_line),
        cmocka_unit_test(test_decays_along_half_a_cosine),
        cmocka_unit_test(test_stays_at_the_end),
        cmocka_unit_test(test_other_decays),
        cmocka_unit_test(test_no_warm_up_and_nothing_but_warm_up),
        cmocka_unit_test(test_refuses_what_makes_no_sense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
