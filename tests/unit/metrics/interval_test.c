#include "common/metrics/interval.h"
#include "tests/unit/metrics/test.h"

#include <stdlib.h>

/* Expected values: interval_expected.py (scipy 1.17). */

static void z_is_the_normal_quantile(void **state) {
    (void)state;
    static const double expected[][2] = {
        {.5, .674489750}, {.9, 1.644853627}, {.95, 1.959963985}, {.99, 2.575829304}, {.9999, 3.890591886}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        assert_near(interval_z(expected[i][0]), expected[i][1], 1e-8);
}

static void proportions_have_wilsons_interval(void **state) {
    (void)state;
    static const struct {
        uint64_t hits, count;
        double low, high;
    } expected[] = {
        {0, 10, 0, .277532800},  {1, 20, .008881449, .236131193},   {5, 10, .236593091, .763406909},
        {20, 20, .838874842, 1}, {3, 1000, .001020784, .008783014}, {98, 100, .929988209, .994498032},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        struct interval interval = interval_proportion(expected[i].hits, expected[i].count, .95);
        assert_near(interval.low, expected[i].low, 1e-8);
        assert_near(interval.high, expected[i].high, 1e-8);
    }
}

static void nothing_is_claimed_of_a_proportion_of_nothing(void **state) {
    (void)state;
    struct interval interval = interval_proportion(0, 0, .95);
    assert_true(interval.low == 0 && interval.high == 1);
}

static struct interval of_mean(uint64_t count) {
    double sum = 0, square_sum = 0;
    for (uint64_t i = 1; i <= count; i++) {
        double value = (double)(i * i % 97);
        sum += value;
        square_sum += value * value;
    }
    return interval_mean(count, sum, square_sum, .95);
}

static void means_have_the_normal_interval(void **state) {
    (void)state;
    struct interval few = of_mean(30), many = of_mean(500);
    assert_near(few.low, 32.692278471, 1e-7);
    assert_near(few.high, 54.441054863, 1e-7);
    assert_near(many.low, 44.825669028, 1e-7);
    assert_near(many.high, 50.150330972, 1e-7);
}

static void nothing_is_claimed_of_the_mean_of_a_few(void **state) {
    (void)state;
    struct interval interval = of_mean(29);
    assert_true(isinf(interval.low) && isinf(interval.high));
}

static void equal_values_have_an_interval_of_no_width(void **state) {
    (void)state;
    struct interval interval = interval_mean(100, 10, 1, .95); /* a hundred times 0.1 */
    assert_near(interval.low, .1, 1e-9);
    assert_near(interval.high, .1, 1e-9);
}

static void quantiles_are_bounded_by_the_binomial_ranks(void **state) {
    (void)state;
    static const struct {
        uint64_t count;
        double q, confidence;
        uint64_t low, high;
    } expected[] = {
        {10, .5, .95, 2, 9},
        {100, .5, .95, 40, 61},
        {300, .99, .95, 293, 301},
        {500, .99, .95, 490, 500},
        {2000, .99, .9, 1972, 1988},
        {5000, .999, .99, 4988, 5001},
        {20000, .9, .95, 17916, 18084},
        {1, .99, .95, 1, 2},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        struct interval_ranks ranks =
            interval_quantile_ranks(expected[i].count, expected[i].q, expected[i].confidence);
        assert_int_equal(ranks.low, expected[i].low);
        assert_int_equal(ranks.high, expected[i].high);
    }
}

/* Seen from a hundred million values, a quantile is the quantile. */
static void many_values_bound_a_quantile_tightly(void **state) {
    (void)state;
    struct interval_ranks ranks = interval_quantile_ranks(100000000, .99, .95);
    assert_in_range(ranks.low, 98997000, 99000000);
    assert_in_range(ranks.high, 99000000, 99003000);
}

/* Values below 32 microseconds have buckets of their own, so the ranks are the values. */
static void a_histogram_gives_the_values_of_the_ranks(void **state) {
    (void)state;
    static struct histogram histogram;
    assert_true(isinf(interval_quantile_us(&histogram, .99, .95).high));
    for (uint64_t value = 1; value <= 10; value++)
        histogram_record(&histogram, value);
    struct interval median = interval_quantile_us(&histogram, .5, .95),
                    p99 = interval_quantile_us(&histogram, .99, .95);
    assert_true(median.low == 2 && median.high == 9);
    assert_true(p99.low == 9 && isinf(p99.high)); /* P(Bin(10, .99) <= 8) = .004, P(... <= 9) = .096 */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(z_is_the_normal_quantile),
        cmocka_unit_test(proportions_have_wilsons_interval),
        cmocka_unit_test(nothing_is_claimed_of_a_proportion_of_nothing),
        cmocka_unit_test(means_have_the_normal_interval),
        cmocka_unit_test(nothing_is_claimed_of_the_mean_of_a_few),
        cmocka_unit_test(equal_values_have_an_interval_of_no_width),
        cmocka_unit_test(quantiles_are_bounded_by_the_binomial_ranks),
        cmocka_unit_test(many_values_bound_a_quantile_tightly),
        cmocka_unit_test(a_histogram_gives_the_values_of_the_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
