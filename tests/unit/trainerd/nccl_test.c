#include "common/base/clock.h"
#include "trainerd/collective/collective.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/*
 * A test double of the few CUDA and NCCL functions that nccl.c calls: device memory is host memory, work is
 * done when it is queued, and the one other rank sends just what this one does. It shows how nccl.c deals
 * with what the libraries may answer (in progress, not ready, errors); it says nothing about GPUs.
 */
static struct fake {
    int busy_answers;         /* how many times NCCL says "in progress" before it has accepted a call */
    bool stuck;               /* events are never reached */
    ncclResult_t async_error; /* what ncclCommGetAsyncError says once not busy */
    int aborted, finalized, destroyed, waited_events, live_events;
    bool fail_init;
    cudaError_t last_error;
} fake;

static int fake_comm, fake_stream;

cudaError_t cudaSetDevice(int device) {
    return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    (void)flags, (void)priority;
    *stream = (cudaStream_t)&fake_stream;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    (void)stream;
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    (void)stream;
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    (void)stream, (void)event, (void)flags;
    fake.waited_events++;
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    (void)flags;
    *event = malloc(1);
    fake.live_events++;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    free(event);
    fake.live_events--;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    (void)event, (void)stream;
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    (void)event;
    if (fake.stuck)
        fake.last_error = cudaErrorNotReady;
    return fake.stuck ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaGetLastError(void) {
    cudaError_t last = fake.last_error;
    fake.last_error = cudaSuccess;
    return last;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device) {
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "fake %d", device);
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *out, int bytes, int device) {
    snprintf(out, (size_t)bytes, "0000:%02x:00.0", (unsigned)device & 0xFF);
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **memory, size_t size) {
    *memory = malloc(size);
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *memory) {
    free(memory);
    return cudaSuccess;
}
cudaError_t cudaMalloc(void **memory, size_t size) {
    *memory = malloc(size);
    return cudaSuccess;
}
cudaError_t cudaFree(void *memory) {
    free(memory);
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
    (void)kind;
    memcpy(to, from, size);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
    (void)stream;
    return cudaMemcpy(to, from, size, kind);
}
const char *cudaGetErrorString(cudaError_t error) {
    (void)error;
    return "cuda trouble";
}
const char *cudaGetErrorName(cudaError_t error) {
    (void)error;
    return "cudaErrorFake";
}

static ncclResult_t accepted(void) {
    return fake.busy_answers > 0 ? ncclInProgress : ncclSuccess;
}
ncclResult_t ncclGetVersion(int *version) {
    *version = 22809;
    return ncclSuccess;
}
ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    memset(id, 'i', sizeof *id);
    return ncclSuccess;
}
ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config) {
    (void)ranks, (void)rank;
    if (fake.fail_init || config->blocking != 0 || id.internal[0] != 'i')
        return ncclInvalidArgument;
    *comm = (ncclComm_t)&fake_comm;
    return accepted();
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state) {
    (void)comm;
    *state = fake.busy_answers > 0 ? ncclInProgress : fake.async_error;
    fake.busy_answers -= fake.busy_answers > 0;
    return ncclSuccess;
}
ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    (void)comm;
    fake.finalized++;
    return accepted();
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    (void)comm;
    fake.destroyed++;
    return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
    (void)comm;
    fake.aborted++;
    return ncclSuccess;
}
const char *ncclGetErrorString(ncclResult_t result) {
    return result == ncclRemoteError ? "remote error" : "nccl trouble";
}
const char *ncclGetLastError(ncclComm_t comm) {
    (void)comm;
    return "no details";
}
ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
    (void)comm;
    assert_int_equal(type, ncclFloat32);
    assert_int_equal(op, ncclSum);
    assert_ptr_equal(stream, &fake_stream);
    for (size_t i = 0; i < count; i++)
        ((float *)to)[i] = 2 * ((const float *)from)[i];
    return accepted();
}
ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
    (void)type, (void)root, (void)comm, (void)stream;
    memmove(to, from, count);
    return accepted();
}
ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
    (void)type, (void)comm, (void)stream;
    for (int rank = 0; rank < 2; rank++)
        memmove((char *)to + (size_t)rank * count, from, count);
    return accepted();
}

static bool store_set(void *context, const char *key, const void *data, size_t size, struct error *err) {
    (void)context, (void)key, (void)data, (void)err;
    return size == sizeof(ncclUniqueId);
}

/** Rank 0's id, of the size that the context says. */
static bool store_get(void *context, const char *key, int64_t deadline_ms, struct bytes *out,
                      struct error *err) {
    (void)key, (void)deadline_ms, (void)err;
    out->size = *(size_t *)context;
    out->data = malloc(out->size);
    memset(out->data, 'i', out->size);
    return true;
}

/** What collective_open does for an engine of the registry. */
static struct collective *open_fake(int rank, size_t id_size, struct error *err) {
    static size_t size;
    static struct collective_store store = {&size, store_set, store_get};
    size = id_size;
    struct collective_spec spec = {
        .name = "nccl", .rank = rank, .world_size = 2, .store = &store, .timeout_ms = 300};
    struct collective *collective = collective_nccl.open(&spec, err);
    if (collective)
        collective->ops = &collective_nccl;
    return collective;
}

static bool start(struct collective *collective, struct collective_piece piece, int *ticket,
                  struct error *err) {
    return collective->ops->start(collective, &piece, ticket, err);
}

static int reset(void **state) {
    (void)state;
    memset(&fake, 0, sizeof fake);
    fake.async_error = ncclSuccess;
    return 0;
}

static void test_reduces_behind_the_ready_event(void **state) {
    (void)state;
    fake.busy_answers = 3;
    struct collective *collective = open_fake(1, sizeof(ncclUniqueId), NULL);
    assert_non_null(collective);
    float buffer[3] = {1, 2, 3};
    int ticket, ready;
    fake.busy_answers = 2;
    assert_true(start(collective, (struct collective_piece){buffer, DTYPE_F32, 3, (struct event *)&ready},
                      &ticket, NULL));
    assert_int_equal(fake.waited_events, 1);
    assert_non_null(collective->ops->done_event(collective, ticket));
    assert_true(collective->ops->wait(collective, ticket, -1, NULL));
    assert_true(buffer[0] == 2 && buffer[1] == 4 && buffer[2] == 6);
    collective->ops->close(collective);
    assert_int_equal(fake.live_events, 0);
}

static void test_gathers_spreads_and_meets(void **state) {
    (void)state;
    struct collective *collective = open_fake(0, 0, NULL);
    int mine = 5, all[2] = {0};
    char word[4] = "abc";
    assert_true(collective->ops->allgather(collective, &mine, sizeof mine, all, NULL));
    assert_true(all[0] == 5 && all[1] == 5);
    assert_true(collective->ops->broadcast(collective, word, sizeof word, 1, NULL));
    assert_true(collective->ops->barrier(collective, NULL));
    assert_string_equal(collective->ops->describe(collective),
                        "nccl 2.28.9, 2 ranks; 0: fake 0 (0000:00:00.0); 1: fake 0 (0000:00:00.0)");
    collective->ops->close(collective);
    assert_true(fake.finalized == 1 && fake.destroyed == 1 && fake.aborted == 0);
}

static void test_a_deadline_aborts_for_good(void **state) {
    (void)state;
    struct error err = {0}, again = {0};
    struct collective *collective = open_fake(0, 0, NULL);
    float buffer[1] = {1};
    int ticket;
    assert_true(start(collective, (struct collective_piece){buffer, DTYPE_F32, 1, NULL}, &ticket, NULL));
    fake.stuck = true;
    int64_t start_ms = clock_now_ms();
    assert_false(collective->ops->wait(collective, ticket, -1, &err));
    assert_in_range(clock_now_ms() - start_ms, 300, 5000);
    assert_int_equal(err.code, ERROR_TIMEOUT);
    assert_non_null(strstr(err.message, "all-reduce of 4 bytes: rank 1 did not answer within 0.3 s"));
    assert_int_equal(fake.last_error, cudaSuccess); /* whoever looks next is not blamed for what was not ready */
    assert_false(collective->ops->barrier(collective, &again));
    assert_string_equal(again.message, err.message);
    collective->ops->close(collective);
    assert_true(fake.aborted == 1 && fake.finalized == 0 && fake.destroyed == 0);
}

/** The reduction cannot begin before `ready`: where that is what is late, it is not the other rank's fault. */
static void test_a_late_device_is_not_blamed_on_the_others(void **state) {
    (void)state;
    struct error err = {0};
    struct collective *collective = open_fake(0, 0, NULL);
    float buffer[1] = {1};
    int ticket, ready;
    fake.stuck = true;
    assert_true(start(collective, (struct collective_piece){buffer, DTYPE_F32, 1, (struct event *)&ready}, &ticket, NULL));
    assert_false(collective->ops->wait(collective, ticket, clock_now_ms() + 50, &err));
    assert_non_null(strstr(err.message, "all-reduce of 4 bytes: this rank's own GPU did not come to it within"));
    collective->ops->close(collective);
}

static void test_an_asynchronous_error_of_a_peer_ends_the_wait(void **state) {
    (void)state;
    struct error err = {0};
    struct collective *collective = open_fake(0, 0, NULL);
    fake.stuck = true;
    fake.async_error = ncclRemoteError;
    assert_false(collective->ops->barrier(collective, &err));
    assert_int_equal(err.code, ERROR_PEER);
    assert_non_null(strstr(err.message, "remote error"));
    assert_non_null(strstr(err.message, "rank 1 is gone"));
    collective->ops->close(collective);
    assert_int_equal(fake.aborted, 1);
}

static void test_a_call_that_is_never_accepted_times_out(void **state) {
    (void)state;
    struct error err = {0};
    struct collective *collective = open_fake(0, 0, NULL);
    fake.busy_answers = 1 << 30;
    assert_false(collective->ops->barrier(collective, &err));
    assert_int_equal(err.code, ERROR_TIMEOUT);
    collective->ops->close(collective);
}

static void test_abort_ends_all_calls(void **state) {
    (void)state;
    struct error err = {0};
    struct collective *collective = open_fake(0, 0, NULL);
    collective->ops->abort(collective);
    assert_false(collective->ops->barrier(collective, &err));
    assert_int_equal(err.code, ERROR_STATE);
    collective->ops->close(collective);
    assert_int_equal(fake.aborted, 1);
}

static void test_tickets_have_a_limit_and_are_retired(void **state) {
    (void)state;
    struct error err = {0};
    struct collective *collective = open_fake(0, 0, NULL);
    float buffer[1] = {1};
    int ticket = 0, last;
    for (int i = 0; i < COLLECTIVE_TICKETS; i++)
        assert_true(start(collective, (struct collective_piece){buffer, DTYPE_F32, 1, NULL}, &ticket, NULL));
    assert_false(start(collective, (struct collective_piece){buffer, DTYPE_F32, 1, NULL}, &last, &err));
    assert_int_equal(err.code, ERROR_BUSY);
    assert_true(collective->ops->wait(collective, ticket, -1, NULL));
    assert_true(start(collective, (struct collective_piece){buffer, DTYPE_F32, 1, NULL}, &last, NULL));
    assert_true(collective->ops->wait(collective, last, -1, NULL));
    assert_false(start(collective, (struct collective_piece){buffer, DTYPE_U8, 1, NULL}, &last, &err));
    assert_int_equal(err.code, ERROR_UNSUPPORTED);
    collective->ops->close(collective);
    assert_int_equal(fake.aborted, 0);
}

static void test_what_cannot_open_leaves_nothing(void **state) {
    (void)state;
    struct error err = {0};
    assert_null(open_fake(1, 7, &err));
    assert_int_equal(err.code, ERROR_FORMAT);
    fake.fail_init = true;
    assert_null(open_fake(0, 0, &err));
    assert_int_equal(err.code, ERROR_INTERNAL);
    assert_int_equal(fake.live_events, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_reduces_behind_the_ready_event, reset),
        cmocka_unit_test_setup(test_gathers_spreads_and_meets, reset),
        cmocka_unit_test_setup(test_a_deadline_aborts_for_good, reset),
        cmocka_unit_test_setup(test_a_late_device_is_not_blamed_on_the_others, reset),
        cmocka_unit_test_setup(test_an_asynchronous_error_of_a_peer_ends_the_wait, reset),
        cmocka_unit_test_setup(test_a_call_that_is_never_accepted_times_out, reset),
        cmocka_unit_test_setup(test_abort_ends_all_calls, reset),
        cmocka_unit_test_setup(test_tickets_have_a_limit_and_are_retired, reset),
        cmocka_unit_test_setup(test_what_cannot_open_leaves_nothing, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
