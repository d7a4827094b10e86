#include "common/tensor/element.h"
#include "tests/emulation/nccl/communicator.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Collectives: calls that check and queue, and the work that moves and adds. */

/** A kind of collective. */
struct collective_row {
    const char *name;
    bool gathers; /**< `to` holds as many elements of each rank */
    bool (*run)(const struct operation *operation);
};

/* --- types --- */

static const struct {
    ncclDataType_t theirs;
    enum dtype ours;
} types[] = {{ncclFloat32, DTYPE_F32},  {ncclFloat64, DTYPE_F64}, {ncclInt32, DTYPE_S32}, {ncclInt64, DTYPE_S64},
             {ncclFloat16, DTYPE_F16}, {ncclBfloat16, DTYPE_BF16}, {ncclUint8, DTYPE_U8}};

static bool find_type(ncclDataType_t type, enum dtype *out) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].theirs == type) {
            *out = types[i].ours;
            return true;
        }
    return false;
}

static size_t size_of(const struct operation *operation) {
    enum dtype dtype;
    return find_type(operation->type, &dtype) ? dtype_size(dtype) : 0;
}

/** Of `from`. */
static size_t bytes_of(const struct operation *operation) {
    return operation->count * size_of(operation);
}

/* --- adding --- */

/** Unsigned: what is too large wraps. */
static void add_integers(void *to, const void *from, size_t count, enum dtype dtype) {
    for (size_t i = 0; i < count; i++)
        if (dtype == DTYPE_S32)
            ((uint32_t *)to)[i] += ((const uint32_t *)from)[i];
        else
            ((uint64_t *)to)[i] += ((const uint64_t *)from)[i];
}

/** Rounded after each addition to what the buffers hold. */
static void add(void *to, const void *from, size_t count, enum dtype dtype) {
    if (!element_is_floating(dtype))
        add_integers(to, from, count, dtype);
    for (size_t i = 0; dtype == DTYPE_F32 && i < count; i++)
        ((float *)to)[i] += ((const float *)from)[i];
    for (int64_t i = 0; element_is_floating(dtype) && dtype != DTYPE_F32 && i < (int64_t)count; i++)
        element_store(to, dtype, i, element_load(to, dtype, i) + element_load(from, dtype, i));
}

/* --- moving --- */

/** A rank's stretch of the elements, which it adds up for all: so each sum has one order, that of the ranks, and one result. */
struct stretch {
    size_t offset, bytes; /* in bytes */
};

static struct stretch stretch_of(const struct operation *operation, int rank) {
    size_t ranks = (size_t)operation->comm->ranks, size = size_of(operation);
    size_t begin = operation->count * (size_t)rank / ranks, end = operation->count * ((size_t)rank + 1) / ranks;
    return (struct stretch){begin * size, (end - begin) * size};
}

/** parts: (ranks, stretch) what each rank has there; the own one is left out. */
static void sum_stretch(const struct operation *operation, char *parts) {
    const struct ncclComm *comm = operation->comm;
    struct stretch mine = stretch_of(operation, comm->rank);
    enum dtype dtype = DTYPE_F32;
    find_type(operation->type, &dtype);
    memcpy(parts + (size_t)comm->rank * mine.bytes, (const char *)operation->from + mine.offset, mine.bytes);
    for (int rank = 1; rank < comm->ranks; rank++)
        add(parts, parts + (size_t)rank * mine.bytes, mine.bytes / dtype_size(dtype), dtype);
    memcpy((char *)operation->to + mine.offset, parts, mine.bytes);
}

static bool scatter_and_gather(const struct operation *operation, char *parts) {
    ncclComm_t comm = operation->comm;
    struct transfer there[MOST_RANKS] = {0}, back[MOST_RANKS] = {0};
    struct stretch mine = stretch_of(operation, comm->rank);
    for (int peer = 0; peer < comm->ranks; peer++) {
        struct stretch theirs = stretch_of(operation, peer);
        if (peer == comm->rank)
            continue;
        there[peer] = (struct transfer){(const char *)operation->from + theirs.offset, theirs.bytes,
                                        parts + (size_t)peer * mine.bytes, mine.bytes};
        back[peer] = (struct transfer){(char *)operation->to + mine.offset, mine.bytes, (char *)operation->to + theirs.offset,
                                       theirs.bytes};
    }
    if (!exchange(comm, there))
        return false;
    sum_stretch(operation, parts);
    return exchange(comm, back);
}

static bool all_reduce(const struct operation *operation) {
    struct stretch mine = stretch_of(operation, operation->comm->rank);
    char *parts = malloc(mine.bytes * (size_t)operation->comm->ranks + 1);
    bool ok = parts ? scatter_and_gather(operation, parts)
                    : communicator_fail(operation->comm, ncclSystemError, "out of memory");
    free(parts);
    return ok;
}

static bool broadcast(const struct operation *operation) {
    ncclComm_t comm = operation->comm;
    struct transfer transfers[MOST_RANKS] = {0};
    size_t bytes = bytes_of(operation);
    if (comm->rank != operation->root) {
        transfers[operation->root] = (struct transfer){.in = operation->to, .in_bytes = bytes};
        return exchange(comm, transfers);
    }
    for (int peer = 0; peer < comm->ranks; peer++)
        if (peer != comm->rank)
            transfers[peer] = (struct transfer){.out = operation->from, .out_bytes = bytes};
    memmove(operation->to, operation->from, bytes);
    return exchange(comm, transfers);
}

static bool all_gather(const struct operation *operation) {
    ncclComm_t comm = operation->comm;
    struct transfer transfers[MOST_RANKS] = {0};
    size_t bytes = bytes_of(operation);
    for (int peer = 0; peer < comm->ranks; peer++)
        if (peer != comm->rank)
            transfers[peer] = (struct transfer){operation->from, bytes, (char *)operation->to + (size_t)peer * bytes, bytes};
    memmove((char *)operation->to + (size_t)comm->rank * bytes, operation->from, bytes);
    return exchange(comm, transfers);
}

static const struct collective_row row_all_reduce = {"ncclAllReduce", false, all_reduce};
static const struct collective_row row_broadcast = {"ncclBroadcast", false, broadcast};
static const struct collective_row row_all_gather = {"ncclAllGather", true, all_gather};

/* --- the ranks agree --- */

/** What a rank is about to do. NCCL does not compare it: it hangs, or moves the wrong bytes. */
struct intent {
    uint64_t sequence, count;
    int32_t type, root;
    char name[24];
};

static struct intent intent_of(const struct operation *operation) {
    struct intent intent;
    memset(&intent, 0, sizeof intent);
    intent.sequence = operation->sequence;
    intent.count = operation->count;
    intent.type = (int32_t)operation->type;
    intent.root = operation->root;
    snprintf(intent.name, sizeof intent.name, "%s", operation->row->name);
    return intent;
}

static bool compare(const struct operation *operation, int peer, const struct intent *mine, const struct intent *theirs) {
    if (memcmp(mine, theirs, sizeof *mine) == 0)
        return true;
    emulation_finding("rank %d calls %s number %llu with %llu elements of type %d, root %d, and rank %d %.23s number %llu with "
                      "%llu of type %d, root %d",
                      operation->comm->rank, mine->name, (unsigned long long)mine->sequence, (unsigned long long)mine->count,
                      mine->type, mine->root, peer, theirs->name, (unsigned long long)theirs->sequence,
                      (unsigned long long)theirs->count, theirs->type, theirs->root);
    return communicator_fail(operation->comm, ncclInternalError, "the ranks' calls differ");
}

static bool agree(const struct operation *operation) {
    ncclComm_t comm = operation->comm;
    struct intent mine = intent_of(operation), theirs[MOST_RANKS];
    struct transfer transfers[MOST_RANKS] = {0};
    for (int peer = 0; peer < comm->ranks; peer++)
        if (peer != comm->rank)
            transfers[peer] = (struct transfer){&mine, sizeof mine, &theirs[peer], sizeof theirs[peer]};
    if (!exchange(comm, transfers))
        return false;
    for (int peer = 0; peer < comm->ranks; peer++)
        if (peer != comm->rank && !compare(operation, peer, &mine, &theirs[peer]))
            return false;
    return true;
}

/* --- work --- */

/** THORAX_EMULATION_NCCL_DIE and _HANG, RANK:N, are for that rank's N-th operation: the process is killed, or stops. */
static void misbehave(const struct operation *operation) {
    static const struct {
        const char *name;
        int signal;
    } rows[] = {{"THORAX_EMULATION_NCCL_DIE", SIGKILL}, {"THORAX_EMULATION_NCCL_HANG", SIGSTOP}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *text = getenv(rows[i].name);
        int rank;
        unsigned long long n;
        if (text && *text && sscanf(text, "%d:%llu", &rank, &n) != 2)
            emulation_finding("%s=%s is not RANK:N", rows[i].name, text);
        else if (text && *text && rank == operation->comm->rank && n == operation->sequence)
            raise(rows[i].signal); /* to this thread, which goes no further */
    }
}

/** Operations of a communicator run one after the other, on whatever streams they are. False: aborted. */
static bool enter(const struct operation *operation) {
    ncclComm_t comm = operation->comm;
    pthread_mutex_lock(&comm->lock);
    while (comm->state != ABORTED && (comm->running || comm->done + 1 != operation->sequence))
        pthread_cond_wait(&comm->changed, &comm->lock);
    bool entered = comm->running = comm->state != ABORTED;
    pthread_mutex_unlock(&comm->lock);
    return entered;
}

/** What cannot end well does not end: NCCL's kernels spin until the communicator is aborted. */
static void leave(const struct operation *operation, bool well) {
    ncclComm_t comm = operation->comm;
    pthread_mutex_lock(&comm->lock);
    while (!well && comm->state != ABORTED)
        pthread_cond_wait(&comm->changed, &comm->lock);
    comm->running = false;
    comm->done += well;
    pthread_cond_broadcast(&comm->changed);
    pthread_mutex_unlock(&comm->lock);
}

static void run(void *argument) {
    const struct operation *operation = argument;
    if (!enter(operation))
        return;
    misbehave(operation);
    leave(operation, agree(operation) && operation->row->run(operation));
}

/* --- calls --- */

static bool overlap(const struct emulation_range *a, const struct emulation_range *b) {
    const char *p = a->memory, *q = b->memory;
    return a->bytes && b->bytes && p < q + b->bytes && q < p + a->bytes;
}

/** Fills in at most two ranges and returns how many. In place means that `from` is where its elements end up. */
static int ranges_of(const struct operation *operation, struct emulation_range ranges[2]) {
    const struct ncclComm *comm = operation->comm;
    size_t bytes = bytes_of(operation), whole = operation->row->gathers ? bytes * (size_t)comm->ranks : bytes;
    const char *own_place = (const char *)operation->to + (operation->row->gathers ? bytes * (size_t)comm->rank : 0);
    bool reads = operation->root < 0 || operation->root == comm->rank, in_place = operation->from == own_place;
    ranges[0] = (struct emulation_range){operation->to, whole, !(in_place && operation->root == comm->rank)};
    ranges[1] = (struct emulation_range){operation->from, bytes, false};
    if (reads && !in_place && overlap(&ranges[0], &ranges[1]))
        emulation_finding("%s: the buffers overlap, and not in place", operation->row->name);
    return reads && !in_place ? 2 : 1;
}

ncclResult_t operation_enqueue(const struct operation *operation) {
    struct emulation_range ranges[2];
    int count = ranges_of(operation, ranges);
    cudaError_t result =
        emulation_enqueue(operation->stream, operation->row->name, ranges, count, run, operation, sizeof *operation);
    return result == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

static bool arguments_are_right(const struct operation *operation) {
    const struct ncclComm *comm = operation->comm;
    const char *name = operation->row->name;
    bool right = size_of(operation) > 0 && operation->root < comm->ranks;
    int device = emulation_stream_device(operation->stream, name);
    if (!right)
        emulation_finding("%s: type %d or root %d is wrong, or not emulated", name, (int)operation->type, operation->root);
    if (right && device >= 0 && device != comm->device)
        emulation_finding("%s: a stream of device %d for a communicator of device %d", name, device, comm->device);
    return right && device == comm->device && emulation_check_alignment(name, operation->from, size_of(operation)) &&
           emulation_check_alignment(name, operation->to, size_of(operation));
}

/** With the lock. NCCL may put it on the stream at once, or in the background, while the caller is told so. */
static ncclResult_t accept_operation(struct operation *operation) {
    enum { ONE_IN = 4, MOST_POLLS = 3 };
    ncclComm_t comm = operation->comm;
    uint32_t number = emulation_random();
    if (comm->error != ncclSuccess)
        return comm->error;
    operation->sequence = ++comm->queued;
    if (number % ONE_IN != 0)
        return operation_enqueue(operation);
    comm->polls = 1 + (int)(number / ONE_IN % MOST_POLLS);
    comm->accepted = *operation;
    return ncclInProgress;
}

static ncclResult_t call(struct operation operation) {
    ncclComm_t comm = operation.comm;
    const char *name = operation.row->name;
    emulation_note(EMULATION_NCCL, name);
    if (!communicator_check(comm, name) || !arguments_are_right(&operation))
        return ncclInvalidArgument;
    pthread_mutex_lock(&comm->lock);
    bool right = comm->state == READY && comm->polls == 0;
    ncclResult_t result = right ? accept_operation(&operation) : ncclInvalidUsage;
    pthread_mutex_unlock(&comm->lock);
    if (!right)
        emulation_finding("%s: the communicator is not open, or still busy with an earlier call", name);
    return result;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t stream) {
    if (op != ncclSum || type == ncclUint8) {
        emulation_finding("ncclAllReduce: only sums are emulated, and not of bytes");
        return ncclInvalidArgument;
    }
    return call((struct operation){.row = &row_all_reduce, .comm = comm, .from = from, .to = to, .count = count, .type = type,
                                   .root = -1, .stream = stream});
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
    return call((struct operation){.row = &row_broadcast, .comm = comm, .from = from, .to = to, .count = count, .type = type,
                                   .root = root, .stream = stream});
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
    return call((struct operation){.row = &row_all_gather, .comm = comm, .from = from, .to = to, .count = count, .type = type,
                                   .root = -1, .stream = stream});
}
