#include "tests/emulation/runtime/state.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* --- the thread of a stream --- */

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

/** One piece of work in eight begins late, so that whoever did not wait for it finds old values. Without the lock. */
static void delay(unsigned most_us) {
    enum { ONE_IN = 8 };
    uint32_t number = emulation_random();
    if (most_us && number % ONE_IN == 0)
        usleep(number / ONE_IN % most_us);
}

/** Runs one piece of work, the lock let go meanwhile. After a fault a device does nothing any more. */
static void execute(struct state *state, struct CUstream_st *stream, struct work *work) {
    while (work->awaited && work->awaited->completed < work->awaited_sequence)
        pthread_cond_wait(&state->progress, &state->lock);
    bool alive = state->devices[stream->device].error == cudaSuccess;
    state_unlock();
    delay(state->delay_us);
    if (work->run && alive)
        work->run(work->argument);
    state_lock();
    if (work->event && work->event->sequence == work->sequence && work->event->stream == stream)
        work->event->reached_ms = now_ms();
}

static void *stream_main(void *argument) {
    struct CUstream_st *stream = argument;
    struct state *state = state_lock();
    while (stream->first || !stream->destroyed) {
        struct work *work = stream->first;
        if (!work) {
            pthread_cond_wait(&stream->wake, &state->lock);
            continue;
        }
        execute(state, stream, work);
        stream->first = work->next;
        stream->last = stream->first ? stream->last : NULL;
        stream->pageable_reads -= work->reads_pageable;
        stream->completed = work->sequence;
        free(work);
        pthread_cond_broadcast(&state->progress);
    }
    state_unlock();
    return NULL;
}

/* --- making and finding --- */

/** A slot that no stream has, or whose stream is gone with all its work. */
static int free_slot(const struct state *state) {
    for (int i = 0; i < MOST_STREAMS; i++) {
        const struct CUstream_st *before = state->slots[i];
        if (!before || (before->destroyed && before->completed == before->enqueued))
            return i;
    }
    return -1;
}

/** The program's signals are for its own threads. */
static bool start_thread(struct CUstream_st *stream) {
    sigset_t all, before;
    pthread_t thread;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool ok = pthread_create(&thread, NULL, stream_main, stream) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return ok && pthread_detach(thread) == 0;
}

static struct CUstream_st *create(int device, unsigned flags, int priority) {
    struct state *state = state_held();
    int slot = free_slot(state);
    struct CUstream_st *stream = slot >= 0 ? calloc(1, sizeof *stream) : NULL;
    if (!stream)
        return NULL;
    stream->device = device;
    stream->flags = flags;
    stream->priority = priority;
    stream->slot = slot;
    stream->clock = state->host;
    if (state->slots[slot]) /* ticks go on */
        stream->enqueued = stream->completed = stream->clock.tick[slot] = state->slots[slot]->enqueued;
    pthread_cond_init(&stream->wake, NULL);
    if (!start_thread(stream)) {
        free(stream);
        return NULL;
    }
    stream->next = state->streams;
    state->streams = state->slots[slot] = stream;
    return stream;
}

/** The device's default stream, made when it is first asked for. */
static struct CUstream_st *default_stream(int device) {
    struct state *state = state_held();
    struct emulated_device *row = &state->devices[device];
    if (!row->default_stream) {
        row->default_stream = create(device, cudaStreamDefault, 0);
        if (row->default_stream)
            row->default_stream->legacy = true;
    }
    return row->default_stream;
}

struct CUstream_st *stream_find(cudaStream_t stream, const char *who) {
    const struct state *state = state_held();
    if (!stream || stream == cudaStreamLegacy)
        return default_stream(device_current());
    struct CUstream_st *at = state->streams;
    while (at && at != stream)
        at = at->next;
    if (at && !at->destroyed)
        return at;
    emulation_finding("%s: %p is no stream%s", who, (void *)stream, at ? " any more: it was destroyed" : "");
    return NULL;
}

int emulation_stream_device(cudaStream_t stream, const char *who) {
    state_lock();
    const struct CUstream_st *found = stream_find(stream, who);
    int device = found ? found->device : NO_DEVICE;
    state_unlock();
    return device;
}

/* --- order --- */

void host_joins(const struct vector_clock *clock) {
    clock_join(&state_held()->host, clock);
}

static void push(struct CUstream_st *stream, struct work *work) {
    work->sequence = ++stream->enqueued;
    stream->clock.tick[stream->slot] = stream->enqueued;
    if (stream->last)
        stream->last->next = work;
    else
        stream->first = work;
    stream->last = work;
    pthread_cond_signal(&stream->wake);
}

static struct work *make_work(const struct work_spec *spec) {
    struct work *work = NULL;
    if (posix_memalign((void **)&work, _Alignof(struct work), sizeof *work + spec->argument_bytes))
        abort();
    memset(work, 0, sizeof *work);
    work->name = spec->name;
    work->run = spec->run;
    work->event = spec->event;
    work->reads_pageable = spec->reads_pageable;
    if (spec->argument_bytes)
        memcpy(work->argument, spec->argument, spec->argument_bytes);
    return work;
}

void stream_await(struct CUstream_st *stream, struct CUstream_st *other, uint64_t sequence,
                  const struct vector_clock *clock) {
    const struct work_spec spec = {.name = "wait"};
    clock_join(&stream->clock, clock);
    if (other == stream || other->completed >= sequence)
        return;
    struct work *work = make_work(&spec);
    work->awaited = other;
    work->awaited_sequence = sequence;
    push(stream, work);
}

/** The legacy default stream and its device's blocking streams wait for each other. */
static void order_with_default(struct CUstream_st *stream) {
    struct state *state = state_held();
    struct CUstream_st *legacy = state->devices[stream->device].default_stream;
    if (!stream->legacy && legacy && !(stream->flags & cudaStreamNonBlocking))
        stream_await(stream, legacy, legacy->enqueued, &legacy->clock);
    for (struct CUstream_st *at = stream->legacy ? state->streams : NULL; at; at = at->next)
        if (at != stream && at->device == stream->device && !(at->flags & cudaStreamNonBlocking))
            stream_await(stream, at, at->enqueued, &at->clock);
}

/* --- queueing --- */

static bool ranges_are_right(const struct CUstream_st *stream, const char *name, const struct emulation_range *ranges,
                             int count) {
    bool right = true;
    for (int i = 0; i < count; i++)
        right = (ranges[i].bytes == 0 || memory_use(stream->device, name, &ranges[i])) && right;
    return right;
}

static void note_accesses(const struct CUstream_st *stream, const char *name, const struct emulation_range *ranges,
                          int count) {
    for (int i = 0; i < count; i++) {
        struct allocation *allocation = ranges[i].bytes ? memory_find(ranges[i].memory) : NULL;
        if (!allocation)
            continue;
        struct access access = {.offset = (size_t)((const char *)ranges[i].memory - allocation->memory),
                                .bytes = ranges[i].bytes,
                                .written = ranges[i].written,
                                .slot = stream->slot,
                                .tick = stream->enqueued,
                                .name = name};
        race_check(allocation, &access, &stream->clock);
    }
}

cudaError_t stream_enqueue(struct CUstream_st *stream, const struct work_spec *spec, const struct emulation_range *ranges,
                           int count) {
    struct emulated_device *device = &state_held()->devices[stream->device];
    if (device->error != cudaSuccess)
        return device->error;
    if (stream->capture)
        return capture_add(stream, spec, ranges, count);
    cudaError_t forbidden = capture_forbids_legacy(stream, spec->name);
    if (forbidden != cudaSuccess)
        return forbidden;
    if (!ranges_are_right(stream, spec->name, ranges, count))
        return device->error = cudaErrorIllegalAddress;
    clock_join(&stream->clock, &state_held()->host);
    order_with_default(stream);
    struct work *work = make_work(spec);
    if (spec->prepare)
        spec->prepare(stream, work->argument);
    push(stream, work);
    note_accesses(stream, spec->name, ranges, count);
    stream->pageable_reads += spec->reads_pageable;
    if (spec->event) {
        spec->event->stream = stream;
        spec->event->sequence = stream->enqueued;
        spec->event->clock = stream->clock;
        spec->event->recorded = true;
    }
    return cudaSuccess;
}

cudaError_t emulation_enqueue(cudaStream_t stream, const char *name, const struct emulation_range *ranges, int count,
                              void (*work)(void *argument), const void *argument, size_t argument_bytes) {
    const struct work_spec spec = {.name = name, .run = work, .argument = argument, .argument_bytes = argument_bytes};
    state_lock();
    struct CUstream_st *found = stream_find(stream, name);
    cudaError_t result = found ? stream_enqueue(found, &spec, ranges, count) : cudaErrorInvalidResourceHandle;
    state_unlock();
    return result;
}

/* --- the host waits --- */

void stream_settle(struct CUstream_st *stream, uint64_t sequence) {
    struct state *state = state_held();
    while (stream->completed < sequence)
        pthread_cond_wait(&state->progress, &state->lock);
}

void streams_settle(int device) {
    for (struct CUstream_st *at = state_held()->streams; at; at = at->next)
        if (at->device == device)
            stream_settle(at, at->enqueued);
}

/** After a wait: the order is known, and a fault of the device is told. */
static cudaError_t waited(const struct CUstream_st *stream, const struct vector_clock *clock) {
    host_joins(clock);
    return state_held()->devices[stream->device].error;
}

/* --- CUDA's calls --- */

static cudaError_t create_call(cudaStream_t *out, unsigned flags, int priority, const char *who) {
    emulation_note(EMULATION_HANDLE, who);
    struct state *state = state_lock();
    int device = device_current();
    cudaError_t result = device < state->device_count ? state->devices[device].error : cudaErrorNoDevice;
    if (result == cudaSuccess && !(*out = create(device, flags, priority))) {
        emulation_finding("%s: more than %d streams are alive", who, MOST_STREAMS);
        result = cudaErrorMemoryAllocation;
    }
    state_unlock();
    if (result == cudaSuccess)
        emulation_handle_add("cudaStream_t", *out);
    return give(result);
}

cudaError_t cudaStreamCreate(cudaStream_t *out) {
    return create_call(out, cudaStreamDefault, 0, "cudaStreamCreate");
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) {
    return create_call(out, flags, 0, "cudaStreamCreateWithFlags");
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int priority) {
    return create_call(out, flags, priority, "cudaStreamCreateWithPriority");
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    emulation_note(EMULATION_HANDLE, "cudaStreamDestroy");
    state_lock();
    struct CUstream_st *found = stream ? stream_find(stream, "cudaStreamDestroy") : NULL;
    bool own = found && !found->legacy;
    if (own && found->capture)
        own = capture_forbids_stream(found, "cudaStreamDestroy") == cudaSuccess;
    if (own) { /* its thread ends once it has done what is queued */
        found->destroyed = true;
        pthread_cond_signal(&found->wake);
    }
    state_unlock();
    if (own)
        emulation_handle_remove("cudaStream_t", stream, "cudaStreamDestroy");
    return give(own ? cudaSuccess : cudaErrorInvalidResourceHandle);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    emulation_note(EMULATION_SYNCHRONISATION, "cudaStreamSynchronize");
    cudaError_t result = cudaErrorInvalidResourceHandle;
    state_lock();
    struct CUstream_st *found = stream_find(stream, "cudaStreamSynchronize");
    if (found)
        result = capture_forbids_stream(found, "cudaStreamSynchronize");
    if (found && result == cudaSuccess) {
        struct vector_clock clock = found->clock;
        stream_settle(found, found->enqueued);
        result = waited(found, &clock);
    }
    state_unlock();
    return give(result);
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
    emulation_note(EMULATION_QUERY, "cudaStreamQuery");
    cudaError_t result = cudaErrorInvalidResourceHandle;
    state_lock();
    struct CUstream_st *found = stream_find(stream, "cudaStreamQuery");
    if (found)
        result = capture_forbids_stream(found, "cudaStreamQuery");
    if (found && result == cudaSuccess)
        result = found->completed < found->enqueued ? cudaErrorNotReady : waited(found, &found->clock);
    state_unlock();
    return give(result);
}

cudaError_t cudaDeviceSynchronize(void) {
    emulation_note(EMULATION_SYNCHRONISATION, "cudaDeviceSynchronize");
    struct state *state = state_lock();
    int device = device_current();
    cudaError_t result = capture_forbids("cudaDeviceSynchronize");
    for (struct CUstream_st *at = state->streams; at && result == cudaSuccess; at = at->next)
        if (at->device == device) {
            struct vector_clock clock = at->clock;
            stream_settle(at, at->enqueued);
            host_joins(&clock);
        }
    result = result == cudaSuccess ? state->devices[device].error : result;
    state_unlock();
    return give(result);
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) {
    state_lock();
    const struct CUstream_st *found = stream_find(stream, "cudaStreamGetPriority");
    *priority = found ? found->priority : 0;
    state_unlock();
    return give(found ? cudaSuccess : cudaErrorInvalidResourceHandle);
}
