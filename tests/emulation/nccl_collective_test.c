#include "common/base/clock.h"
#include "common/base/digest.h"
#include "common/base/rng.h"
#include "ranks.h"
#include "tests/emulation/emulation.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

/* trainerd/collective/nccl.c, in libthorax-cuda.so, over the emulation. A rank with findings ends with 86. */

enum { COUNT = 5000, BYTES = COUNT * (int)sizeof(float), FOUND = EMULATION_EXIT_FINDING << 8, LINGER_MS = 1500 };

/** A rank's device memory, and the stream that it computes on. */
struct gpu {
    cudaStream_t stream;
    cudaEvent_t ready;
    float *memory; /* (COUNT) */
};

static struct gpu gpu_open(const struct job *job) {
    struct gpu gpu;
    CHECK(cudaStreamCreateWithFlags(&gpu.stream, cudaStreamNonBlocking) == cudaSuccess);
    CHECK(cudaEventCreateWithFlags(&gpu.ready, cudaEventDisableTiming) == cudaSuccess);
    CHECK(cudaMalloc((void **)&gpu.memory, BYTES) == cudaSuccess);
    return gpu;
}

static void gpu_close(const struct job *job, struct gpu *gpu) {
    CHECK(cudaStreamSynchronize(gpu->stream) == cudaSuccess);
    CHECK(cudaStreamDestroy(gpu->stream) == cudaSuccess);
    CHECK(cudaEventDestroy(gpu->ready) == cudaSuccess);
    CHECK(cudaFree(gpu->memory) == cudaSuccess);
}

/** Computes, as far as anybody can see: the values arrive on the stream, and `ready` behind them. */
static void compute(const struct job *job, struct gpu *gpu, const float *values) {
    CHECK(cudaMemcpyAsync(gpu->memory, values, BYTES, cudaMemcpyHostToDevice, gpu->stream) == cudaSuccess);
    CHECK(cudaEventRecord(gpu->ready, gpu->stream) == cudaSuccess);
}

static void fetch(const struct job *job, struct gpu *gpu, float *values) {
    CHECK(cudaMemcpyAsync(values, gpu->memory, BYTES, cudaMemcpyDeviceToHost, gpu->stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(gpu->stream) == cudaSuccess);
}

static bool start_on(struct collective *collective, struct gpu *gpu, int64_t count, int *ticket, struct error *err) {
    struct collective_piece piece = {gpu->memory, DTYPE_F32, count, (struct event *)gpu->ready};
    return collective_start(collective, &piece, ticket, err);
}

static void draw(int rank, float *values) {
    struct rng rng;
    rng_init(&rng, 7, RNG_TEST, (uint64_t)rank, 0);
    for (int i = 0; i < COUNT; i++)
        values[i] = rng_normal(&rng);
}

/* --- what goes well --- */

/** The compute stream goes on behind the sum without the host. */
static void body_sum(struct job *job, struct collective *collective) {
    static float values[COUNT], sums[COUNT], wanted[COUNT], theirs[COUNT];
    struct gpu gpu = gpu_open(job);
    int ticket;
    draw(job->rank, values);
    compute(job, &gpu, values);
    CHECK(start_on(collective, &gpu, COUNT, &ticket, NULL));
    CHECK(cudaStreamWaitEvent(gpu.stream, (cudaEvent_t)collective_done_event(collective, ticket), 0) == cudaSuccess);
    fetch(job, &gpu, sums);
    CHECK(collective_wait(collective, ticket, -1, NULL));
    for (int rank = 0; rank < job->world_size; rank++) {
        draw(rank, theirs);
        for (int i = 0; i < COUNT; i++)
            wanted[i] += theirs[i];
    }
    CHECK(memcmp(sums, wanted, sizeof sums) == 0);
    gpu_close(job, &gpu);
}

static void sums_are_the_same_on_all_ranks(void **state) {
    (void)state;
    board_destroy(run_well(1, body_sum));
    board_destroy(run_well(2, body_sum));
    board_destroy(run_well(4, body_sum));
}

static void body_exchange(struct job *job, struct collective *collective) {
    static char mine[COLLECTIVE_ALLGATHER_MAX / 8], all[4 * sizeof mine];
    struct gpu gpu = gpu_open(job);
    static float values[COUNT];
    for (size_t size = 1; size <= sizeof mine; size *= 64) { /* the largest need more than there is room for at first */
        memset(mine, 'a' + job->rank, size);
        CHECK(collective_allgather(collective, mine, size, all, NULL));
        for (int rank = 0; rank < job->world_size; rank++)
            CHECK(all[(size_t)rank * size] == 'a' + rank && all[((size_t)rank + 1) * size - 1] == 'a' + rank);
    }
    draw(job->rank, values);
    compute(job, &gpu, values);
    CHECK(cudaStreamSynchronize(gpu.stream) == cudaSuccess);
    CHECK(collective_broadcast(collective, gpu.memory, BYTES, 1, NULL));
    fetch(job, &gpu, values);
    struct digest digest = digest_of(values, sizeof values);
    memcpy(&job->board->hash[job->rank][0], &digest, sizeof(uint64_t));
    if (job->rank == 1) {
        clock_sleep_ms(200);
        job->board->ready[1] = 1;
    }
    CHECK(collective_barrier(collective, NULL) && job->board->ready[1]);
    gpu_close(job, &gpu);
}

static void gathers_spreads_and_meets(void **state) {
    (void)state;
    static float values[COUNT];
    draw(1, values);
    struct digest digest = digest_of(values, sizeof values);
    for (int ranks = 2; ranks <= 4; ranks += 2) {
        struct board *board = run_well(ranks, body_exchange);
        for (int rank = 0; rank < ranks; rank++)
            assert_memory_equal(&board->hash[rank][0], &digest, sizeof(uint64_t));
        board_destroy(board);
    }
}

/** More than there are tickets, waited for now and then, in any order. */
static void body_many(struct job *job, struct collective *collective) {
    enum { ROUNDS = 3, EACH = COLLECTIVE_TICKETS - 10 };
    static int tickets[EACH];
    struct gpu gpu = gpu_open(job);
    float values[COUNT] = {1};
    compute(job, &gpu, values);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < EACH; i++)
            CHECK(start_on(collective, &gpu, 1 + i, &tickets[i], NULL));
        for (int i = EACH - 1; i >= 0; i--)
            CHECK(collective_wait(collective, tickets[i], -1, NULL));
        CHECK(cudaMemsetAsync(gpu.memory, 0, BYTES, gpu.stream) == cudaSuccess);
        CHECK(cudaEventRecord(gpu.ready, gpu.stream) == cudaSuccess);
    }
    gpu_close(job, &gpu);
}

static void many_tickets_are_under_way(void **state) {
    (void)state;
    board_destroy(run_well(2, body_many));
}

static void body_describe(struct job *job, struct collective *collective) {
    CHECK(strcmp(collective_describe(collective),
                 "nccl 2.28.9, 2 ranks; 0: CPU emulation (0000:00:00.0); 1: CPU emulation (0000:01:00.0)") == 0);
}

static void ranks_know_where_they_are(void **state) {
    (void)state;
    board_destroy(run_well(2, body_describe));
}

/* --- ranks that are lost --- */

/** Bodies that open the collective themselves. */
static void open_well(int ranks, void (*body)(struct job *job, struct collective *collective)) {
    struct job job = {
        .world_size = ranks, .timeout_ms = TIMEOUT_MS, .board = board_create(), .opens = true, .body = body};
    int statuses[RANKS_MAX];
    run_ranks(&job, statuses);
    for (int rank = 0; rank < ranks; rank++)
        assert_int_equal(statuses[rank], 0);
    board_destroy(job.board);
}

/** Reduces until it fails; leaves the error and how long the failing call took. */
static void reduce_until_failure(struct job *job, struct collective *collective, struct gpu *gpu) {
    struct error *err = &job->board->error[job->rank], again = {0};
    for (bool ok = true; ok;) {
        int ticket;
        int64_t start_ms = clock_now_ms();
        ok = start_on(collective, gpu, COUNT, &ticket, err) && collective_wait(collective, ticket, -1, err);
        job->board->took_ms[job->rank] = clock_now_ms() - start_ms;
    }
    CHECK(!collective_barrier(collective, &again) && strcmp(again.message, err->message) == 0);
}

static void body_lost(struct job *job, struct collective *collective, int signal) {
    static float values[COUNT];
    struct gpu gpu = gpu_open(job);
    int ticket;
    compute(job, &gpu, values);
    if (job->rank == 1) {
        for (int i = 0; i < 3; i++)
            CHECK(start_on(collective, &gpu, COUNT, &ticket, NULL) && collective_wait(collective, ticket, -1, NULL));
        job->board->ready[1] = getpid();
        raise(signal);
    }
    reduce_until_failure(job, collective, &gpu);
    if (job->rank == 0)
        kill(job->board->ready[1], SIGKILL);
    gpu_close(job, &gpu);
}

static void body_killed(struct job *job, struct collective *collective) {
    body_lost(job, collective, SIGKILL);
}

static void body_stopped(struct job *job, struct collective *collective) {
    body_lost(job, collective, SIGSTOP);
}

static struct board *lose_rank_1(int ranks, int64_t timeout_ms, void (*body)(struct job *, struct collective *)) {
    struct job job = {.world_size = ranks, .timeout_ms = timeout_ms, .board = board_create(), .body = body};
    int statuses[RANKS_MAX];
    run_ranks(&job, statuses);
    for (int rank = 0; rank < ranks; rank++) {
        if (rank == 1)
            assert_true(WIFSIGNALED(statuses[rank]));
        else
            assert_int_equal(statuses[rank], 0);
    }
    return job.board;
}

static void a_killed_rank_fails_the_others_at_once(void **state) {
    (void)state;
    struct board *two = lose_rank_1(2, TIMEOUT_MS, body_killed), *four = lose_rank_1(4, TIMEOUT_MS, body_killed);
    assert_non_null(strstr(two->error[0].message, "rank 1 is gone: rank 0: all-reduce of 20000 bytes: remote process exited"));
    for (int rank = 0; rank < 4; rank++) {
        assert_int_equal(four->error[rank].code, rank == 1 ? ERROR_NONE : ERROR_PEER);
        assert_true(four->took_ms[rank] < TIMEOUT_MS / 2);
    }
    board_destroy(two);
    board_destroy(four);
}

static void a_stopped_rank_is_a_timeout(void **state) {
    (void)state;
    struct board *two = lose_rank_1(2, 1500, body_stopped), *four = lose_rank_1(4, 1500, body_stopped);
    assert_non_null(strstr(two->error[0].message, "all-reduce of 20000 bytes: rank 1 did not answer within 1.5 s"));
    assert_non_null(strstr(four->error[0].message, "the other ranks did not answer within 1.5 s"));
    for (int rank = 0; rank < 4; rank += 2) {
        assert_true(four->error[rank].code == ERROR_TIMEOUT || four->error[rank].code == ERROR_PEER);
        assert_in_range(four->took_ms[rank], 1000, 10000);
    }
    board_destroy(two);
    board_destroy(four);
}

static void body_alone(struct job *job, struct collective *unopened) {
    struct error err = {0};
    job->timeout_ms = 500;
    CHECK(!unopened && (job->rank == 1 || !open_rank(job, &err)));
    CHECK(job->rank == 1 || err.code == ERROR_TIMEOUT);
    CHECK(job->rank == 1 || strstr(err.message, "opening nccl: rank 1 did not answer within 0.5 s"));
}

static void a_rank_that_never_comes_is_a_timeout(void **state) {
    (void)state;
    open_well(2, body_alone);
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
        job->board->ready[0] = 1;
    } else {
        while (!job->board->ready[0])
            clock_sleep_ms(5);
        CHECK(!collective_barrier(collective, &err));
        CHECK(err.code == ERROR_PEER && strstr(err.message, "rank 0 is gone"));
    }
    CHECK(clock_now_ms() - start_ms < TIMEOUT_MS / 2);
}

static void an_abort_unblocks_this_rank_and_the_others(void **state) {
    (void)state;
    board_destroy(run_well(2, body_abort));
}

/* --- whose fault it is --- */

static void linger(void *argument) {
    (void)argument;
    clock_sleep_ms(LINGER_MS);
}

/** Rank 0's own GPU is late, and rank 1 waits for it. */
static void body_late(struct job *job, struct collective *collective) {
    struct gpu gpu = gpu_open(job);
    struct error *err = &job->board->error[job->rank];
    int ticket;
    if (job->rank == 0)
        CHECK(emulation_enqueue(gpu.stream, "linger", NULL, 0, linger, NULL, 0) == cudaSuccess);
    CHECK(cudaEventRecord(gpu.ready, gpu.stream) == cudaSuccess);
    bool started = start_on(collective, &gpu, COUNT, &ticket, err);
    CHECK(!started || !collective_wait(collective, ticket, clock_now_ms() + LINGER_MS / 3, err));
    gpu_close(job, &gpu);
}

static void a_late_device_is_told_from_a_late_rank(void **state) {
    (void)state;
    struct board *board = run_well(2, body_late);
    assert_non_null(strstr(board->error[0].message, "this rank's own GPU did not come to it within"));
    assert_true(strstr(board->error[1].message, "rank 0 did not answer") || strstr(board->error[1].message, "rank 0 is gone"));
    board_destroy(board);
}

static void count_calls(void *context) {
    ++*(int *)context;
}

/** Who waits says so; who does not wait need not. */
static void body_waiting(struct job *job, struct collective *unopened) {
    int calls = 0;
    struct collective_spec spec = {.device_index = job->rank, .waiting = count_calls, .context = &calls};
    struct collective *collective = open_rank_as(job, spec, NULL);
    CHECK(collective && !unopened);
    if (job->rank == 1)
        clock_sleep_ms(500);
    calls = 0;
    CHECK(collective_barrier(collective, NULL));
    CHECK(job->rank == 1 || calls > 0);
    collective_close(collective);
}

static void a_rank_that_waits_says_so(void **state) {
    (void)state;
    open_well(2, body_waiting);
}

/* --- what must not be --- */

static void assert_found(int ranks, void (*body)(struct job *job, struct collective *collective)) {
    struct job job = {.world_size = ranks, .timeout_ms = TIMEOUT_MS, .board = board_create(), .body = body};
    int statuses[RANKS_MAX];
    run_ranks(&job, statuses);
    for (int rank = 0; rank < ranks; rank++)
        assert_int_equal(statuses[rank], FOUND);
    board_destroy(job.board);
}

static void body_mismatch(struct job *job, struct collective *collective) {
    struct gpu gpu = gpu_open(job);
    float values[COUNT] = {0};
    int ticket;
    compute(job, &gpu, values);
    bool started = start_on(collective, &gpu, COUNT - job->rank, &ticket, NULL); /* it may fail while it is in progress */
    CHECK(!started || !collective_wait(collective, ticket, -1, NULL));
    gpu_close(job, &gpu);
}

/** Without `ready` nothing orders the sum behind what computes the buffer. */
static void body_unordered(struct job *job, struct collective *collective) {
    struct gpu gpu = gpu_open(job);
    struct collective_piece piece = {gpu.memory, DTYPE_F32, COUNT, NULL};
    float values[COUNT] = {0};
    int ticket;
    compute(job, &gpu, values);
    CHECK(collective_start(collective, &piece, &ticket, NULL) && collective_wait(collective, ticket, -1, NULL));
    gpu_close(job, &gpu);
}

/** Without `done` nothing orders what uses the sum behind it. */
static void body_hasty(struct job *job, struct collective *collective) {
    struct gpu gpu = gpu_open(job);
    float values[COUNT] = {0};
    int ticket;
    compute(job, &gpu, values);
    CHECK(start_on(collective, &gpu, COUNT, &ticket, NULL));
    fetch(job, &gpu, values);
    CHECK(collective_wait(collective, ticket, -1, NULL));
    gpu_close(job, &gpu);
}

static void misuse_is_found(void **state) {
    (void)state;
    assert_found(2, body_mismatch);
    assert_found(2, body_unordered);
    assert_found(2, body_hasty);
}

static void body_crowd(struct job *job, struct collective *unopened) {
    struct error err = {0};
    CHECK(!unopened && !open_rank_as(job, (struct collective_spec){.device_index = 0}, &err));
    CHECK(err.code == ERROR_INTERNAL && strstr(err.message, "Duplicate GPU detected"));
}

static void two_ranks_on_a_device_are_refused(void **state) {
    (void)state;
    open_well(2, body_crowd);
}

int main(void) {
    ranks_use("nccl");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_the_same_on_all_ranks),
        cmocka_unit_test(gathers_spreads_and_meets),
        cmocka_unit_test(many_tickets_are_under_way),
        cmocka_unit_test(ranks_know_where_they_are),
        cmocka_unit_test(a_killed_rank_fails_the_others_at_once),
        cmocka_unit_test(a_stopped_rank_is_a_timeout),
        cmocka_unit_test(a_rank_that_never_comes_is_a_timeout),
        cmocka_unit_test(an_abort_unblocks_this_rank_and_the_others),
        cmocka_unit_test(a_late_device_is_told_from_a_late_rank),
        cmocka_unit_test(a_rank_that_waits_says_so),
        cmocka_unit_test(misuse_is_found),
        cmocka_unit_test(two_ranks_on_a_device_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
