#include "common/graph/buckets.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

enum { MOST = 16, KIB = 1 << 10, MIB = 1 << 20 };

/* Cuts gradients of these bytes, and compares how many each bucket holds. A 0 ends both. */
static void check_cut(size_t bucket_bytes, const size_t *bytes, const int *held) {
    size_t ends[MOST], sum = 0;
    int last[MOST], count = 0, begin = 0, wanted = 0;
    for (; bytes[count]; count++)
        ends[count] = sum += bytes[count];
    int found = buckets_cut(ends, count, bucket_bytes, last);
    for (; held[wanted]; wanted++) {
        assert_true(wanted < found);
        assert_int_equal(last[wanted] + 1 - begin, held[wanted]);
        begin = last[wanted] + 1;
    }
    assert_int_equal(found, wanted);
    assert_int_equal(begin, count);
}

#define CUT(bucket_bytes, bytes, held) check_cut(bucket_bytes, (const size_t[]){HELD bytes, 0}, (const int[]){HELD held, 0})
#define HELD(...) __VA_ARGS__

static void test_nothing_makes_no_bucket(void **state) {
    (void)state;
    CUT(25 * MIB, (0), (0));
}

static void test_little_makes_one_bucket(void **state) {
    (void)state;
    CUT(25 * MIB, (512 * KIB), (1));
    CUT(25 * MIB, (256 * KIB, 512 * KIB, 256 * KIB), (3)); /* 1 MiB in all */
}

/* The first bucket ends with 1 MiB, those between with 4, and the last takes what fits into 1. */
static void test_the_first_and_the_last_are_small(void **state) {
    (void)state;
    CUT(4 * MIB, (512 * KIB, 512 * KIB, 3 * MIB, MIB, 2 * MIB, 2 * MIB, MIB, 512 * KIB, 256 * KIB), (2, 2, 2, 1, 2));
    CUT(4 * MIB, (512 * KIB, 768 * KIB, 3 * MIB, 512 * KIB, 512 * KIB + 1), (2, 2, 1));
}

static void test_the_last_gradient_is_alone_where_it_is_large(void **state) {
    (void)state;
    CUT(25 * MIB, (2 * MIB, MIB, MIB, 30 * MIB), (1, 2, 1));
    CUT(25 * MIB, (30 * MIB), (1));
}

/* ResNet-50 with 3 classes, about: the head, layer 4 in its three blocks, layer 3 in six, layer 2, and the rest. */
static void test_a_large_gradient_is_not_torn(void **state) {
    (void)state;
    const size_t bytes[] = {256 * KIB, 17 * MIB, 17 * MIB, 23 * MIB, 4 * MIB, 4 * MIB,   4 * MIB,
                            4 * MIB,   4 * MIB,  6 * MIB,  5 * MIB,  768 * KIB, 0};
    check_cut(25 * MIB, bytes, (const int[]){2, 2, 6, 1, 1, 0});
}

static void test_tiny_buckets_hold_a_gradient_each(void **state) {
    (void)state;
    CUT(1, (64, 4, 64, 4), (1, 1, 1, 1));
}

static void test_the_small_ones_are_no_larger_than_the_others(void **state) {
    (void)state;
    CUT(128, (64, 64, 64, 64, 64, 64, 64), (2, 2, 1, 2));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_makes_no_bucket),
        cmocka_unit_test(test_little_makes_one_bucket),
        cmocka_unit_test(test_the_first_and_the_last_are_small),
        cmocka_unit_test(test_the_last_gradient_is_alone_where_it_is_large),
        cmocka_unit_test(test_a_large_gradient_is_not_torn),
        cmocka_unit_test(test_tiny_buckets_hold_a_gradient_each),
        cmocka_unit_test(test_the_small_ones_are_no_larger_than_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
