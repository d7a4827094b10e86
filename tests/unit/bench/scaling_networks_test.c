#include "tests/bench/scaling.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

/*
 * Two ranks with 8 images each: 100 ms of compute, the one bucket ready at its end, and 10 of update. A lone rank takes 110 for 8
 * images and 190 for 16: 10 ms an image and 30 for none, the update among them.
 */
static struct scaling known(double bytes) {
    struct scaling scaling = {.subject = {.batch = 16}, .count = 1, .whole_ms = 190};
    struct scaling_local *local = &scaling.local[0];
    *local = (struct scaling_local){.ranks = 2, .batch = 8, .lone_ms = 110, .buckets = {{100, bytes}}, .ring = {5, 2},
                                    .slowdown = {1.5, 3}};
    local->step = (struct scaling_step){NULL, 1, 100, 10};
    return scaling;
}

static struct scaling_efficiency over(struct scaling *scaling, const struct scaling_network *network, int ranks) {
    scaling->local[0].step.buckets = scaling->local[0].buckets;
    return scaling_over(scaling, network, ranks);
}

/* 64 bytes over 8 ranks: 2 * 7 / 8 * 64 = 112 ms, all exposed; all 512 images alone: 30 + 5120. */
static void test_efficiencies_over_a_slow_network(void **state) {
    (void)state;
    struct scaling scaling = known(64);
    const struct scaling_network network = {"slow", {0, 1}, 64, false, "made up"};
    struct scaling_efficiency found = over(&scaling, &network, 8);
    assert_float_equal(found.weak, 110.0 / (110 + 112), 1e-9);
    double whole = 30 + 10 * 512.0, each = 30 + 10 * 64.0 + 112;
    assert_float_equal(found.strong, whole / (8 * each), 1e-9);
}

static void test_messages_cost_words_too(void **state) {
    (void)state;
    struct scaling scaling = known(0);
    const struct scaling_network network = {"far", {2, 1}, 64, false, "made up"};
    assert_float_equal(over(&scaling, &network, 4).weak, 110.0 / (110 + 2 * 3 * 2 + 3 * 2), 1e-9);
}

static void test_more_ranks_than_it_connects_have_no_figure(void **state) {
    (void)state;
    struct scaling scaling = known(64);
    const struct scaling_network network = {"small", {0, 1}, 8, false, "made up"};
    assert_true(isnan(over(&scaling, &network, 64).weak) && isnan(over(&scaling, &network, 64).strong));
    assert_false(isnan(over(&scaling, &network, 8).weak));
}

static void test_where_cores_move_bytes_it_is_no_better_than_here(void **state) {
    (void)state;
    struct scaling scaling = known(64);
    const struct scaling_network fast = {"fast", {1, 1000}, 8, true, "made up"}, slow = {"slow", {9, 1}, 8, true, "made up"};
    struct ring found = scaling_ring(&scaling, &fast);
    assert_float_equal(found.alpha_ms, 5, 0);
    assert_float_equal(found.bytes_per_ms, 2, 0);
    found = scaling_ring(&scaling, &slow);
    assert_float_equal(found.alpha_ms, 9, 0);
    assert_float_equal(found.bytes_per_ms, 1, 0);
}

/* As told, a step takes 55 ms: half of all, and the sums stay. */
static void test_a_faster_rank_waits_for_the_same_sums(void **state) {
    (void)state;
    struct scaling scaling = known(64);
    const struct scaling_network network = {"slow", {0, 1}, 64, false, "made up"};
    scaling.step_ms = 55;
    assert_float_equal(over(&scaling, &network, 8).weak, 55.0 / (55 + 112), 1e-9);
}

static void test_every_network_says_where_it_is_from(void **state) {
    (void)state;
    int count = 0;
    for (const struct scaling_network *network = scaling_networks; network->name; network++, count++) {
        assert_non_null(network->source);
        assert_true(network->ring.alpha_ms > 0 && network->ring.bytes_per_ms > 0 && network->most_ranks >= 8);
    }
    assert_true(count >= 6);
}

static void test_the_error_is_relative_to_what_was_measured(void **state) {
    (void)state;
    const struct scaling_local local = {.predicted = {.step_ms = 88}, .words_ms = 2, .measured_ms = 100};
    assert_float_equal(scaling_error(&local), -0.1, 1e-12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_efficiencies_over_a_slow_network),
        cmocka_unit_test(test_messages_cost_words_too),
        cmocka_unit_test(test_more_ranks_than_it_connects_have_no_figure),
        cmocka_unit_test(test_where_cores_move_bytes_it_is_no_better_than_here),
        cmocka_unit_test(test_a_faster_rank_waits_for_the_same_sums),
        cmocka_unit_test(test_every_network_says_where_it_is_from),
        cmocka_unit_test(test_the_error_is_relative_to_what_was_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
