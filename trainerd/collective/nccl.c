#include "trainerd/collective/collective.h"

#include "common/base/clock.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/**
 * NCCL on a stream of its own. A `struct event` is a cudaEvent_t and a `struct stream` a cudaStream_t, cast:
 * the reduction's stream waits for `ready`, and collective_done_event lets the compute stream wait for the
 * reduction, both without the host.
 *
 * NCCL has neither deadlines nor a watchdog, so nothing here may block inside it: the communicator is
 * non-blocking, and the host polls events, asynchronous errors, the clock and the abort flag. A communicator
 * that failed is aborted by the thread that notices, never by the one that asks for it, for NCCL's calls on
 * one communicator must not overlap.
 */
struct nccl {
    struct collective base;
    int device;
    int64_t timeout_ms;
    ncclComm_t comm; /* NULL once aborted */
    cudaStream_t stream;
    cudaEvent_t done[COLLECTIVE_TICKETS]; /* slot: ticket modulo COLLECTIVE_TICKETS */
    uint32_t submitted, retired;          /* tickets given out; tickets known to be done */
    void *scratch;                        /* device memory of all-gather, scratch_size bytes */
    size_t scratch_size;
    atomic_bool aborted; /* the one thing that other threads touch */
    bool failed;
    struct error failure; /* the first one */
};

static bool cuda_ok(cudaError_t result, const char *what, struct error *err) {
    if (result == cudaSuccess)
        return true;
    enum error_code code = result == cudaErrorMemoryAllocation ? ERROR_MEMORY : ERROR_INTERNAL;
    return error_set(err, code, "%s: %s (%s)", what, cudaGetErrorString(result), cudaGetErrorName(result));
}

/** ncclInProgress is no failure: settle waits for what it becomes. */
static bool nccl_ok(const struct nccl *nccl, ncclResult_t result, const char *what, struct error *err) {
    if (result == ncclSuccess || result == ncclInProgress)
        return true;
    bool peer = result == ncclRemoteError || result == ncclSystemError;
    return error_set(err, peer ? ERROR_PEER : ERROR_INTERNAL, "rank %d: %s: %s (%s)", nccl->base.rank, what,
                     ncclGetErrorString(result), ncclGetLastError(nccl->comm));
}

/** After an abort NCCL's kernels leave the buffers; what was never begun (its event was not reached) is not
 * waited for. */
static void abandon(struct nccl *nccl) {
    enum { PATIENCE_MS = 2000 };
    int64_t deadline_ms = clock_now_ms() + PATIENCE_MS;
    ncclCommAbort(nccl->comm);
    nccl->comm = NULL;
    while (nccl->stream && cudaStreamQuery(nccl->stream) == cudaErrorNotReady &&
           clock_left_ms(deadline_ms) > 0)
        clock_sleep_ms(1);
}

/** Makes the first failure final. Returns false. */
static bool fail(struct nccl *nccl, const struct error *cause, struct error *err) {
    if (!nccl->failed) {
        nccl->failed = true;
        nccl->failure = *cause;
        if (nccl->comm)
            abandon(nccl);
    }
    if (err)
        *err = nccl->failure;
    return false;
}

/** What the host looks at while it waits: another thread's abort, NCCL's own troubles, the clock. */
static bool healthy(struct nccl *nccl, const char *what, int64_t deadline_ms, struct error *err) {
    ncclResult_t state = ncclSuccess;
    if (atomic_load(&nccl->aborted))
        return error_set(err, ERROR_STATE, "rank %d: the collective was aborted", nccl->base.rank);
    if (!nccl_ok(nccl, ncclCommGetAsyncError(nccl->comm, &state), what, err) ||
        !nccl_ok(nccl, state, what, err))
        return false;
    if (clock_left_ms(deadline_ms) == 0)
        return error_set(err, ERROR_TIMEOUT, "rank %d: %s: the other ranks did not answer in time",
                         nccl->base.rank, what);
    return true;
}

/** Waits until a call that may still be in progress has been accepted. */
static bool settle(struct nccl *nccl, ncclResult_t result, const char *what, struct error *err) {
    int64_t deadline_ms = clock_now_ms() + nccl->timeout_ms;
    if (!nccl_ok(nccl, result, what, err))
        return false;
    while (result == ncclInProgress) {
        if (!healthy(nccl, what, deadline_ms, err) ||
            !nccl_ok(nccl, ncclCommGetAsyncError(nccl->comm, &result), what, err))
            return false;
        if (result == ncclInProgress)
            clock_sleep_ms(1);
    }
    return nccl_ok(nccl, result, what, err);
}

static cudaEvent_t event_of(const struct nccl *nccl, uint32_t ticket) {
    return nccl->done[ticket % COLLECTIVE_TICKETS];
}

/** Polls quickly at first, as most reductions are over in a moment, then without burning the core. */
static bool await_event(struct nccl *nccl, cudaEvent_t event, const char *what, int64_t deadline_ms,
                        struct error *err) {
    enum { EAGER_POLLS = 1000 };
    for (int polls = 0;; polls++) {
        cudaError_t state = cudaEventQuery(event);
        if (state == cudaSuccess)
            return true;
        if (state != cudaErrorNotReady)
            return cuda_ok(state, what, err);
        if (!healthy(nccl, what, deadline_ms, err))
            return false;
        if (polls > EAGER_POLLS)
            clock_sleep_ms(1);
    }
}

/** What every call begins with. */
static bool enter(struct nccl *nccl, struct error *err) {
    struct error cause = {0};
    if (nccl->failed)
        return fail(nccl, NULL, err);
    if (atomic_load(&nccl->aborted)) {
        error_set(&cause, ERROR_STATE, "rank %d: the collective was aborted", nccl->base.rank);
        return fail(nccl, &cause, err);
    }
    if (!cuda_ok(cudaSetDevice(nccl->device), "cudaSetDevice", &cause))
        return fail(nccl, &cause, err);
    return true;
}

static bool find_type(enum dtype dtype, ncclDataType_t *out) {
    static const struct {
        enum dtype ours;
        ncclDataType_t theirs;
    } rows[] = {{DTYPE_F32, ncclFloat32}, {DTYPE_F64, ncclFloat64}, {DTYPE_S32, ncclInt32},
                {DTYPE_S64, ncclInt64},   {DTYPE_F16, ncclFloat16}, {DTYPE_BF16, ncclBfloat16}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].ours == dtype) {
            *out = rows[i].theirs;
            return true;
        }
    }
    return false;
}

/** Gives out a ticket for what was queued on the stream last. */
static bool seal(struct nccl *nccl, int *ticket, struct error *err) {
    uint32_t number = nccl->submitted + 1;
    if (!cuda_ok(cudaEventRecord(event_of(nccl, number), nccl->stream), "cudaEventRecord", err))
        return false;
    nccl->submitted = number;
    *ticket = (int)number;
    return true;
}

static bool nccl_start(struct collective *collective, const struct collective_piece *piece, int *ticket,
                       struct error *err) {
    struct nccl *nccl = (struct nccl *)collective;
    struct error cause = {0};
    ncclDataType_t type;
    if (!enter(nccl, err))
        return false;
    if (!find_type(piece->dtype, &type))
        return error_set(err, ERROR_UNSUPPORTED, "nccl cannot sum %s", dtype_name(piece->dtype));
    if (nccl->submitted - nccl->retired >= COLLECTIVE_TICKETS)
        return error_set(err, ERROR_BUSY, "nccl: %d operations are under way already", COLLECTIVE_TICKETS);
    bool ok = !piece->ready || cuda_ok(cudaStreamWaitEvent(nccl->stream, (cudaEvent_t)piece->ready, 0),
                                       "cudaStreamWaitEvent", &cause);
    ok = ok &&
         settle(nccl,
                ncclAllReduce(piece->buffer, piece->buffer, (size_t)piece->count, type, ncclSum, nccl->comm,
                              nccl->stream),
                "all-reduce", &cause) &&
         seal(nccl, ticket, &cause);
    return ok || fail(nccl, &cause, err);
}

static int64_t first_of(int64_t a_ms, int64_t b_ms) {
    return b_ms < 0 || a_ms < b_ms ? a_ms : b_ms;
}

static bool nccl_wait(struct collective *collective, int ticket, int64_t deadline_ms, struct error *err) {
    struct nccl *nccl = (struct nccl *)collective;
    struct error cause = {0};
    if (!enter(nccl, err))
        return false;
    if ((int32_t)((uint32_t)ticket - nccl->retired) <= 0)
        return true; /* work on the stream is done in order: a later ticket was seen to be done */
    int64_t until_ms = first_of(clock_now_ms() + nccl->timeout_ms, deadline_ms);
    if (!await_event(nccl, event_of(nccl, (uint32_t)ticket), "all-reduce", until_ms, &cause))
        return fail(nccl, &cause, err);
    nccl->retired = (uint32_t)ticket;
    return true;
}

static struct event *nccl_done_event(struct collective *collective, int ticket) {
    return (struct event *)event_of((struct nccl *)collective, (uint32_t)ticket);
}

/** Seals what `queued` says was put on the stream and waits for it. */
static bool finish(struct nccl *nccl, bool queued, struct error *cause, struct error *err) {
    int ticket;
    if (!queued || !seal(nccl, &ticket, cause))
        return fail(nccl, cause, err);
    return nccl_wait(&nccl->base, ticket, -1, err);
}

static bool nccl_broadcast(struct collective *collective, void *buffer, size_t size, int root,
                           struct error *err) {
    struct nccl *nccl = (struct nccl *)collective;
    struct error cause = {0};
    if (!enter(nccl, err))
        return false;
    bool queued = settle(nccl, ncclBroadcast(buffer, buffer, size, ncclUint8, root, nccl->comm, nccl->stream),
                         "broadcast", &cause);
    return finish(nccl, queued, &cause, err);
}

static bool grow_scratch(struct nccl *nccl, size_t size, struct error *err) {
    if (size <= nccl->scratch_size)
        return true;
    cudaFree(nccl->scratch);
    nccl->scratch = NULL;
    nccl->scratch_size = 0;
    if (!cuda_ok(cudaMalloc(&nccl->scratch, size), "cudaMalloc", err))
        return false;
    nccl->scratch_size = size;
    return true;
}

/** NCCL moves device memory only: up, gather in place (each rank's part lies where it belongs), down. */
static bool nccl_allgather(struct collective *collective, const void *mine, size_t size, void *all,
                           struct error *err) {
    struct nccl *nccl = (struct nccl *)collective;
    struct error cause = {0};
    size_t total = size * (size_t)nccl->base.world_size;
    if (!enter(nccl, err))
        return false;
    if (!grow_scratch(nccl, total, &cause))
        return fail(nccl, &cause, err);
    char *part = (char *)nccl->scratch + size * (size_t)nccl->base.rank;
    bool queued =
        cuda_ok(cudaMemcpyAsync(part, mine, size, cudaMemcpyHostToDevice, nccl->stream), "upload", &cause) &&
        settle(nccl, ncclAllGather(part, nccl->scratch, size, ncclUint8, nccl->comm, nccl->stream),
               "all-gather", &cause);
    if (!finish(nccl, queued, &cause, err))
        return false;
    /* Everything is there, so this cannot wait for a peer. */
    return cuda_ok(cudaMemcpy(all, nccl->scratch, total, cudaMemcpyDeviceToHost), "download", &cause) ||
           fail(nccl, &cause, err);
}

static bool nccl_barrier(struct collective *collective, struct error *err) {
    struct nccl *nccl = (struct nccl *)collective;
    char mine = 0, *all = malloc((size_t)nccl->base.world_size);
    bool ok = all ? nccl_allgather(collective, &mine, 1, all, err)
                  : error_set(err, ERROR_MEMORY, "nccl: out of memory");
    free(all);
    return ok;
}

static void nccl_abort(struct collective *collective) {
    atomic_store(&((struct nccl *)collective)->aborted, true);
}

/** Peers may still be inside their last operation: NCCL's finalize lets them get out of it. */
static void say_goodbye(struct nccl *nccl) {
    struct error cause = {0};
    bool idle = !nccl->failed && !atomic_load(&nccl->aborted) && nccl->submitted == nccl->retired;
    if (idle && settle(nccl, ncclCommFinalize(nccl->comm), "finalize", &cause))
        ncclCommDestroy(nccl->comm);
    else
        abandon(nccl);
}

static void nccl_close(struct collective *collective) {
    struct nccl *nccl = (struct nccl *)collective;
    cudaSetDevice(nccl->device);
    if (nccl->comm)
        say_goodbye(nccl);
    for (int i = 0; i < COLLECTIVE_TICKETS; i++) {
        if (nccl->done[i])
            cudaEventDestroy(nccl->done[i]);
    }
    if (nccl->stream)
        cudaStreamDestroy(nccl->stream);
    cudaFree(nccl->scratch);
    free(nccl);
}

/** Rank 0 draws the id that the communicator is known by, the others read it. */
static bool share_id(const struct collective_spec *spec, ncclUniqueId *id, struct error *err) {
    static const char key[] = "nccl/id";
    struct bytes value;
    if (spec->rank == 0) {
        ncclResult_t result = ncclGetUniqueId(id);
        if (result != ncclSuccess)
            return error_set(err, ERROR_INTERNAL, "ncclGetUniqueId: %s", ncclGetErrorString(result));
        return spec->store->set(spec->store->context, key, id, sizeof *id, err);
    }
    if (!spec->store->get(spec->store->context, key, clock_now_ms() + spec->timeout_ms, &value, err))
        return false;
    bool ok = value.size == sizeof *id;
    if (ok)
        memcpy(id, value.data, sizeof *id);
    free(value.data);
    return ok ||
           error_set(err, ERROR_FORMAT, "nccl: an id of %zu bytes, expected %zu", value.size, sizeof *id);
}

static bool create_events(struct nccl *nccl, struct error *err) {
    /* Above the compute streams: a reduction that starts late makes every rank wait. */
    int least, greatest;
    bool ok = cuda_ok(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange",
                      err) &&
              cuda_ok(cudaStreamCreateWithPriority(&nccl->stream, cudaStreamNonBlocking, greatest),
                      "cudaStreamCreateWithPriority", err);
    for (int i = 0; i < COLLECTIVE_TICKETS && ok; i++)
        ok = cuda_ok(cudaEventCreateWithFlags(&nccl->done[i], cudaEventDisableTiming),
                     "cudaEventCreateWithFlags", err);
    return ok;
}

static bool create_communicator(struct nccl *nccl, const struct collective_spec *spec, struct error *err) {
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    return share_id(spec, &id, err) &&
           settle(nccl, ncclCommInitRankConfig(&nccl->comm, spec->world_size, id, spec->rank, &config),
                  "opening nccl", err);
}

static struct collective *nccl_open(const struct collective_spec *spec, struct error *err) {
    if (!spec->store) {
        error_set(err, ERROR_INVALID, "nccl needs a store to meet the other ranks");
        return NULL;
    }
    struct nccl *nccl = calloc(1, sizeof *nccl);
    if (!nccl) {
        error_set(err, ERROR_MEMORY, "nccl: out of memory");
        return NULL;
    }
    nccl->base.rank = spec->rank;
    nccl->base.world_size = spec->world_size;
    nccl->device = spec->device_index;
    nccl->timeout_ms = spec->timeout_ms;
    if (cuda_ok(cudaSetDevice(nccl->device), "cudaSetDevice", err) && create_events(nccl, err) &&
        create_communicator(nccl, spec, err))
        return &nccl->base;
    nccl->failed = true; /* close aborts instead of saying goodbye */
    nccl_close(&nccl->base);
    return NULL;
}

const struct collective_ops collective_nccl = {
    .name = "nccl",
    .open = nccl_open,
    .close = nccl_close,
    .start = nccl_start,
    .wait = nccl_wait,
    .done_event = nccl_done_event,
    .broadcast = nccl_broadcast,
    .allgather = nccl_allgather,
    .barrier = nccl_barrier,
    .abort = nccl_abort,
};
