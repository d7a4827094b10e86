#include "common/tensor/element.h"
#include "tests/emulation/child.h"
#include "tests/emulation/emulation.h"

#include <nccl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/*
 * The emulated NCCL by itself: what it computes, what becomes of ranks that are lost, and that each of its checks fires. Ranks
 * are forks of a child, in which only they use CUDA.
 */

enum { RANKS = 3, COUNT = 1000, BYTES = COUNT * 8, SHORT_MS = 200, LONG_MS = 20000 };

/** What ranks share, beside the communicator: the pid of the one to be lost. */
static struct shared {
    volatile pid_t lost;
    ncclUniqueId id;
    atomic_bool drawn; /* rank 0 has written the id */
} *shared;
static ncclUniqueId id;

/** A rank and its communicator. */
struct member {
    int rank, ranks, device;
    ncclComm_t comm;
    cudaStream_t stream;
    void *memory; /* BYTES of zeros */
};

static void ok(cudaError_t result) {
    child_require(result == cudaSuccess, cudaGetErrorString(result));
}

static void must(ncclResult_t result) {
    child_require(result == ncclSuccess || result == ncclInProgress, ncclGetErrorString(result));
}

/** What ncclInProgress becomes; that itself where it stays so. */
static ncclResult_t state_after(ncclComm_t comm, int patience_ms) {
    ncclResult_t state = ncclInProgress;
    for (int ms = 0; state == ncclInProgress && ms < patience_ms; ms++) {
        must(ncclCommGetAsyncError(comm, &state));
        if (state == ncclInProgress)
            usleep(1000);
    }
    return state;
}

static void settle(const struct member *m, ncclResult_t result) {
    must(result);
    must(state_after(m->comm, LONG_MS));
}

static ncclResult_t join_as(struct member *m, int rank, int ranks) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    m->rank = rank;
    m->ranks = ranks;
    ok(cudaSetDevice(m->device));
    ok(cudaStreamCreateWithFlags(&m->stream, cudaStreamNonBlocking));
    ok(cudaMalloc(&m->memory, BYTES));
    ok(cudaMemsetAsync(m->memory, 0, BYTES, m->stream));
    return ncclCommInitRankConfig(&m->comm, ranks, id, rank, &config);
}

static struct member member_of(int rank, int ranks) {
    struct member m = {.device = rank};
    ncclResult_t result = join_as(&m, rank, ranks);
    settle(&m, result);
    return m;
}

static void free_memory(struct member *m) {
    ok(cudaStreamSynchronize(m->stream));
    ok(cudaStreamDestroy(m->stream));
    ok(cudaFree(m->memory));
}

static void leave(struct member *m) {
    settle(m, ncclCommFinalize(m->comm));
    must(ncclCommDestroy(m->comm));
    free_memory(m);
}

static void abandon(struct member *m) {
    must(ncclCommAbort(m->comm));
    free_memory(m);
}

static ncclResult_t sum(const struct member *m, size_t count, ncclDataType_t type) {
    return ncclAllReduce(m->memory, m->memory, count, type, ncclSum, m->comm, m->stream);
}

/* --- ranks as processes --- */

static void (*body)(int rank);
static int body_ranks;

/** The first process draws the id, as rank 0 of a job does. */
static void share_id(int rank) {
    if (rank == 0) {
        must(ncclGetUniqueId(&shared->id));
        atomic_store(&shared->drawn, true);
    }
    while (!atomic_load(&shared->drawn))
        usleep(1000);
    id = shared->id;
}

/** In a child: forks the ranks, waits for all, and exits with the highest status. */
static void fork_ranks(void) {
    int highest = 0, status;
    for (int rank = 0; rank < body_ranks; rank++)
        if (fork() == 0) {
            share_id(rank);
            body(rank);
            exit(0);
        }
    while (wait(&status) > 0) {
        int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0; /* a signal was ordered */
        highest = code > highest ? code : highest;
    }
    _exit(highest);
}

static const char *const devices[] = {"THORAX_EMULATION_DEVICES=4", NULL};

static void run_ranks(int ranks, void (*of_rank)(int rank), struct outcome *out) {
    atomic_store(&shared->drawn, false);
    body = of_rank;
    body_ranks = ranks;
    child_run(fork_ranks, devices, out);
}

static void assert_ranks_clean(int ranks, void (*of_rank)(int rank)) {
    struct outcome outcome;
    run_ranks(ranks, of_rank, &outcome);
    if (outcome.status != 0 || outcome.stderr_text[0])
        fail_msg("the ranks ended with %d: %s", outcome.status, outcome.stderr_text);
}

static void assert_ranks_found(int ranks, void (*of_rank)(int rank), const char *text) {
    struct outcome outcome;
    run_ranks(ranks, of_rank, &outcome);
    if (outcome.status != EMULATION_EXIT_FINDING || !strstr(outcome.stderr_text, text))
        fail_msg("wanted \"%s\", but the ranks ended with %d: %s", text, outcome.status, outcome.stderr_text);
}

/* --- values --- */

/** In f32 (1e8 + 1) - 1e8 is 0 in the order of the ranks, and another order would show. */
static void sum_in_order(int rank) {
    static const float terms[RANKS] = {1e8f, 1, -1e8f};
    struct member m = member_of(rank, RANKS);
    float values[COUNT];
    for (int i = 0; i < COUNT; i++)
        values[i] = terms[rank];
    ok(cudaMemcpyAsync(m.memory, values, sizeof values, cudaMemcpyHostToDevice, m.stream));
    settle(&m, sum(&m, COUNT, ncclFloat32));
    ok(cudaMemcpyAsync(values, m.memory, sizeof values, cudaMemcpyDeviceToHost, m.stream));
    ok(cudaStreamSynchronize(m.stream));
    for (int i = 0; i < COUNT; i++)
        child_require(values[i] == 0, "the sum in the order of the ranks");
    leave(&m);
}

static void sums_are_in_one_order(void **state) {
    (void)state;
    assert_ranks_clean(RANKS, sum_in_order);
}

/** Ranks add 1, 2 and 3 in each type, in stretches that do not divide evenly. */
static void sum_types(int rank) {
    static const struct {
        ncclDataType_t theirs;
        enum dtype ours;
    } rows[] = {{ncclFloat32, DTYPE_F32}, {ncclFloat64, DTYPE_F64}, {ncclInt32, DTYPE_S32},
                {ncclInt64, DTYPE_S64},   {ncclFloat16, DTYPE_F16}, {ncclBfloat16, DTYPE_BF16}};
    enum { FEW = 7 };
    struct member m = member_of(rank, RANKS);
    for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
        double values[FEW]; /* room for all types */
        for (int i = 0; i < FEW; i++)
            element_store(values, rows[row].ours, i, rank + 1);
        ok(cudaMemcpyAsync(m.memory, values, sizeof values, cudaMemcpyHostToDevice, m.stream));
        ok(cudaStreamSynchronize(m.stream));
        settle(&m, sum(&m, FEW, rows[row].theirs));
        ok(cudaMemcpyAsync(values, m.memory, sizeof values, cudaMemcpyDeviceToHost, m.stream));
        ok(cudaStreamSynchronize(m.stream));
        for (int i = 0; i < FEW; i++)
            child_require(element_load(values, rows[row].ours, i) == 6, dtype_name(rows[row].ours));
    }
    leave(&m);
}

static void sums_are_right_in_all_types(void **state) {
    (void)state;
    assert_ranks_clean(RANKS, sum_types);
}

static void spread_and_gather(int rank) {
    struct member m = member_of(rank, RANKS);
    char values[RANKS], *memory = m.memory, *apart;
    ok(cudaMalloc((void **)&apart, RANKS));
    ok(cudaMemsetAsync(memory, 'a' + rank, 1, m.stream));
    settle(&m, ncclAllGather(memory, apart, 1, ncclUint8, m.comm, m.stream)); /* from elsewhere */
    ok(cudaMemsetAsync(memory + rank, 'a' + rank, 1, m.stream));
    settle(&m, ncclAllGather(memory + rank, memory, 1, ncclUint8, m.comm, m.stream)); /* in place */
    ok(cudaMemcpyAsync(values, apart, RANKS, cudaMemcpyDeviceToHost, m.stream));
    ok(cudaStreamSynchronize(m.stream));
    child_require(memcmp(values, "abc", RANKS) == 0, "gathered");
    settle(&m, ncclBroadcast(memory + rank, memory, 1, ncclUint8, 2, m.comm, m.stream));
    ok(cudaMemcpyAsync(values, memory, RANKS, cudaMemcpyDeviceToHost, m.stream));
    ok(cudaStreamSynchronize(m.stream));
    child_require(memcmp(values, "cbc", RANKS) == 0, "gathered in place, then the root's");
    ok(cudaFree(apart));
    leave(&m);
}

static void gathers_and_broadcasts(void **state) {
    (void)state;
    assert_ranks_clean(RANKS, spread_and_gather);
}

/* --- ranks that are lost --- */

/** The work stays where it is until the communicator is aborted. */
static void require_stuck(const struct member *m) {
    usleep(SHORT_MS * 1000);
    child_require(cudaStreamQuery(m->stream) == cudaErrorNotReady, "a lost rank's part does not come");
}

static void lose_killed(int rank) {
    struct member m = member_of(rank, 2);
    if (rank == 1)
        raise(SIGKILL);
    ncclResult_t result = sum(&m, COUNT, ncclFloat32), state = ncclSuccess;
    must(result);
    for (int ms = 0; state != ncclRemoteError && ms < LONG_MS; ms++) {
        must(ncclCommGetAsyncError(m.comm, &state));
        usleep(1000);
    }
    child_require(state == ncclRemoteError, ncclGetErrorString(state));
    child_require(strstr(ncclGetLastError(m.comm), "closed by remote peer") != NULL, ncclGetLastError(m.comm));
    require_stuck(&m);
    abandon(&m); /* which waits for the stream: the abort has freed it */
}

static void a_killed_peer_is_a_remote_error(void **state) {
    (void)state;
    assert_ranks_clean(2, lose_killed);
}

static void lose_stopped(int rank) {
    struct member m = member_of(rank, 2);
    if (rank == 1) {
        shared->lost = getpid();
        raise(SIGSTOP);
        _exit(1);
    }
    settle(&m, sum(&m, COUNT, ncclFloat32));
    require_stuck(&m);
    child_require(state_after(m.comm, SHORT_MS) == ncclSuccess, "NCCL notices nothing");
    abandon(&m);
    kill(shared->lost, SIGKILL);
}

static void a_stopped_peer_is_nothing_at_all(void **state) {
    (void)state;
    assert_ranks_clean(2, lose_stopped);
}

static void open_alone(int rank) {
    struct member m = {.device = rank};
    must(join_as(&m, rank, 2));
    child_require(state_after(m.comm, SHORT_MS) == ncclInProgress, "nobody came");
    abandon(&m);
}

static void a_rank_that_never_comes_is_waited_for(void **state) {
    (void)state;
    assert_ranks_clean(1, open_alone);
}

static void share_device(int rank) {
    struct member m = {.device = 0};
    must(join_as(&m, rank, 2));
    child_require(state_after(m.comm, LONG_MS) == ncclInvalidUsage, "refused");
    child_require(strstr(ncclGetLastError(m.comm), "Duplicate GPU detected") != NULL, ncclGetLastError(m.comm));
    abandon(&m);
}

static void two_ranks_on_a_device_are_refused(void **state) {
    (void)state;
    assert_ranks_clean(2, share_device);
}

/** Each machine numbers its devices from 0. */
static void share_number(int rank) {
    struct member m = {.device = 0};
    putenv((char *)(rank ? "NCCL_HOSTID=one" : "NCCL_HOSTID=other"));
    ncclResult_t result = join_as(&m, rank, 2);
    settle(&m, result);
    settle(&m, sum(&m, COUNT, ncclFloat32));
    leave(&m);
}

static void ranks_of_two_machines_meet(void **state) {
    (void)state;
    assert_ranks_clean(2, share_number);
}

static void open_without_network(int rank) {
    struct member m = {.device = rank};
    putenv((char *)"NCCL_SOCKET_IFNAME==l,none"); /* whole names: lo is not meant */
    must(join_as(&m, rank, 2));
    child_require(state_after(m.comm, LONG_MS) == ncclInternalError, "refused");
    child_require(strstr(ncclGetLastError(m.comm), "no socket interface found") != NULL, ncclGetLastError(m.comm));
    abandon(&m);
}

static void an_interface_that_is_not_there_is_an_error(void **state) {
    (void)state;
    assert_ranks_clean(1, open_without_network);
}

/** What peers of an ordered death see is what those of a real one do. */
static void die_by_order(int rank) {
    putenv((char *)"THORAX_EMULATION_NCCL_DIE=1:2");
    struct member m = member_of(rank, 2);
    settle(&m, sum(&m, COUNT, ncclFloat32));
    ok(cudaStreamSynchronize(m.stream));
    must(sum(&m, COUNT, ncclFloat32));
    ncclResult_t state = ncclSuccess;
    for (int ms = 0; state != ncclRemoteError && ms < LONG_MS; ms++) {
        must(ncclCommGetAsyncError(m.comm, &state));
        usleep(1000);
    }
    child_require(rank == 0 && state == ncclRemoteError, "rank 1 died in its second");
    abandon(&m);
}

static void hang_by_order(int rank) {
    putenv((char *)"THORAX_EMULATION_NCCL_HANG=1:2");
    struct member m = member_of(rank, 2);
    if (rank == 1)
        shared->lost = getpid();
    settle(&m, sum(&m, COUNT, ncclFloat32));
    ok(cudaStreamSynchronize(m.stream));
    settle(&m, sum(&m, COUNT, ncclFloat32));
    require_stuck(&m);
    child_require(rank == 0 && state_after(m.comm, SHORT_MS) == ncclSuccess, "rank 1 stopped in its second");
    abandon(&m);
    kill(shared->lost, SIGKILL);
}

static void deaths_and_hangs_can_be_ordered(void **state) {
    (void)state;
    assert_ranks_clean(2, die_by_order);
    assert_ranks_clean(2, hang_by_order);
}

/* --- what is found --- */

/** A call that may fail while it is in progress. */
static void attempt(const struct member *m, ncclResult_t result) {
    must(result);
    state_after(m->comm, LONG_MS);
}

/** Calls that do not fit, after which everything is stuck or worse. */
static void let_go(struct member *m) {
    usleep(SHORT_MS * 1000);
    abandon(m);
}

static void differ_in_count(int rank) {
    struct member m = member_of(rank, 2);
    attempt(&m, sum(&m, COUNT - (size_t)rank, ncclFloat32));
    let_go(&m);
}

static void differ_in_type(int rank) {
    struct member m = member_of(rank, 2);
    attempt(&m, sum(&m, COUNT, rank ? ncclInt32 : ncclFloat32));
    let_go(&m);
}

static void differ_in_kind(int rank) {
    struct member m = member_of(rank, 2);
    attempt(&m, rank ? sum(&m, COUNT, ncclFloat32)
                     : ncclBroadcast(m.memory, m.memory, COUNT, ncclFloat32, 0, m.comm, m.stream));
    let_go(&m);
}

static void differ_in_root(int rank) {
    struct member m = member_of(rank, 2);
    attempt(&m, ncclBroadcast(m.memory, m.memory, COUNT, ncclFloat32, rank, m.comm, m.stream));
    let_go(&m);
}

static void differ_in_order(int rank) {
    struct member m = member_of(rank, 2);
    for (int i = 0; i < 2; i++) {
        ncclResult_t result = sum(&m, (i + rank) % 2 ? 10 : 20, ncclFloat32);
        if (result == ncclInternalError) /* the first has failed already */
            break;
        must(result);
        if (state_after(m.comm, LONG_MS) == ncclInternalError)
            break;
    }
    let_go(&m);
}

static void differ_in_size(int rank) {
    struct member m = {.device = rank};
    must(join_as(&m, rank, 2 + rank));
    child_require(state_after(m.comm, LONG_MS) != ncclSuccess, "they do not meet");
    let_go(&m);
}

static void be_the_same(int rank) {
    struct member m = {.device = rank};
    must(join_as(&m, 0, 2));
    state_after(m.comm, SHORT_MS);
    let_go(&m);
}

static void ranks_that_differ_are_found(void **state) {
    (void)state;
    assert_ranks_found(2, differ_in_count, "with 1000 elements of type 7, root -1, and rank 1 ncclAllReduce number 1 with 999");
    assert_ranks_found(2, differ_in_type, "1000 of type 2");
    assert_ranks_found(2, differ_in_kind, "rank 1 ncclAllReduce number 1");
    assert_ranks_found(2, differ_in_root, "root 1");
    assert_ranks_found(2, differ_in_order, "and rank 1 ncclAllReduce number 1 with 10");
    assert_ranks_found(2, differ_in_size, "rank 0 says that there are 2 ranks, and rank 1 that there are 3");
    assert_ranks_found(2, be_the_same, "there is a rank 0 of this unique id already");
}

static void write_unordered(int rank) {
    struct member m = member_of(rank, 2);
    cudaStream_t other;
    ok(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    ok(cudaStreamSynchronize(m.stream));
    ok(cudaMemsetAsync(m.memory, 0, BYTES, other));
    settle(&m, sum(&m, COUNT, ncclFloat32));
    ok(cudaStreamSynchronize(other));
    ok(cudaStreamDestroy(other));
    leave(&m);
}

static void read_unordered(int rank) {
    struct member m = member_of(rank, 2);
    char value;
    settle(&m, sum(&m, COUNT, ncclFloat32));
    ok(cudaMemcpy(&value, m.memory, 1, cudaMemcpyDeviceToHost)); /* on another stream, which waits for nobody */
    leave(&m);
}

/** A marker behind a call that NCCL has not accepted yet: the work comes behind the marker, now and then. */
static void go_on_unsettled(int rank) {
    struct member m = member_of(rank, 2);
    for (int i = 0; i < 100; i++)
        if (sum(&m, COUNT, ncclFloat32) == ncclInvalidUsage)
            break;
    let_go(&m);
}

static void overlap(int rank) {
    struct member m = member_of(rank, 2);
    settle(&m, ncclAllReduce(m.memory, (char *)m.memory + 4, COUNT, ncclFloat32, ncclSum, m.comm, m.stream));
    leave(&m);
}

static void use_unsynchronised_memory(void **state) {
    (void)state;
    assert_ranks_found(2, write_unordered, "and nothing orders the two");
    assert_ranks_found(2, read_unordered, "and nothing orders the two");
    assert_ranks_found(2, go_on_unsettled, "still busy with an earlier call");
    assert_ranks_found(2, overlap, "the buffers overlap, and not in place");
}

static void use_other_stream(int rank) {
    struct member m = member_of(rank, 2);
    ok(cudaSetDevice(rank + 2));
    cudaStream_t other;
    ok(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    child_require(ncclAllReduce(m.memory, m.memory, 1, ncclFloat32, ncclSum, m.comm, other) == ncclInvalidArgument, "refused");
    ok(cudaStreamDestroy(other));
    leave(&m);
}

/** The other rank never comes. */
static void call_early(int rank) {
    struct member m = {.device = rank};
    must(join_as(&m, rank, 2));
    child_require(sum(&m, 1, ncclFloat32) == ncclInvalidUsage, "refused");
    abandon(&m);
}

static void forget(int rank) {
    struct member m = member_of(rank, 2);
    free_memory(&m);
}

static void destroy_in_use(int rank) {
    struct member m = member_of(rank, 2);
    child_require(ncclCommDestroy(m.comm) == ncclInvalidUsage, "refused");
    free_memory(&m);
}

static void use_destroyed(int rank) {
    struct member m = member_of(rank, 2);
    settle(&m, ncclCommFinalize(m.comm));
    must(ncclCommDestroy(m.comm));
    child_require(sum(&m, 1, ncclFloat32) == ncclInvalidArgument, "refused");
    free_memory(&m);
}

static void open_blocking(int rank) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclComm_t comm;
    child_require(ncclCommInitRankConfig(&comm, 1, id, rank, &config) == ncclInvalidArgument, "refused");
}

static void wrong_states_are_found(void **state) {
    (void)state;
    assert_ranks_found(2, use_other_stream, "a stream of device 2 for a communicator of device 0");
    assert_ranks_found(1, call_early, "ncclAllReduce: the communicator is not open");
    assert_ranks_found(2, forget, "a ncclComm_t");
    assert_ranks_found(2, destroy_in_use, "was not finalized");
    assert_ranks_found(2, use_destroyed, "is no ncclComm_t, or it was destroyed");
    assert_ranks_found(1, open_blocking, "only non-blocking communicators are emulated");
}

int main(void) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_in_one_order),
        cmocka_unit_test(sums_are_right_in_all_types),
        cmocka_unit_test(gathers_and_broadcasts),
        cmocka_unit_test(a_killed_peer_is_a_remote_error),
        cmocka_unit_test(a_stopped_peer_is_nothing_at_all),
        cmocka_unit_test(a_rank_that_never_comes_is_waited_for),
        cmocka_unit_test(two_ranks_on_a_device_are_refused),
        cmocka_unit_test(ranks_of_two_machines_meet),
        cmocka_unit_test(an_interface_that_is_not_there_is_an_error),
        cmocka_unit_test(deaths_and_hangs_can_be_ordered),
        cmocka_unit_test(ranks_that_differ_are_found),
        cmocka_unit_test(use_unsynchronised_memory),
        cmocka_unit_test(wrong_states_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
