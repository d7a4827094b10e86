#include "trainerd/cluster_shape.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void check(struct cluster_batch batch, int available, int ranks, int parts) {
    int got_ranks, got_parts;
    cluster_shape(&batch, available, &got_ranks, &got_parts);
    assert_int_equal(got_ranks, ranks);
    assert_int_equal(got_parts, parts);
    assert_int_equal(batch.images % (got_ranks * got_parts), 0);
}

static void test_all_ranks_as_configured(void **state) {
    (void)state;
    check((struct cluster_batch){.images = 16, .ranks = 4, .parts = 1}, 4, 4, 1);
    check((struct cluster_batch){.images = 64, .ranks = 4, .parts = 4}, 4, 4, 4);
    check((struct cluster_batch){.images = 16, .ranks = 4, .parts = 1}, 9, 4, 1); /* more than there ever were */
}

/** 16 images in slices of 4, whoever computes them. */
static void test_images_in_a_part_stay(void **state) {
    (void)state;
    check((struct cluster_batch){.images = 16, .ranks = 4, .parts = 1}, 2, 2, 2);
    check((struct cluster_batch){.images = 16, .ranks = 4, .parts = 1}, 1, 1, 4);
    check((struct cluster_batch){.images = 64, .ranks = 4, .parts = 2}, 2, 2, 4);
}

/** Three cannot share 16 evenly: two do, and one waits. Of 24 in three slices of 8 two ranks take 12 each, in one part. */
static void test_what_does_not_come_out_even(void **state) {
    (void)state;
    check((struct cluster_batch){.images = 16, .ranks = 4, .parts = 1}, 3, 2, 2);
    check((struct cluster_batch){.images = 24, .ranks = 3, .parts = 1}, 2, 2, 1);
    check((struct cluster_batch){.images = 7, .ranks = 7, .parts = 1}, 6, 1, 7);
}

static void test_synchronised_statistics_keep_the_parts(void **state) {
    (void)state;
    check((struct cluster_batch){.images = 16, .ranks = 4, .parts = 1, .keeps_parts = true}, 2, 2, 1);
    check((struct cluster_batch){.images = 16, .ranks = 4, .parts = 2, .keeps_parts = true}, 3, 2, 2);
}

static void test_an_uneven_batch_is_refused(void **state) {
    (void)state;
    struct cluster_batch batch = {.images = 10, .ranks = 4, .parts = 1};
    struct error err = {0};
    assert_false(cluster_shape_check(&batch, &err));
    assert_string_equal(err.message, "train.batch_size: 10 images cannot be shared evenly by 4 ranks and train.parts 1");
    batch.images = 12;
    assert_true(cluster_shape_check(&batch, &err));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_ranks_as_configured),
        cmocka_unit_test(test_images_in_a_part_stay),
        cmocka_unit_test(test_what_does_not_come_out_even),
        cmocka_unit_test(test_synchronised_statistics_keep_the_parts),
        cmocka_unit_test(test_an_uneven_batch_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
