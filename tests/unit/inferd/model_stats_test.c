#include "inferd/model_stats.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

enum { THREADS = 4, ROUNDS = 5000 };

static struct digest model(int which) {
    return (struct digest){{(uint8_t)which}};
}

static void each_model_has_its_own_counts(void **state) {
    (void)state;
    struct model_stats *stats = model_stats_create();
    struct model_record records[MODEL_STATS_MAX];
    struct digest one = model(1), two = model(2);
    assert_int_equal(model_stats_copy(stats, records), 0);
    for (int i = 1; i <= 100; i++) {
        model_stats_answered(stats, &one, (uint64_t)i * 1000);
    }
    model_stats_failed(stats, &one);
    model_stats_compared(stats, &two, true, 0.25);
    model_stats_compared(stats, &two, false, -0.5);
    model_stats_shadow_failed(stats, &two);
    assert_int_equal(model_stats_copy(stats, records), 2);
    assert_true(digest_equal(&records[0].digest, &two) && digest_equal(&records[1].digest, &one));
    assert_int_equal(records[1].answered, 100);
    assert_int_equal(records[1].failed, 1);
    assert_int_equal(records[1].latency.total, 100);
    uint64_t median = histogram_quantile_us(&records[1].latency, 0.5);
    assert_true(median >= 50000 && median <= 50000 + 50000 / 32);
    assert_int_equal(records[0].answered, 0);
    assert_int_equal(records[0].compared, 3);
    assert_int_equal(records[0].agreed, 1);
    assert_int_equal(records[0].shadow_failed, 1);
    assert_true(records[0].drift_sum == -0.25);
    assert_true(records[0].drift_square_sum == 0.0625 + 0.25);
    model_stats_destroy(stats);
}

static void the_model_used_least_recently_makes_room(void **state) {
    (void)state;
    struct model_stats *stats = model_stats_create();
    struct model_record records[MODEL_STATS_MAX];
    for (int i = 1; i <= MODEL_STATS_MAX; i++) {
        struct digest digest = model(i);
        model_stats_answered(stats, &digest, 1);
    }
    struct digest first = model(1), second = model(2), another = model(99);
    model_stats_answered(stats, &first, 1);
    model_stats_answered(stats, &another, 1);
    assert_int_equal(model_stats_copy(stats, records), MODEL_STATS_MAX);
    assert_true(digest_equal(&records[0].digest, &another) && records[0].answered == 1);
    assert_int_equal(records[0].latency.total, 1);
    assert_true(digest_equal(&records[1].digest, &first) && records[1].answered == 2);
    for (int i = 0; i < MODEL_STATS_MAX; i++) {
        assert_false(digest_equal(&records[i].digest, &second));
    }
    model_stats_destroy(stats);
}

static void *record(void *context) {
    for (int i = 0; i < ROUNDS; i++) {
        struct digest digest = model(i % 3);
        model_stats_answered(context, &digest, (uint64_t)i);
        model_stats_compared(context, &digest, true, 1);
    }
    return NULL;
}

static void no_count_is_lost_between_threads(void **state) {
    (void)state;
    struct model_stats *stats = model_stats_create();
    struct model_record records[MODEL_STATS_MAX];
    pthread_t threads[THREADS];
    uint64_t answered = 0, compared = 0;
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, record, stats), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(model_stats_copy(stats, records), 3);
    for (int i = 0; i < 3; i++) {
        answered += records[i].answered;
        compared += records[i].compared;
        assert_int_equal(records[i].latency.total, records[i].answered);
    }
    assert_int_equal(answered, THREADS * ROUNDS);
    assert_int_equal(compared, THREADS * ROUNDS);
    model_stats_destroy(stats);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_model_has_its_own_counts),
        cmocka_unit_test(the_model_used_least_recently_makes_room),
        cmocka_unit_test(no_count_is_lost_between_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
