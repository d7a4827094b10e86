#include "common/base/clock.h"
#include "ranks.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <cmocka.h>

enum { KILL_COUNT = 300000 };

/** Reduces until it fails; leaves the error and how long the failing call took on the board. */
static void reduce_until_failure(struct job *job, struct collective *collective) {
    float *buffer = calloc(KILL_COUNT, sizeof *buffer);
    struct error *err = &job->board->error[job->rank];
    for (;;) {
        int ticket;
        int64_t start_ms = clock_now_ms();
        bool ok = start(collective, buffer, DTYPE_F32, KILL_COUNT, &ticket, err) &&
                  collective_wait(collective, ticket, -1, err);
        job->board->took_ms[job->rank] = clock_now_ms() - start_ms;
        if (!ok)
            break;
    }
    free(buffer);
}

static void body_killed(struct job *job, struct collective *collective) {
    if (job->rank == 1) {
        float *buffer = calloc(KILL_COUNT, sizeof *buffer);
        int ticket;
        for (int step = 0; step < 3; step++) {
            CHECK(start(collective, buffer, DTYPE_F32, KILL_COUNT, &ticket, NULL));
            CHECK(collective_wait(collective, ticket, -1, NULL));
        }
        raise(SIGKILL);
    }
    reduce_until_failure(job, collective);
    struct error again = {0};
    int64_t start_ms = clock_now_ms();
    CHECK(!collective_barrier(collective, &again));
    CHECK(clock_now_ms() - start_ms < 1000);
    CHECK(strcmp(again.message, job->board->error[job->rank].message) == 0);
}

static void test_a_killed_rank_fails_the_others_at_once(void **state) {
    (void)state;
    struct job job = {
        .world_size = 3, .timeout_ms = TIMEOUT_MS, .board = board_create(), .body = body_killed};
    int statuses[RANKS_MAX];
    run_ranks(&job, statuses);
    assert_true(WIFSIGNALED(statuses[1]) && WTERMSIG(statuses[1]) == SIGKILL);
    for (int rank = 0; rank < 3; rank += 2) {
        assert_int_equal(statuses[rank], 0);
        assert_int_equal(job.board->error[rank].code, ERROR_PEER);
        assert_true(job.board->took_ms[rank] < TIMEOUT_MS / 2);
    }
    /* At least one of the two saw the connection of rank 1 itself break. */
    assert_true(strstr(job.board->error[0].message, "rank 1 is gone") ||
                strstr(job.board->error[2].message, "rank 1 is gone"));
    board_destroy(job.board);
}

static void body_stopped(struct job *job, struct collective *collective) {
    if (job->rank == 1) {
        job->board->ready[1] = getpid();
        raise(SIGSTOP);
        _exit(0);
    }
    reduce_until_failure(job, collective);
    kill(job->board->ready[1], SIGKILL);
}

static void test_a_hung_rank_is_a_timeout_that_names_it(void **state) {
    (void)state;
    struct job job = {.world_size = 2, .timeout_ms = 1500, .board = board_create(), .body = body_stopped};
    int statuses[RANKS_MAX];
    run_ranks(&job, statuses);
    assert_int_equal(statuses[0], 0);
    assert_int_equal(job.board->error[0].code, ERROR_TIMEOUT);
    assert_non_null(strstr(job.board->error[0].message, "rank 1 did not answer in time"));
    assert_in_range(job.board->took_ms[0], 1000, 6000);
    board_destroy(job.board);
}

/** Rank 0 waits with a deadline for what rank 1 never starts; its buffer must be its own again afterwards. */
static void body_deadline(struct job *job, struct collective *collective) {
    if (job->rank == 0) {
        float *buffer = calloc(1000, sizeof *buffer);
        struct error err = {0};
        int ticket;
        CHECK(start(collective, buffer, DTYPE_F32, 1000, &ticket, NULL));
        int64_t start_ms = clock_now_ms();
        CHECK(!collective_wait(collective, ticket, start_ms + 300, &err));
        CHECK(err.code == ERROR_TIMEOUT && clock_now_ms() - start_ms < 5000);
        free(buffer); /* AddressSanitizer sees any late write */
        job->board->ready[0] = 1;
    }
    while (!job->board->ready[0])
        clock_sleep_ms(5);
    struct error err = {0};
    CHECK(!collective_barrier(collective, &err));
}

static void test_a_deadline_ends_the_wait_and_returns_the_buffer(void **state) {
    (void)state;
    board_destroy(run_well(2, body_deadline));
}

static void body_abort(struct job *job, struct collective *collective) {
    struct error err = {0};
    int64_t start_ms = clock_now_ms();
    if (job->rank == 0) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, abort_soon, collective) == 0);
        CHECK(!collective_barrier(collective, &err));
        CHECK(err.code == ERROR_STATE && strstr(err.message, "aborted"));
        pthread_join(thread, NULL);
    } else {
        while (clock_now_ms() - start_ms < 400)
            clock_sleep_ms(10);
        CHECK(!collective_barrier(collective, &err));
        CHECK(err.code == ERROR_PEER && strstr(err.message, "rank 0 is gone"));
    }
    CHECK(clock_now_ms() - start_ms < TIMEOUT_MS / 2);
}

static void test_abort_unblocks_this_rank_and_the_others(void **state) {
    (void)state;
    board_destroy(run_well(2, body_abort));
}

static void test_a_rank_that_never_comes_is_a_timeout(void **state) {
    (void)state;
    struct job job = {.rank = 0, .world_size = 2, .timeout_ms = 500};
    snprintf(job.folder, sizeof job.folder, "/tmp/thorax-test-XXXXXX");
    assert_non_null(mkdtemp(job.folder));
    struct error err = {0};
    int64_t start_ms = clock_now_ms();
    assert_null(open_rank(&job, &err));
    assert_int_equal(err.code, ERROR_TIMEOUT);
    assert_non_null(strstr(err.message, "was never set"));
    assert_true(clock_now_ms() - start_ms < 5000);
    assert_true(file_remove_tree(job.folder, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_killed_rank_fails_the_others_at_once),
        cmocka_unit_test(test_a_hung_rank_is_a_timeout_that_names_it),
        cmocka_unit_test(test_a_deadline_ends_the_wait_and_returns_the_buffer),
        cmocka_unit_test(test_abort_unblocks_this_rank_and_the_others),
        cmocka_unit_test(test_a_rank_that_never_comes_is_a_timeout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
