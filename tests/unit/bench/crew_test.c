#include "tests/bench/crew.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

enum { RANKS = 2, MIB = 1 << 20 };

static struct crew_report reports[RANKS];

static struct crew *open_small(bool lone, bool bf16_gradients) {
    struct crew_spec spec = {.subject = subject_options_default(), .ranks = RANKS, .lone = lone};
    struct error err = {0};
    spec.subject.architecture = "resnet18";
    spec.subject.size = 32;
    spec.subject.batch = 2;
    spec.subject.bucket_bytes = 16 * MIB;
    spec.subject.bf16_gradients = bf16_gradients;
    struct crew *crew = crew_open(&spec, &err);
    if (!crew)
        print_error("%s\n", err.message);
    assert_non_null(crew);
    return crew;
}

static void tell(struct crew *crew, enum crew_task task, int count, size_t bytes) {
    const struct crew_order order = {task, count, bytes};
    struct error err = {0};
    if (!crew_tell(crew, &order, reports, &err))
        print_error("%s\n", err.message);
    assert_int_equal(err.code, ERROR_NONE);
}

/* What a step sends is what the schedule says, in as many sums as it has buckets. */
static double check_steps(struct crew *crew) {
    double bytes = 0, buckets = 0;
    tell(crew, CREW_SCHEDULE, 1, 0);
    for (int i = 0; i < reports[0].count; i++) {
        assert_true(reports[0].ms[i] > 0);
        bytes += reports[0].bytes[i];
        buckets += reports[0].bytes[i] > 0;
    }
    assert_true(reports[0].update_ms > 0);
    assert_true(reports[0].sums == 0);
    tell(crew, CREW_STEPS, 2, 0);
    for (int rank = 0; rank < RANKS; rank++) {
        assert_int_equal(reports[rank].count, 2);
        assert_true(reports[rank].sums == 2 * buckets && reports[rank].sum_bytes == 2 * bytes);
        assert_true(reports[rank].busy_ms > 0 && reports[rank].waited_ms <= 2 * crew_mean_ms(&reports[rank]));
    }
    return bytes;
}

/* torchvision's ResNet-18 has 11,176,512 parameters before its head, which has 3 x 513. */
static void test_ranks_train_together(void **state) {
    (void)state;
    const double parameters = 11176512 + 3 * 513;
    struct crew *crew = open_small(false, false);
    double bytes = check_steps(crew);
    assert_true(bytes >= 4 * parameters && bytes < 4.01 * parameters); /* padded to whole blocks */
    crew_close(crew);
    crew = open_small(false, true);
    assert_true(check_steps(crew) == bytes / 2);
    crew_close(crew);
}

static void test_sums_alone_and_beside_compute(void **state) {
    (void)state;
    struct crew *crew = open_small(false, false);
    tell(crew, CREW_SUMS, 3, MIB);
    for (int rank = 0; rank < RANKS; rank++) {
        assert_int_equal(reports[rank].count, 3);
        assert_true(reports[rank].sums == 3 && reports[rank].sum_bytes == 3 * MIB);
    }
    tell(crew, CREW_SCHEDULE, 1, 0);
    tell(crew, CREW_OVERLAP, 60, 16 * MIB);
    for (int rank = 0; rank < RANKS; rank++) {
        assert_true(reports[rank].sums == 60);
        assert_true(reports[rank].alone_ms > 0 && reports[rank].elapsed_ms > 0);
    }
    crew_close(crew);
}

static void test_lone_ranks_send_nothing(void **state) {
    (void)state;
    struct crew *crew = open_small(true, true);
    tell(crew, CREW_STEPS, 2, 0);
    for (int rank = 0; rank < RANKS; rank++)
        assert_true(reports[rank].count == 2 && reports[rank].sums == 0 && reports[rank].busy_ms == 0);
    crew_close(crew);
}

static void test_a_rank_that_cannot_is_named(void **state) {
    (void)state;
    struct crew_spec spec = {.subject = subject_options_default(), .ranks = RANKS};
    struct error err = {0};
    spec.subject.architecture = "none such";
    assert_null(crew_open(&spec, &err));
    assert_int_equal(strncmp(err.message, "rank ", 5), 0);
    spec.ranks = CREW_MAX_RANKS + 1;
    assert_null(crew_open(&spec, &err));
    assert_int_equal(err.code, ERROR_INVALID);
}

static void test_an_order_for_nothing_is_refused(void **state) {
    (void)state;
    struct crew *crew = open_small(true, false);
    const struct crew_order order = {CREW_STEPS, 0, 0};
    struct error err = {0};
    assert_false(crew_tell(crew, &order, reports, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    tell(crew, CREW_STEPS, 1, 0); /* and does no harm */
    crew_close(crew);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_train_together),        cmocka_unit_test(test_sums_alone_and_beside_compute),
        cmocka_unit_test(test_lone_ranks_send_nothing),     cmocka_unit_test(test_a_rank_that_cannot_is_named),
        cmocka_unit_test(test_an_order_for_nothing_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
