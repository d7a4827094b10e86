#include "common/metrics/histogram.h"
#include "tests/unit/metrics/test.h"

#include <stdlib.h>

static void every_value_lies_in_its_bucket_and_buckets_are_narrow(void **state) {
    (void)state;
    for (uint64_t value = 0; value < UINT64_C(1) << 36; value += 1 + value / 7) {
        int bucket = histogram_bucket(value);
        assert_in_range(value, histogram_low_us(bucket), histogram_high_us(bucket));
        assert_true((histogram_high_us(bucket) - histogram_low_us(bucket)) * 32 <= value);
    }
    for (int i = 0; i + 1 < HISTOGRAM_BUCKETS; i++)
        assert_int_equal(histogram_high_us(i) + 1, histogram_low_us(i + 1));
    assert_int_equal(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}

static int rising(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* Against the sorted values themselves. */
static void quantiles_are_those_of_the_values(void **state) {
    (void)state;
    enum { COUNT = 5000 };
    static uint64_t values[COUNT];
    static struct histogram histogram;
    uint64_t random = 1, sum = 0;
    for (int i = 0; i < COUNT; i++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        values[i] = (random >> 40) * (random >> 60);
        sum += values[i];
        histogram_record(&histogram, values[i]);
    }
    qsort(values, COUNT, sizeof *values, rising);
    assert_int_equal(histogram.total, COUNT);
    assert_int_equal(histogram.sum_us, sum);
    static const double quantiles[] = {0, .01, .5, .9, .99, .999, 1};
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++) {
        size_t rank = (size_t)(quantiles[i] * COUNT + .999999);
        uint64_t exact = values[rank ? rank - 1 : 0], found = histogram_quantile_us(&histogram, quantiles[i]);
        assert_in_range(found, exact, exact + exact / 32);
    }
}

static void what_travelled_in_buckets_adds_up_to_the_same(void **state) {
    (void)state;
    static struct histogram whole, copy, twice;
    for (uint64_t value = 1; value < 100000; value += 13)
        histogram_record(&whole, value);
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        histogram_add_bucket(&copy, i, whole.counts[i]);
    histogram_add_bucket(&copy, HISTOGRAM_BUCKETS, 5);
    histogram_add(&twice, &whole);
    histogram_add(&twice, &copy);
    assert_int_equal(twice.total, 2 * whole.total);
    assert_int_equal(histogram_quantile_us(&twice, .9), histogram_quantile_us(&whole, .9));
    static const struct histogram empty;
    assert_int_equal(histogram_quantile_us(&empty, .99), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_lies_in_its_bucket_and_buckets_are_narrow),
        cmocka_unit_test(quantiles_are_those_of_the_values),
        cmocka_unit_test(what_travelled_in_buckets_adds_up_to_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
