#include "trainerd/collective/collective.h"
#include "trainerd/collective/interface.h"

#include "common/base/clock.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stdatomic.h>
#include <stdio.h>
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
enum { FIRST_SCRATCH_BYTES = 1 << 16, DESCRIPTION_BYTES = 512, POLL_US = 50 };

/** What is waited for, for those who are told that it did not come. */
struct task {
    const char *name;
    size_t bytes;      /* 0: it moves none */
    cudaEvent_t ready; /* the caller's: when its part can begin; NULL: at once */
};

struct slot {
    cudaEvent_t done;
    struct task task;
};

struct nccl {
    struct collective base;
    struct collective_spec spec; /* what it points to but `context` is open's */
    ncclComm_t comm;             /* NULL once aborted */
    cudaStream_t stream;
    struct slot slots[COLLECTIVE_TICKETS]; /* by ticket modulo COLLECTIVE_TICKETS */
    uint32_t submitted, retired;           /* tickets given out; tickets known to be done */
    void *scratch, *staging;               /* of all-gather, scratch_size bytes each: device memory, page-locked memory */
    size_t scratch_size;
    atomic_bool aborted; /* the one thing that other threads touch */
    bool failed;
    struct error failure; /* the first one */
    char description[DESCRIPTION_BYTES];
};

static bool cuda_ok(cudaError_t result, const char *what, struct error *err) {
    enum error_code code = result == cudaErrorMemoryAllocation ? ERROR_MEMORY : ERROR_INTERNAL;
    if (result == cudaSuccess)
        return true;
    cudaGetLastError(); /* it is reported here: nobody should find it later */
    return error_set(err, code, "%s: %s (%s)", what, cudaGetErrorString(result), cudaGetErrorName(result));
}

/** The answer of a query; that something is not ready yet is no error for whoever looks next. */
static cudaError_t answer(cudaError_t result) {
    if (result == cudaErrorNotReady)
        cudaGetLastError();
    return result;
}

static const char *task_text(const struct task *task, char *out, size_t size) {
    if (task->bytes)
        snprintf(out, size, "%s of %zu bytes", task->name, task->bytes);
    else
        snprintf(out, size, "%s", task->name);
    return out;
}

/** ncclInProgress is no failure: settle waits for what it becomes. NCCL does not say which rank it lost. */
static bool nccl_ok(const struct nccl *nccl, ncclResult_t result, const struct task *task, struct error *err) {
    char text[80];
    if (result == ncclSuccess || result == ncclInProgress)
        return true;
    bool peer = result == ncclRemoteError || result == ncclSystemError;
    error_set(err, peer ? ERROR_PEER : ERROR_INTERNAL, "rank %d: %s: %s (%s)", nccl->base.rank,
              task_text(task, text, sizeof text), ncclGetErrorString(result), ncclGetLastError(nccl->comm));
    if (result == ncclRemoteError && nccl->base.world_size == 2)
        error_prefix(err, "rank %d is gone", 1 - nccl->base.rank);
    return false;
}

/** After an abort NCCL's kernels leave the buffers; what was never begun (its event was not reached) is not
 * waited for. */
static void abandon(struct nccl *nccl) {
    enum { PATIENCE_MS = 2000 };
    int64_t deadline_ms = clock_now_ms() + PATIENCE_MS;
    ncclCommAbort(nccl->comm);
    nccl->comm = NULL;
    while (nccl->stream && answer(cudaStreamQuery(nccl->stream)) == cudaErrorNotReady &&
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

/* --- waiting --- */

/** A wait under way. */
struct watch {
    const struct task *task;
    int64_t begin_ms, deadline_ms;
};

static struct watch watch_begin(const struct nccl *nccl, const struct task *task) {
    int64_t now_ms = clock_now_ms();
    return (struct watch){task, now_ms, now_ms + nccl->spec.timeout_ms};
}

/** Who kept us waiting, as far as it can be known: this rank's own GPU, the one other rank, or some of the others. */
static bool say_late(const struct nccl *nccl, const struct watch *watch, struct error *err) {
    char text[80], who[48] = "the other ranks";
    const struct task *task = watch->task;
    bool own = task->ready && answer(cudaEventQuery(task->ready)) == cudaErrorNotReady;
    if (nccl->base.world_size == 2)
        snprintf(who, sizeof who, "rank %d", 1 - nccl->base.rank);
    return error_set(err, ERROR_TIMEOUT, "rank %d: %s: %s did not %s within %.1f s", nccl->base.rank,
                     task_text(task, text, sizeof text), own ? "this rank's own GPU" : who, own ? "come to it" : "answer",
                     (double)(watch->deadline_ms - watch->begin_ms) / 1000);
}

/** What the host looks at while it waits: another thread's abort, NCCL's own troubles, the clock. */
static bool healthy(struct nccl *nccl, const struct watch *watch, struct error *err) {
    ncclResult_t state = ncclSuccess;
    if (atomic_load(&nccl->aborted))
        return error_set(err, ERROR_STATE, "rank %d: the collective was aborted", nccl->base.rank);
    if (!nccl_ok(nccl, ncclCommGetAsyncError(nccl->comm, &state), watch->task, err) ||
        !nccl_ok(nccl, state, watch->task, err))
        return false;
    return clock_left_ms(watch->deadline_ms) > 0 || say_late(nccl, watch, err);
}

static void rest(const struct nccl *nccl) {
    if (nccl->spec.waiting)
        nccl->spec.waiting(nccl->spec.context);
    clock_sleep_us(POLL_US);
}

/** Waits until a call that may still be in progress has been accepted. */
static bool settle(struct nccl *nccl, ncclResult_t result, const struct task *task, struct error *err) {
    struct watch watch = watch_begin(nccl, task);
    if (!nccl_ok(nccl, result, task, err))
        return false;
    while (result == ncclInProgress) {
        if (!healthy(nccl, &watch, err) ||
            !nccl_ok(nccl, ncclCommGetAsyncError(nccl->comm, &result), task, err))
            return false;
        if (result == ncclInProgress)
            rest(nccl);
    }
    return nccl_ok(nccl, result, task, err);
}

static struct slot *slot_of(struct nccl *nccl, uint32_t ticket) {
    return &nccl->slots[ticket % COLLECTIVE_TICKETS];
}

/** Polls quickly at first, as most reductions are over in a moment, then without burning the core. */
static bool await_event(struct nccl *nccl, cudaEvent_t event, const struct watch *watch, struct error *err) {
    enum { EAGER_POLLS = 1000 };
    for (int polls = 0;; polls++) {
        cudaError_t state = answer(cudaEventQuery(event));
        if (state == cudaSuccess)
            return true;
        if (state != cudaErrorNotReady)
            return cuda_ok(state, watch->task->name, err);
        if (!healthy(nccl, watch, err))
            return false;
        if (polls > EAGER_POLLS)
            rest(nccl);
    }
}

/* --- calls --- */

/** What every call begins with. */
static bool enter(struct nccl *nccl, struct error *err) {
    struct error cause = {0};
    if (nccl->failed)
        return fail(nccl, NULL, err);
    if (atomic_load(&nccl->aborted)) {
        error_set(&cause, ERROR_STATE, "rank %d: the collective was aborted", nccl->base.rank);
        return fail(nccl, &cause, err);
    }
    if (!cuda_ok(cudaSetDevice(nccl->spec.device_index), "cudaSetDevice", &cause))
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
static bool seal(struct nccl *nccl, const struct task *task, int *ticket, struct error *err) {
    uint32_t number = nccl->submitted + 1;
    struct slot *slot = slot_of(nccl, number);
    if (!cuda_ok(cudaEventRecord(slot->done, nccl->stream), "cudaEventRecord", err))
        return false;
    slot->task = *task;
    nccl->submitted = number;
    *ticket = (int)number;
    return true;
}

/** Behind `ready` on the stream, and with a ticket. */
static bool queue_sum(struct nccl *nccl, const struct collective_piece *piece, ncclDataType_t type, int *ticket,
                      struct error *err) {
    size_t count = (size_t)piece->count;
    struct task task = {"all-reduce", count * dtype_size(piece->dtype), (cudaEvent_t)piece->ready};
    if (task.ready && !cuda_ok(cudaStreamWaitEvent(nccl->stream, task.ready, 0), "cudaStreamWaitEvent", err))
        return false;
    ncclResult_t result = ncclAllReduce(piece->buffer, piece->buffer, count, type, ncclSum, nccl->comm, nccl->stream);
    return settle(nccl, result, &task, err) && seal(nccl, &task, ticket, err);
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
    return queue_sum(nccl, piece, type, ticket, &cause) || fail(nccl, &cause, err);
}

static bool nccl_wait(struct collective *collective, int ticket, int64_t deadline_ms, struct error *err) {
    struct nccl *nccl = (struct nccl *)collective;
    struct error cause = {0};
    if (!enter(nccl, err))
        return false;
    if ((int32_t)((uint32_t)ticket - nccl->retired) <= 0)
        return true; /* work on the stream is done in order: a later ticket was seen to be done */
    const struct slot *slot = slot_of(nccl, (uint32_t)ticket);
    struct watch watch = watch_begin(nccl, &slot->task);
    if (deadline_ms >= 0 && deadline_ms < watch.deadline_ms)
        watch.deadline_ms = deadline_ms;
    if (!await_event(nccl, slot->done, &watch, &cause))
        return fail(nccl, &cause, err);
    nccl->retired = (uint32_t)ticket;
    return true;
}

static struct event *nccl_done_event(struct collective *collective, int ticket) {
    return (struct event *)slot_of((struct nccl *)collective, (uint32_t)ticket)->done;
}

/** Seals what `queued` says was put on the stream and waits for it. */
static bool finish(struct nccl *nccl, bool queued, const struct task *task, struct error *cause, struct error *err) {
    int ticket;
    if (!queued || !seal(nccl, task, &ticket, cause))
        return fail(nccl, cause, err);
    return nccl_wait(&nccl->base, ticket, -1, err);
}

static bool nccl_broadcast(struct collective *collective, void *buffer, size_t size, int root,
                           struct error *err) {
    struct nccl *nccl = (struct nccl *)collective;
    struct task task = {"broadcast", size, NULL};
    struct error cause = {0};
    if (!enter(nccl, err))
        return false;
    bool queued =
        settle(nccl, ncclBroadcast(buffer, buffer, size, ncclUint8, root, nccl->comm, nccl->stream), &task, &cause);
    return finish(nccl, queued, &task, &cause, err);
}

static void free_scratch(struct nccl *nccl) {
    cudaFree(nccl->scratch);
    cudaFreeHost(nccl->staging);
    nccl->scratch = nccl->staging = NULL;
    nccl->scratch_size = 0;
}

static bool grow_scratch(struct nccl *nccl, size_t size, struct error *err) {
    if (size <= nccl->scratch_size)
        return true;
    free_scratch(nccl);
    if (!cuda_ok(cudaMalloc(&nccl->scratch, size), "cudaMalloc", err) ||
        !cuda_ok(cudaMallocHost(&nccl->staging, size), "cudaMallocHost", err))
        return false;
    nccl->scratch_size = size;
    return true;
}

/** NCCL moves device memory only: up, gather in place (each rank's part lies where it belongs), down. */
static bool queue_gather(struct nccl *nccl, size_t size, const struct task *task, struct error *err) {
    char *part = (char *)nccl->scratch + size * (size_t)nccl->base.rank;
    size_t total = size * (size_t)nccl->base.world_size;
    return cuda_ok(cudaMemcpyAsync(part, nccl->staging, size, cudaMemcpyHostToDevice, nccl->stream), "upload", err) &&
           settle(nccl, ncclAllGather(part, nccl->scratch, size, ncclUint8, nccl->comm, nccl->stream), task, err) &&
           cuda_ok(cudaMemcpyAsync(nccl->staging, nccl->scratch, total, cudaMemcpyDeviceToHost, nccl->stream),
                   "download", err);
}

static bool nccl_allgather(struct collective *collective, const void *mine, size_t size, void *all,
                           struct error *err) {
    struct nccl *nccl = (struct nccl *)collective;
    struct task task = {"all-gather", size, NULL};
    struct error cause = {0};
    size_t total = size * (size_t)nccl->base.world_size;
    if (!enter(nccl, err))
        return false;
    bool queued = grow_scratch(nccl, total, &cause);
    if (queued) {
        memcpy(nccl->staging, mine, size);
        queued = queue_gather(nccl, size, &task, &cause);
    }
    if (!finish(nccl, queued, &task, &cause, err))
        return false;
    memcpy(all, nccl->staging, total);
    return true;
}

static bool nccl_barrier(struct collective *collective, struct error *err) {
    struct nccl *nccl = (struct nccl *)collective;
    char mine = 0, *all = malloc((size_t)nccl->base.world_size);
    bool ok = all ? nccl_allgather(collective, &mine, 1, all, err)
                  : error_set(err, ERROR_MEMORY, "nccl: out of memory");
    free(all);
    return ok;
}

static const char *nccl_describe(const struct collective *collective) {
    return ((const struct nccl *)collective)->description;
}

static void nccl_abort(struct collective *collective) {
    atomic_store(&((struct nccl *)collective)->aborted, true);
}

/* --- opening and closing --- */

/** Peers may still be inside their last operation: NCCL's finalize lets them get out of it. */
static void say_goodbye(struct nccl *nccl) {
    static const struct task task = {"finalize", 0, NULL};
    struct error cause = {0};
    bool idle = !nccl->failed && !atomic_load(&nccl->aborted) && nccl->submitted == nccl->retired;
    if (idle && settle(nccl, ncclCommFinalize(nccl->comm), &task, &cause))
        ncclCommDestroy(nccl->comm);
    else
        abandon(nccl);
}

static void nccl_close(struct collective *collective) {
    struct nccl *nccl = (struct nccl *)collective;
    cudaSetDevice(nccl->spec.device_index);
    if (nccl->comm)
        say_goodbye(nccl);
    for (int i = 0; i < COLLECTIVE_TICKETS; i++)
        if (nccl->slots[i].done)
            cudaEventDestroy(nccl->slots[i].done);
    if (nccl->stream)
        cudaStreamDestroy(nccl->stream);
    free_scratch(nccl);
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
        ok = cuda_ok(cudaEventCreateWithFlags(&nccl->slots[i].done, cudaEventDisableTiming),
                     "cudaEventCreateWithFlags", err);
    return ok;
}

static bool create_communicator(struct nccl *nccl, const struct collective_spec *spec, struct error *err) {
    static const struct task task = {"opening nccl", 0, NULL};
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    return interface_for_nccl(spec->address, err) && share_id(spec, &id, err) &&
           settle(nccl, ncclCommInitRankConfig(&nccl->comm, spec->world_size, id, spec->rank, &config), &task, err);
}

/** A rank's GPU, as the others see it. */
struct place {
    char name[64], bus[16];
};

static bool find_place(const struct nccl *nccl, struct place *out, struct error *err) {
    struct cudaDeviceProp properties;
    int device = nccl->spec.device_index;
    *out = (struct place){0};
    if (!cuda_ok(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties", err) ||
        !cuda_ok(cudaDeviceGetPCIBusId(out->bus, sizeof out->bus, device), "cudaDeviceGetPCIBusId", err))
        return false;
    snprintf(out->name, sizeof out->name, "%.63s", properties.name);
    return true;
}

/** Gathers who is where, which also shows that the ranks hear each other. What does not fit is left out. */
static bool describe_ranks(struct nccl *nccl, struct error *err) {
    int version = 0, ranks = nccl->base.world_size;
    struct place mine, *all = calloc((size_t)ranks, sizeof *all);
    if (!all)
        return error_set(err, ERROR_MEMORY, "nccl: out of memory");
    bool ok = find_place(nccl, &mine, err) && nccl_allgather(&nccl->base, &mine, sizeof mine, all, err);
    ncclGetVersion(&version);
    size_t used = (size_t)snprintf(nccl->description, DESCRIPTION_BYTES, "nccl %d.%d.%d, %d ranks", version / 10000,
                                   version / 100 % 100, version % 100, ranks);
    for (int i = 0; ok && i < ranks && used < DESCRIPTION_BYTES; i++)
        used += (size_t)snprintf(nccl->description + used, DESCRIPTION_BYTES - used, "; %d: %.63s (%.15s)", i, all[i].name,
                                 all[i].bus);
    free(all);
    return ok;
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
    nccl->spec = *spec;
    if (cuda_ok(cudaSetDevice(spec->device_index), "cudaSetDevice", err) && create_events(nccl, err) &&
        grow_scratch(nccl, FIRST_SCRATCH_BYTES, err) && create_communicator(nccl, spec, err) && describe_ranks(nccl, err))
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
    .describe = nccl_describe,
};
