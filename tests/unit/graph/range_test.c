/* Which range 8 bits are spread over. */
#include "common/graph/range.h"

#include "common/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { COUNT = 200000 };

static struct range *observe(const float *values, int64_t count) {
    struct range *range = calloc(1, sizeof *range);
    range_widen(range, values, count);
    range_count(range, values, count);
    return range;
}

/** Normal values, every 50,000th of them far out. */
static float *with_outliers(bool rectified) {
    float *values = malloc(COUNT * sizeof *values);
    struct rng rng;
    rng_init(&rng, 5, RNG_TEST, 0, 0);
    for (int i = 0; i < COUNT; i++) {
        values[i] = rng_normal(&rng) * (i % 50000 == 7 ? 0 : 1) + (i % 50000 == 7 ? 40.0f : 0);
        values[i] = rectified ? fmaxf(values[i], 0) : values[i];
    }
    return values;
}

static void what_is_never_negative_is_unsigned(void **state) {
    const float positive[] = {0, 1, 2}, mixed[] = {-0.5f, 1};
    struct range *u8 = observe(positive, 3), *s8 = observe(mixed, 2);
    (void)state;
    assert_int_equal(range_dtype(u8), DTYPE_U8);
    assert_int_equal(range_dtype(s8), DTYPE_S8);
    assert_float_equal(range_scale(u8, RANGE_MIN_MAX), 2.0 / 255, 1e-9);
    assert_float_equal(range_scale(s8, RANGE_MIN_MAX), 1.0 / 127, 1e-9);
    free(u8);
    free(s8);
}

/** The mean squared error of values that are quantised with that scale, worked out value by value. */
static double true_error(const float *values, float scale, int low, int high) {
    double sum = 0;
    for (int i = 0; i < COUNT; i++) {
        double integer = fmin(fmax(nearbyint((double)values[i] / (double)scale), low), high);
        double off = integer * (double)scale - (double)values[i];
        sum += off * off;
    }
    return sum / COUNT;
}

/* Each method's claim, checked on the values themselves. */
static void methods_keep_their_promises(void **state) {
    (void)state;
    for (int rectified = 0; rectified < 2; rectified++) {
        float *values = with_outliers(rectified), scales[RANGE_METHOD_COUNT];
        struct range *range = observe(values, COUNT);
        int low = rectified ? 0 : -127, high = rectified ? 255 : 127;
        for (int method = 0; method < RANGE_METHOD_COUNT; method++)
            scales[method] = range_scale(range, (enum range_method)method);
        assert_float_equal(scales[RANGE_MIN_MAX] * (float)high, 40, 1e-4);
        int beyond = 0;
        for (int i = 0; i < COUNT; i++)
            beyond += fabsf(values[i]) > scales[RANGE_PERCENTILE] * (float)high * 1.0005f;
        assert_true(beyond <= COUNT / 10000 && scales[RANGE_PERCENTILE] * (float)high < 6);
        for (int method = 0; method < RANGE_METHOD_COUNT; method++)
            assert_true(true_error(values, scales[RANGE_MSE], low, high) <= 1.02 * true_error(values, scales[method], low, high));
        assert_true(scales[RANGE_ENTROPY] < scales[RANGE_MIN_MAX] / 2); /* the gap before the outliers is worth nothing */
        free(range);
        free(values);
    }
}

static void a_tensor_of_zeros_has_a_scale(void **state) {
    const float zeros[16] = {0};
    struct range *range = observe(zeros, 16);
    (void)state;
    for (int method = 0; method < RANGE_METHOD_COUNT; method++) {
        float scale = range_scale(range, (enum range_method)method);
        assert_true(scale > 0 && isfinite(1 / scale));
    }
    free(range);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_never_negative_is_unsigned),
        cmocka_unit_test(methods_keep_their_promises),
        cmocka_unit_test(a_tensor_of_zeros_has_a_scale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
