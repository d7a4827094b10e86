#include "tests/bench/scaling_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static const struct scaling_slowdown UNDISTURBED = {1, 1};

/* --- the ring --- */

static void test_a_ring_sends_twice_all_but_a_share(void **state) {
    (void)state;
    const struct ring ring = {0.5, 1000};
    assert_float_equal(ring_ms(&ring, 1, 8000), 0, 0);
    assert_float_equal(ring_ms(&ring, 2, 8000), 1 + 8, 1e-12);      /* 2 messages of 4000 bytes */
    assert_float_equal(ring_ms(&ring, 4, 8000), 3 + 12, 1e-12);     /* 6 of 2000 */
    assert_float_equal(ring_ms(&ring, 512, 0), 511, 1e-12);         /* 1022 that are empty */
    assert_float_equal(ring_ms(&ring, 512, 512000), 511 + 1022, 1e-9);
}

static void test_a_fit_finds_the_ring_again(void **state) {
    (void)state;
    const struct ring ring = {0.02, 5e6};
    const double bytes[] = {4096, 65536, 1 << 20, 16 << 20, 128 << 20};
    double ms[5];
    struct ring found;
    for (int i = 0; i < 5; i++)
        ms[i] = ring_ms(&ring, 4, bytes[i]);
    assert_true(ring_fit(4, bytes, ms, 5, &found));
    assert_float_equal(found.alpha_ms, ring.alpha_ms, 1e-9);
    assert_float_equal(found.bytes_per_ms, ring.bytes_per_ms, 1e-2);
}

/*
 * Three sizes, no exact ring, two ranks: 2 alpha + bytes / beta. Times 1, 2 and 4 ms for 0, 2 and 2 bytes; in u = 2 alpha and
 * v = 1 / beta the least of (u - 1)^2 + ((u + 2 v) / 2 - 1)^2 + ((u + 2 v) / 4 - 1)^2 has u = 1 and, with w = u + 2 v,
 * w / 4 + w / 16 = 1 / 2 + 1 / 4: w = 12 / 5.
 */
static void test_a_fit_weighs_relative_errors(void **state) {
    (void)state;
    const double bytes[] = {0, 2, 2}, ms[] = {1, 2, 4};
    struct ring found;
    assert_true(ring_fit(2, bytes, ms, 3, &found));
    assert_float_equal(found.alpha_ms, 0.5, 1e-12);
    assert_float_equal(1 / found.bytes_per_ms, (12.0 / 5 - 1) / 2, 1e-12);
}

/* 1 ms for 1 byte and 4 for 2 would have a negative alpha; without one 1 / beta is the mean of 1 and 2, weighed by 1 and 1/4. */
static void test_a_fit_has_no_negative_latency(void **state) {
    (void)state;
    const double bytes[] = {1, 2}, ms[] = {1, 4};
    struct ring found;
    assert_true(ring_fit(2, bytes, ms, 2, &found));
    assert_float_equal(found.alpha_ms, 0, 0);
    assert_float_equal(1 / found.bytes_per_ms, (1 + 2 * 0.25) / (1 + 0.25), 1e-12);
}

static void test_a_fit_of_one_size_or_of_falling_times_is_refused(void **state) {
    (void)state;
    const double same[] = {8, 8, 8}, rising[] = {8, 16, 32}, ms[] = {4, 2, 1};
    struct ring found;
    assert_false(ring_fit(2, same, ms, 3, &found));
    assert_false(ring_fit(2, rising, ms, 3, &found));
}

/* --- a step; over two ranks a sum of s bytes takes s ms --- */

static const struct ring ONE_PER_MS = {0, 1};

static void check(const struct scaling_prediction *found, double step_ms, double sum_ms, double exposed_ms) {
    assert_float_equal(found->step_ms, step_ms, 1e-9);
    assert_float_equal(found->sum_ms, sum_ms, 1e-9);
    assert_float_equal(found->exposed_ms, exposed_ms, 1e-9);
}

static void test_one_rank_computes_and_updates(void **state) {
    (void)state;
    const struct scaling_bucket buckets[] = {{60, 30}, {100, 5}};
    const struct scaling_step step = {buckets, 2, 100, 7};
    struct scaling_prediction found = scaling_predict(&step, &ONE_PER_MS, 1, &(struct scaling_slowdown){2, 3});
    check(&found, 107, 0, 0);
}

/* The first sum, 60 to 90, hides behind compute; the last, 100 to 105, cannot. */
static void test_what_is_ready_at_the_end_is_exposed(void **state) {
    (void)state;
    const struct scaling_bucket buckets[] = {{60, 30}, {100, 5}};
    const struct scaling_step step = {buckets, 2, 100, 7};
    struct scaling_prediction found = scaling_predict(&step, &ONE_PER_MS, 2, &UNDISTURBED);
    check(&found, 112, 35, 5);
}

/* Sums queue: 10 to 60, then 60 to 120 although its bucket is ready at 20, then 120 to 125. Compute ends at 100. */
static void test_sums_run_one_after_the_other(void **state) {
    (void)state;
    const struct scaling_bucket buckets[] = {{10, 50}, {20, 60}, {100, 5}};
    const struct scaling_step step = {buckets, 3, 100, 0};
    struct scaling_prediction found = scaling_predict(&step, &ONE_PER_MS, 2, &UNDISTURBED);
    check(&found, 125, 115, 25);
}

/*
 * Beside compute a sum takes 3 times as long, and compute beside it 1.5 times. The first sum, from 60, takes 30 and compute gets
 * 20 of its 40 done meanwhile; the rest is undisturbed, so it ends at 60 + 30 + 20 = 110, and the last sum at 115.
 */
static void test_sums_and_compute_slow_each_other(void **state) {
    (void)state;
    const struct scaling_bucket buckets[] = {{60, 10}, {100, 5}};
    const struct scaling_step step = {buckets, 2, 100, 7};
    struct scaling_prediction found = scaling_predict(&step, &ONE_PER_MS, 2, &(struct scaling_slowdown){1.5, 3});
    check(&found, 122, 15, 5);
}

/*
 * A sum of 50 from 60 on: beside the 40 of compute, which take 60, a third of 60 = 20 gets done, and the other 30 in 30 more:
 * compute ends at 120, the sum at 150.
 */
static void test_the_rest_of_a_sum_is_undisturbed(void **state) {
    (void)state;
    const struct scaling_bucket buckets[] = {{60, 50}};
    const struct scaling_step step = {buckets, 1, 100, 0};
    struct scaling_prediction found = scaling_predict(&step, &ONE_PER_MS, 2, &(struct scaling_slowdown){1.5, 3});
    check(&found, 150, 50, 30);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_ring_sends_twice_all_but_a_share),
        cmocka_unit_test(test_a_fit_finds_the_ring_again),
        cmocka_unit_test(test_a_fit_weighs_relative_errors),
        cmocka_unit_test(test_a_fit_has_no_negative_latency),
        cmocka_unit_test(test_a_fit_of_one_size_or_of_falling_times_is_refused),
        cmocka_unit_test(test_one_rank_computes_and_updates),
        cmocka_unit_test(test_what_is_ready_at_the_end_is_exposed),
        cmocka_unit_test(test_sums_run_one_after_the_other),
        cmocka_unit_test(test_sums_and_compute_slow_each_other),
        cmocka_unit_test(test_the_rest_of_a_sum_is_undisturbed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
