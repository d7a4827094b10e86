#include "common/base/clock.h"
#include "inferd/batcher.h"
#include "tests/unit/inferd/fake_model.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { FAR_NS = 60 * 1000 * 1000 };
static const int64_t HOUR_NS = INT64_C(3600) * 1000 * 1000 * 1000;

/** Jobs of two models, and a batcher for up to 4 without delay. */
struct bench {
    struct batcher *batcher;
    struct model *first, *second;
    struct job jobs[12];
    struct batch batch;
};

static int bench_init(void **state) {
    struct bench *bench = calloc(1, sizeof *bench);
    bench->batcher = batcher_create(&(struct batcher_spec){.max_batch = 4});
    bench->first = fake_model(&(struct fake_model_spec){.name = "first"});
    bench->second = fake_model(&(struct fake_model_spec){.name = "second", .max_batch = 2});
    for (int i = 0; i < 12; i++) {
        bench->jobs[i].model = bench->first;
        bench->jobs[i].deadline_ns = clock_now_ns() + HOUR_NS;
    }
    *state = bench;
    return 0;
}

static int bench_fini(void **state) {
    struct bench *bench = *state;
    batcher_destroy(bench->batcher);
    model_release(bench->first);
    model_release(bench->second);
    free(bench);
    return 0;
}

static void push(struct bench *bench, int from, int to) {
    for (int i = from; i < to; i++) {
        batcher_push(bench->batcher, &bench->jobs[i]);
    }
}

static void jobs_leave_in_order_of_arrival_and_in_full_batches(void **state) {
    struct bench *bench = *state;
    push(bench, 0, 6);
    assert_true(batcher_take(bench->batcher, &bench->batch));
    assert_int_equal(bench->batch.count, 4);
    for (int i = 0; i < 4; i++) {
        assert_ptr_equal(bench->batch.jobs[i], &bench->jobs[i]);
    }
    assert_true(batcher_take(bench->batcher, &bench->batch));
    assert_int_equal(bench->batch.count, 2);
}

static void urgent_jobs_go_first(void **state) {
    struct bench *bench = *state;
    bench->jobs[5].urgent = true;
    push(bench, 0, 6);
    assert_true(batcher_take(bench->batcher, &bench->batch));
    assert_ptr_equal(bench->batch.jobs[0], &bench->jobs[5]);
    assert_ptr_equal(bench->batch.jobs[1], &bench->jobs[0]);
    batcher_take(bench->batcher, &bench->batch);
}

static void a_batch_is_of_one_model_and_within_its_limit(void **state) {
    struct bench *bench = *state;
    bench->jobs[0].model = bench->jobs[2].model = bench->jobs[3].model = bench->second;
    push(bench, 0, 5);
    assert_true(batcher_take(bench->batcher, &bench->batch));
    assert_int_equal(bench->batch.count, 2);
    assert_ptr_equal(bench->batch.jobs[0], &bench->jobs[0]);
    assert_ptr_equal(bench->batch.jobs[1], &bench->jobs[2]);
    assert_true(batcher_take(bench->batcher, &bench->batch));
    assert_int_equal(bench->batch.count, 2);
    assert_ptr_equal(bench->batch.jobs[0], &bench->jobs[1]);
    assert_ptr_equal(bench->batch.jobs[1], &bench->jobs[4]);
    assert_true(batcher_take(bench->batcher, &bench->batch));
    assert_ptr_equal(bench->batch.jobs[0], &bench->jobs[3]);
}

static void expired_jobs_are_set_apart_and_take_no_place(void **state) {
    struct bench *bench = *state;
    bench->jobs[0].deadline_ns = bench->jobs[3].deadline_ns = clock_now_ns() - 1;
    push(bench, 0, 6);
    assert_true(batcher_take(bench->batcher, &bench->batch));
    assert_int_equal(bench->batch.count, 4);
    assert_int_equal(bench->batch.expired_count, 2);
    assert_ptr_equal(bench->batch.expired[1], &bench->jobs[3]);
    assert_int_equal(bench->batch.expired[0]->status, THORAX__V1__STATUS__STATUS_DEADLINE_EXCEEDED);
}

static void a_lone_job_waits_for_company_as_long_as_the_delay(void **state) {
    (void)state;
    struct batch batch;
    struct model *model = fake_model(&(struct fake_model_spec){.name = "one"});
    struct job job = {.model = model, .deadline_ns = clock_now_ns() + HOUR_NS};
    struct batcher *batcher =
        batcher_create(&(struct batcher_spec){.max_batch = 4, .max_delay_us = FAR_NS / 1000});
    int64_t start = clock_now_ns();
    batcher_push(batcher, &job);
    assert_true(batcher_take(batcher, &batch));
    assert_true(clock_now_ns() - start >= FAR_NS);
    assert_int_equal(batch.count, 1);
    batcher_destroy(batcher);
    model_release(model);
}

static void a_full_batch_does_not_wait(void **state) {
    (void)state;
    struct batch batch;
    struct model *model = fake_model(&(struct fake_model_spec){.name = "one"});
    struct job jobs[4];
    struct batcher *batcher =
        batcher_create(&(struct batcher_spec){.max_batch = 4, .max_delay_us = HOUR_NS / 1000});
    for (int i = 0; i < 4; i++) {
        jobs[i] = (struct job){.model = model, .deadline_ns = clock_now_ns() + HOUR_NS};
        batcher_push(batcher, &jobs[i]);
    }
    assert_true(batcher_take(batcher, &batch));
    assert_int_equal(batch.count, 4);
    batcher_destroy(batcher);
    model_release(model);
}

static void closing_hands_out_what_is_left_and_ends(void **state) {
    struct bench *bench = *state;
    push(bench, 0, 1);
    batcher_close(bench->batcher);
    assert_true(batcher_take(bench->batcher, &bench->batch));
    assert_int_equal(bench->batch.count, 1);
    assert_false(batcher_take(bench->batcher, &bench->batch));
}

static void each_taker_leaves_the_others_their_part(void **state) {
    static const int counts[] = {2, 1, 1};
    struct bench *bench = *state;
    batcher_destroy(bench->batcher);
    bench->batcher = batcher_create(&(struct batcher_spec){.max_batch = 4, .takers = 2});
    push(bench, 0, 4);
    for (int i = 0; i < 3; i++) {
        assert_true(batcher_take(bench->batcher, &bench->batch));
        assert_int_equal(bench->batch.count, counts[i]);
    }
}

/** Takes until the batcher is closed. */
struct taker {
    struct batcher *batcher;
    atomic_int *taken;
    pthread_t thread;
};

static void *take_all(void *context) {
    struct taker *taker = context;
    struct batch batch;
    while (batcher_take(taker->batcher, &batch)) {
        atomic_fetch_add(taker->taken, batch.count);
        clock_sleep_ms(20); /* so long that the other one has to come for the rest */
    }
    return NULL;
}

/** Rounds of two jobs, which nothing but their delay makes due: both takers have to wake for it. */
static void takers_share_what_becomes_due(void **state) {
    enum { ROUNDS = 5 };
    struct bench *bench = *state;
    atomic_int taken = 0;
    struct taker takers[2];
    batcher_destroy(bench->batcher);
    bench->batcher = batcher_create(&(struct batcher_spec){.max_batch = 4, .max_delay_us = 1000, .takers = 2});
    for (int i = 0; i < 2; i++) {
        takers[i] = (struct taker){.batcher = bench->batcher, .taken = &taken};
        assert_int_equal(pthread_create(&takers[i].thread, NULL, take_all, &takers[i]), 0);
    }
    for (int round = 1; round <= ROUNDS; round++) {
        int64_t deadline = clock_now_ms() + 10000;
        push(bench, 2 * round - 2, 2 * round);
        while (atomic_load(&taken) < 2 * round && clock_left_ms(deadline) > 0) {
            clock_sleep_ms(1);
        }
        assert_int_equal(atomic_load(&taken), 2 * round);
    }
    batcher_close(bench->batcher);
    for (int i = 0; i < 2; i++) {
        pthread_join(takers[i].thread, NULL);
    }
}

int main(void) {
#define BENCH_TEST(name) cmocka_unit_test_setup_teardown(name, bench_init, bench_fini)
    const struct CMUnitTest tests[] = {
        BENCH_TEST(jobs_leave_in_order_of_arrival_and_in_full_batches),
        BENCH_TEST(urgent_jobs_go_first),
        BENCH_TEST(a_batch_is_of_one_model_and_within_its_limit),
        BENCH_TEST(expired_jobs_are_set_apart_and_take_no_place),
        cmocka_unit_test(a_lone_job_waits_for_company_as_long_as_the_delay),
        cmocka_unit_test(a_full_batch_does_not_wait),
        BENCH_TEST(closing_hands_out_what_is_left_and_ends),
        BENCH_TEST(each_taker_leaves_the_others_their_part),
        BENCH_TEST(takers_share_what_becomes_due),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
