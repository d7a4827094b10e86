#include "common/base/clock.h"
#include "common/base/rng.h"
#include "common/base/text.h"
#include "common/tensor/element.h"
#include "ranks.h"

#include <dirent.h>
#include <math.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t hash_of(const void *data, size_t size) {
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const uint8_t *)data)[i]) * 1099511628211u;
    return hash;
}

static const int64_t sizes[] = {0, 1, 2, 3, 7, 255, 1023, 65537, 600011};
enum { SIZE_COUNT = sizeof sizes / sizeof *sizes };

static float exact_value(int rank, int64_t i) {
    return (float)((i * 7 + rank * 13) % 1000 - 500);
}

/** Whole numbers this small add without rounding, so the expected sum is known exactly. */
static void body_sums(struct job *job, struct collective *collective) {
    for (int s = 0; s < SIZE_COUNT; s++) {
        float *buffer = malloc((size_t)sizes[s] * sizeof *buffer + 1);
        for (int64_t i = 0; i < sizes[s]; i++)
            buffer[i] = exact_value(job->rank, i);
        int ticket;
        CHECK(start(collective, buffer, DTYPE_F32, sizes[s], &ticket, NULL));
        CHECK(collective_wait(collective, ticket, -1, NULL));
        for (int64_t i = 0; i < sizes[s]; i++) {
            float expected = 0;
            for (int r = 0; r < job->world_size; r++)
                expected += exact_value(r, i);
            CHECK(buffer[i] == expected);
        }
        free(buffer);
    }
}

static void test_sums_odd_sizes_over_two_ranks(void **state) {
    (void)state;
    board_destroy(run_well(2, body_sums));
}

static void test_sums_odd_sizes_over_three_ranks(void **state) {
    (void)state;
    board_destroy(run_well(3, body_sums));
}

static void body_dtypes(struct job *job, struct collective *collective) {
    double f64[3] = {0.5, 1e300, -1.0 * job->rank};
    int32_t s32[3] = {1, -7, job->rank};
    int64_t s64[3] = {INT64_C(1) << 40, -1, job->rank};
    int tickets[3];
    CHECK(start(collective, f64, DTYPE_F64, 3, &tickets[0], NULL));
    CHECK(start(collective, s32, DTYPE_S32, 3, &tickets[1], NULL));
    CHECK(start(collective, s64, DTYPE_S64, 3, &tickets[2], NULL));
    for (int i = 0; i < 3; i++)
        CHECK(collective_wait(collective, tickets[i], -1, NULL));
    CHECK(f64[0] == 1.0 && f64[1] == 2e300 && f64[2] == -1.0);
    CHECK(s32[0] == 2 && s32[1] == -14 && s32[2] == 1);
    CHECK(s64[0] == INT64_C(1) << 41 && s64[1] == -2 && s64[2] == 1);
    struct error err = {0};
    CHECK(!start(collective, s32, DTYPE_U8, 3, &tickets[0], &err));
    CHECK(err.code == ERROR_UNSUPPORTED);
}

static void test_sums_every_type_and_refuses_the_rest(void **state) {
    (void)state;
    board_destroy(run_well(2, body_dtypes));
}

/** Ties go to the even neighbour, what is too large is infinite, and that stays. Between 256 and 512 bf16 has even numbers. */
static void body_bf16(struct job *job, struct collective *collective) {
    const float mine[][2] = {{256, 1}, {258, 1}, {256, 1.5f}, {0x1.fep127f, 0x1.fep127f}, {INFINITY, 1}, {-1, 1}};
    const float sums[] = {256, 260, 258, INFINITY, INFINITY, 0};
    enum { COUNT = sizeof sums / sizeof *sums };
    uint16_t bits[COUNT + 1];
    int ticket;
    for (int i = 0; i < COUNT; i++)
        element_store(bits, DTYPE_BF16, i, mine[i][job->rank]);
    element_store(bits, DTYPE_BF16, COUNT, job->rank ? (double)NAN : 1);
    CHECK(start(collective, bits, DTYPE_BF16, COUNT + 1, &ticket, NULL) && collective_wait(collective, ticket, -1, NULL));
    for (int i = 0; i < COUNT; i++)
        CHECK(element_load(bits, DTYPE_BF16, i) == sums[i]);
    CHECK(isnan(element_load(bits, DTYPE_BF16, COUNT)));
}

static void test_sums_in_bf16_are_rounded_to_nearest(void **state) {
    (void)state;
    board_destroy(run_well(2, body_bf16));
}

/** Values whose sum depends on the order of additions: only a fixed order gives equal bits. */
static void hash_sums(struct job *job, enum dtype dtype, struct collective *collective) {
    for (int s = 0; s < SIZE_COUNT; s++) {
        void *buffer = malloc((size_t)sizes[s] * dtype_size(dtype) + 1);
        struct rng rng;
        rng_init(&rng, 1, RNG_TEST, (uint64_t)job->rank, (uint32_t)s);
        for (int64_t i = 0; i < sizes[s]; i++)
            element_store(buffer, dtype, i, rng_normal(&rng) * (float)(1 << (i % 24)));
        int ticket;
        CHECK(start(collective, buffer, dtype, sizes[s], &ticket, NULL));
        CHECK(collective_wait(collective, ticket, -1, NULL));
        job->board->hash[job->rank][s] = hash_of(buffer, (size_t)sizes[s] * dtype_size(dtype));
        free(buffer);
    }
}

static void body_hash_f32(struct job *job, struct collective *collective) {
    hash_sums(job, DTYPE_F32, collective);
}

static void body_hash_bf16(struct job *job, struct collective *collective) {
    hash_sums(job, DTYPE_BF16, collective);
}

static void run_twice(void (*body)(struct job *, struct collective *)) {
    struct board *first = run_well(3, body), *second = run_well(3, body);
    for (int rank = 0; rank < 3; rank++) {
        assert_memory_equal(first->hash[rank], first->hash[0], sizeof first->hash[0]);
        assert_memory_equal(second->hash[rank], first->hash[0], sizeof first->hash[0]);
    }
    board_destroy(first);
    board_destroy(second);
}

static void test_sums_are_bitwise_equal_on_all_ranks_and_run_to_run(void **state) {
    (void)state;
    run_twice(body_hash_f32);
    run_twice(body_hash_bf16);
}

/** Some arithmetic that the compiler keeps. */
static double compute(int64_t rounds) {
    volatile double value = 1;
    for (int64_t i = 0; i < rounds; i++)
        value = value * 1.0000001 + 1e-9;
    return value;
}

/** A training step's shape: buckets start one after the other while the backward pass goes on; then all are
 * waited for. */
static void body_overlap(struct job *job, struct collective *collective) {
    enum { BUCKETS = 6, STEPS = 5, COUNT = 100003 };
    float *buckets[BUCKETS];
    int tickets[BUCKETS];
    for (int b = 0; b < BUCKETS; b++)
        buckets[b] = malloc(COUNT * sizeof(float));
    for (int step = 0; step < STEPS; step++) {
        for (int b = 0; b < BUCKETS; b++) {
            for (int64_t i = 0; i < COUNT; i++)
                buckets[b][i] = exact_value(job->rank + b + step, i);
            compute(200000 * (1 + job->rank));
            CHECK(start(collective, buckets[b], DTYPE_F32, COUNT, &tickets[b], NULL));
        }
        for (int b = BUCKETS - 1; b >= 0; b--) {
            CHECK(collective_wait(collective, tickets[b], clock_now_ms() + TIMEOUT_MS, NULL));
            for (int64_t i = 0; i < COUNT; i++)
                CHECK(buckets[b][i] == exact_value(b + step, i) + exact_value(1 + b + step, i));
        }
    }
    for (int b = 0; b < BUCKETS; b++)
        free(buckets[b]);
}

static void test_buckets_are_reduced_while_compute_goes_on(void **state) {
    (void)state;
    board_destroy(run_well(2, body_overlap));
}

static void body_exchange(struct job *job, struct collective *collective) {
    char word[16] = "nothing";
    if (job->rank == 1)
        snprintf(word, sizeof word, "weights");
    CHECK(collective_broadcast(collective, word, sizeof word, 1, NULL));
    CHECK(strcmp(word, "weights") == 0);
    int32_t mine[2] = {job->rank, job->rank * job->rank}, all[RANKS_MAX][2];
    CHECK(collective_allgather(collective, mine, sizeof mine, all, NULL));
    for (int r = 0; r < job->world_size; r++)
        CHECK(all[r][0] == r && all[r][1] == r * r);
    struct error err = {0};
    CHECK(!collective_broadcast(collective, word, sizeof word, job->world_size, &err) &&
          err.code == ERROR_INVALID);
}

static void test_broadcast_and_allgather(void **state) {
    (void)state;
    board_destroy(run_well(3, body_exchange));
}

/** Nobody may leave a barrier before the last one came. */
static void body_barrier(struct job *job, struct collective *collective) {
    if (job->rank == 0)
        clock_sleep_ms(200);
    job->board->ready[job->rank] = 1;
    CHECK(collective_barrier(collective, NULL));
    for (int r = 0; r < job->world_size; r++)
        CHECK(job->board->ready[r] == 1);
}

static void test_barrier_waits_for_the_last_rank(void **state) {
    (void)state;
    board_destroy(run_well(3, body_barrier));
}

/** Threads of this process with that scheduling policy. */
static int count_threads(int policy) {
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *task; tasks && (task = readdir(tasks));) {
        int64_t id;
        count += text_to_int(task->d_name, 1, INT32_MAX, &id, NULL) && sched_getscheduler((pid_t)id) == policy;
    }
    if (tasks)
        closedir(tasks);
    return count;
}

/** Gloo's own is one, which would spin where it pushes off who holds its lock; who computes goes on as before. */
static void body_policies(struct job *job, struct collective *collective) {
    (void)collective;
    CHECK(count_threads(SCHED_BATCH) == 1);
    CHECK(sched_getscheduler(0) == SCHED_OTHER);
}

static void test_gloos_thread_pushes_nobody_off_a_core(void **state) {
    (void)state;
    if (sched_getscheduler(0) != SCHED_OTHER)
        skip(); /* all of them are as the tests were started */
    board_destroy(run_well(2, body_policies));
}

/**
 * What is known of the clock: rank 1 starts its sums LATE_MS after rank 0, whose first is under way, and waited for, all that
 * time. Rank 1 then sleeps before it waits for its last, which is over by then.
 */
static void body_times(struct job *job, struct collective *collective) {
    enum { COUNT = 250000, LATE_MS = 200, MS = 1000000 };
    float *buffer = calloc(COUNT, sizeof *buffer);
    int64_t begin = clock_now_ns();
    int32_t mine = 0, all[RANKS_MAX];
    struct collective_times times;
    int tickets[2];
    CHECK(collective_read_times(collective, &times) && times.busy_ns == 0 && times.waited_ns == 0 && times.sums == 0);
    CHECK(collective_allgather(collective, &mine, sizeof mine, all, NULL)); /* is no sum */
    if (job->rank == 1)
        clock_sleep_ms(LATE_MS);
    CHECK(start(collective, buffer, DTYPE_F32, COUNT, &tickets[0], NULL));
    CHECK(start(collective, buffer, DTYPE_BF16, COUNT, &tickets[1], NULL));
    if (job->rank == 1)
        clock_sleep_ms(2 * LATE_MS);
    int64_t asked = clock_now_ns();
    CHECK(collective_wait(collective, tickets[1], -1, NULL) && collective_wait(collective, tickets[0], -1, NULL));
    int64_t end = clock_now_ns();
    CHECK(collective_read_times(collective, &times));
    CHECK(times.sums == 2 && times.bytes == COUNT * (4 + 2));
    CHECK(times.busy_ns > 0 && times.busy_ns <= end - begin);
    CHECK(times.waited_ns <= end - asked);
    CHECK(job->rank == 1 || (times.busy_ns >= (LATE_MS - 50) * MS && times.waited_ns >= (LATE_MS - 50) * MS));
    CHECK(job->rank == 0 || times.waited_ns < LATE_MS * MS);
    free(buffer);
}

static void test_tells_how_long_sums_took_and_were_waited_for(void **state) {
    (void)state;
    board_destroy(run_well(2, body_times));
}

static void body_quick_end(struct job *job, struct collective *collective) {
    float value[5] = {1, 2, 3, 4, 5};
    int ticket;
    CHECK(start(collective, value, DTYPE_F32, 5, &ticket, NULL));
    CHECK(collective_wait(collective, ticket, -1, NULL));
}

static void test_a_rank_that_ends_first_does_not_fail_the_others(void **state) {
    (void)state;
    for (int i = 0; i < 10; i++)
        board_destroy(run_well(3, body_quick_end));
}

static void test_a_wrong_spec_is_refused(void **state) {
    (void)state;
    struct error err = {0};
    struct collective_spec unknown = {.name = "mpi", .world_size = 1, .timeout_ms = 1};
    assert_null(collective_open(&unknown, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    struct collective_spec outside = {.name = "solo", .rank = 1, .world_size = 1, .timeout_ms = 1};
    assert_null(collective_open(&outside, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    struct collective_spec many = {.name = "solo", .world_size = 2, .timeout_ms = 1};
    assert_null(collective_open(&many, &err));
    assert_int_equal(err.code, ERROR_INVALID);
}

static void test_solo_leaves_the_buffer_as_it_is(void **state) {
    (void)state;
    struct collective_spec spec = {.name = "solo", .world_size = 1, .timeout_ms = 1};
    struct collective *solo = collective_open(&spec, NULL);
    assert_non_null(solo);
    float buffer[2] = {1.5f, -2};
    int ticket, mine = 7, all = 0;
    assert_true(start(solo, buffer, DTYPE_F32, 2, &ticket, NULL));
    assert_true(collective_wait(solo, ticket, -1, NULL));
    assert_true(buffer[0] == 1.5f && buffer[1] == -2);
    assert_true(collective_allgather(solo, &mine, sizeof mine, &all, NULL) && all == 7);
    assert_true(collective_broadcast(solo, buffer, sizeof buffer, 0, NULL) && collective_barrier(solo, NULL));
    struct collective_times times = {.sums = 1};
    assert_false(collective_read_times(solo, &times));
    assert_int_equal(times.sums, 0);
    collective_abort(solo);
    assert_false(collective_barrier(solo, NULL));
    collective_close(solo);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_odd_sizes_over_two_ranks),
        cmocka_unit_test(test_sums_odd_sizes_over_three_ranks),
        cmocka_unit_test(test_sums_every_type_and_refuses_the_rest),
        cmocka_unit_test(test_sums_in_bf16_are_rounded_to_nearest),
        cmocka_unit_test(test_sums_are_bitwise_equal_on_all_ranks_and_run_to_run),
        cmocka_unit_test(test_buckets_are_reduced_while_compute_goes_on),
        cmocka_unit_test(test_broadcast_and_allgather),
        cmocka_unit_test(test_barrier_waits_for_the_last_rank),
        cmocka_unit_test(test_gloos_thread_pushes_nobody_off_a_core),
        cmocka_unit_test(test_tells_how_long_sums_took_and_were_waited_for),
        cmocka_unit_test(test_a_rank_that_ends_first_does_not_fail_the_others),
        cmocka_unit_test(test_a_wrong_spec_is_refused),
        cmocka_unit_test(test_solo_leaves_the_buffer_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
