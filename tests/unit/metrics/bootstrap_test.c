#include "common/metrics/bootstrap.h"
#include "tests/unit/metrics/test.h"

enum { COUNT = 400, COPIES = 4 };

/* Share of samples with an index below a fifth of all that are "wrong": .8 are right. */
static double share_right(const void *context, const int64_t *indices, int64_t count) {
    const int64_t *total = context;
    int64_t right = 0;
    for (int64_t i = 0; i < count; i++)
        right += indices[i] >= *total / 5;
    return (double)right / (double)count;
}

static double undefined(const void *context, const int64_t *indices, int64_t count) {
    (void)context, (void)indices, (void)count;
    return NAN;
}

static struct interval estimate(const struct bootstrap_spec *spec) {
    static const bootstrap_statistic statistic = share_right;
    struct interval out;
    assert_true(bootstrap_intervals(spec, &statistic, 1, &spec->count, &out, NULL));
    return out;
}

/* The share of independent samples is nearly normal with sigma sqrt(.8 x .2 / 400) = .02. */
static void interval_of_a_share_is_the_normal_one(void **state) {
    (void)state;
    struct interval interval = estimate(&(struct bootstrap_spec){.count = COUNT, .rounds = 4000, .seed = 3});
    assert_near(interval.low, 0.8 - 1.96 * 0.02, 0.004);
    assert_near(interval.high, 0.8 + 1.96 * 0.02, 0.004);
}

/* Four pictures a patient, all alike: as wide as 400 independent samples, twice as wide as 1,600. */
static void pictures_of_one_patient_count_once(void **state) {
    (void)state;
    int32_t groups[COUNT * COPIES];
    for (int i = 0; i < COUNT * COPIES; i++)
        groups[i] = 1000 - i / COPIES;
    struct bootstrap_spec spec = {.count = COUNT * COPIES, .groups = groups, .rounds = 4000, .seed = 3};
    struct interval grouped = estimate(&spec);
    spec.groups = NULL;
    struct interval naive = estimate(&spec);
    assert_near(grouped.high - grouped.low, 2 * 1.96 * 0.02, 0.006);
    assert_near(naive.high - naive.low, 2 * 1.96 * 0.01, 0.003);
}

static void same_seed_gives_the_same_interval(void **state) {
    (void)state;
    struct bootstrap_spec spec = {.count = COUNT, .rounds = 200, .seed = 7};
    struct interval first = estimate(&spec), again = estimate(&spec);
    spec.seed = 8;
    struct interval other = estimate(&spec);
    assert_memory_equal(&first, &again, sizeof first);
    assert_memory_not_equal(&first, &other, sizeof first);
}

static void undefined_statistic_has_no_interval(void **state) {
    (void)state;
    static const bootstrap_statistic both[2] = {share_right, undefined};
    struct bootstrap_spec spec = {.count = COUNT, .rounds = 50};
    struct interval out[2];
    assert_true(bootstrap_intervals(&spec, both, 2, &spec.count, out, NULL));
    assert_false(isnan(out[0].low));
    assert_true(isnan(out[1].low) && isnan(out[1].high));
}

static void no_samples_is_an_error(void **state) {
    (void)state;
    static const bootstrap_statistic statistic = undefined;
    struct interval out;
    struct error err = {0};
    assert_false(bootstrap_intervals(&(struct bootstrap_spec){.count = 0}, &statistic, 1, NULL, &out, &err));
    assert_int_equal(err.code, ERROR_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(interval_of_a_share_is_the_normal_one),
        cmocka_unit_test(pictures_of_one_patient_count_once),
        cmocka_unit_test(same_seed_gives_the_same_interval),
        cmocka_unit_test(undefined_statistic_has_no_interval),
        cmocka_unit_test(no_samples_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
