#include "inferd/ladder.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

/** Steps 1, 2, 4, 8 with these costs. */
static struct ladder measured(double one, double two, double four, double eight) {
    return (struct ladder){.count = 4, .images = {1, 2, 4, 8}, .cost_us = {one, two, four, eight}};
}

static void a_step_holds_the_images(void **state) {
    (void)state;
    struct ladder ladder = measured(1, 1, 1, 1);
    const int steps[] = {0, 0, 1, 2, 2, 3, 3, 3, 3, 3};
    for (int images = 1; images < 10; images++) {
        assert_int_equal(ladder_step(&ladder, images), steps[images]);
    }
}

static void all_are_taken_until_every_step_is_measured(void **state) {
    (void)state;
    struct ladder ladder = measured(10, 20, 0, 80);
    assert_int_equal(ladder_take(&ladder, 1), 1);
    assert_int_equal(ladder_take(&ladder, 5), 5);
    assert_int_equal(ladder_take(&ladder, 30), 8);
    ladder_note(&ladder, 2, 40);
    assert_int_equal(ladder_take(&ladder, 5), 1);
}

/** A CPU at its limit: eight images cost nearly eight times one. */
static void images_go_one_by_one_where_batches_gain_little(void **state) {
    (void)state;
    struct ladder ladder = measured(100, 198, 390, 740);
    for (int waiting = 1; waiting < 8; waiting++) {
        assert_int_equal(ladder_take(&ladder, waiting), 1);
    }
    assert_int_equal(ladder_take(&ladder, 8), 1);
    assert_int_equal(ladder_take(&ladder, 64), 8); /* a long queue: throughput counts */
    assert_int_equal(ladder_take(&ladder, 1000), 8);
}

/** A GPU: a batch costs about what one image does. */
static void all_go_at_once_where_batches_cost_like_one_image(void **state) {
    (void)state;
    struct ladder ladder = measured(100, 101, 103, 110);
    for (int waiting = 1; waiting <= 8; waiting++) {
        assert_int_equal(ladder_take(&ladder, waiting), waiting);
    }
}

/** Half price in batches: five cost less as four and one than padded to eight. */
static void no_batch_is_padded_where_exact_ones_are_faster(void **state) {
    (void)state;
    struct ladder ladder = measured(100, 120, 200, 380);
    assert_int_equal(ladder_take(&ladder, 2), 2);
    assert_int_equal(ladder_take(&ladder, 4), 4);
    assert_int_equal(ladder_take(&ladder, 5), 4);
    assert_int_equal(ladder_take(&ladder, 3), 2);
    assert_int_equal(ladder_take(&ladder, 7), 4);
}

static void the_largest_step_is_not_taken_where_a_smaller_one_is_cheaper(void **state) {
    (void)state;
    struct ladder ladder = measured(100, 150, 240, 900);
    assert_int_equal(ladder_take(&ladder, 8), 4);
    assert_int_equal(ladder_take(&ladder, 64), 4);
}

static void the_least_measurement_counts(void **state) {
    (void)state;
    struct ladder ladder = measured(0, 200, 400, 800);
    ladder_note(&ladder, 0, 130);
    ladder_note(&ladder, 0, 100);
    ladder_note(&ladder, 0, 100000); /* lost its core */
    assert_true(ladder.cost_us[0] == 100);
    assert_true(ladder.cost_us[1] == 200);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_holds_the_images),
        cmocka_unit_test(all_are_taken_until_every_step_is_measured),
        cmocka_unit_test(images_go_one_by_one_where_batches_gain_little),
        cmocka_unit_test(all_go_at_once_where_batches_cost_like_one_image),
        cmocka_unit_test(no_batch_is_padded_where_exact_ones_are_faster),
        cmocka_unit_test(the_largest_step_is_not_taken_where_a_smaller_one_is_cheaper),
        cmocka_unit_test(the_least_measurement_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
