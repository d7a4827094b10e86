#include "tests/emulation/runtime/state.h"

#include <stdlib.h>

struct CUevent_st *event_find(cudaEvent_t event, const char *who) {
    struct CUevent_st *at = state_held()->events;
    while (at && at != event)
        at = at->next;
    if (at && !at->destroyed)
        return at;
    emulation_finding("%s: %p is no event%s", who, (void *)event, at ? " any more: it was destroyed" : "");
    return NULL;
}

static cudaError_t create(cudaEvent_t *out, unsigned flags, const char *who) {
    emulation_note(EMULATION_HANDLE, who);
    struct CUevent_st *event = calloc(1, sizeof *event);
    if (!event)
        return give(cudaErrorMemoryAllocation);
    struct state *state = state_lock();
    event->device = device_current();
    event->flags = flags;
    event->next = state->events;
    state->events = event;
    state_unlock();
    emulation_handle_add("cudaEvent_t", event);
    *out = event;
    return give(cudaSuccess);
}

cudaError_t cudaEventCreate(cudaEvent_t *out) {
    return create(out, cudaEventDefault, "cudaEventCreate");
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags) {
    return create(out, flags, "cudaEventCreateWithFlags");
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    emulation_note(EMULATION_HANDLE, "cudaEventDestroy");
    state_lock();
    struct CUevent_st *found = event_find(event, "cudaEventDestroy");
    if (found)
        found->destroyed = true;
    state_unlock();
    if (!found)
        return give(cudaErrorInvalidResourceHandle);
    emulation_handle_remove("cudaEvent_t", event, "cudaEventDestroy");
    return give(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    emulation_note(EMULATION_ORDER, "cudaEventRecord");
    cudaError_t result = cudaErrorInvalidResourceHandle;
    state_lock();
    struct CUevent_st *found = event_find(event, "cudaEventRecord");
    struct CUstream_st *on = stream_find(stream, "cudaEventRecord");
    if (found && on && found->device != on->device)
        emulation_finding("cudaEventRecord: an event of device %d on a stream of device %d", found->device, on->device);
    else if (found && on && on->capture)
        result = capture_record(on, found);
    else if (found && on) {
        found->captured = 0;
        const struct work_spec spec = {.name = "cudaEventRecord", .event = found};
        result = stream_enqueue(on, &spec, NULL, 0);
    }
    state_unlock();
    return give(result);
}

/** Waiting for what was never recorded is no error for CUDA, but orders nothing: nobody means that. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    (void)flags;
    emulation_note(EMULATION_ORDER, "cudaStreamWaitEvent");
    state_lock();
    struct CUevent_st *found = event_find(event, "cudaStreamWaitEvent");
    struct CUstream_st *on = stream_find(stream, "cudaStreamWaitEvent");
    cudaError_t result = found && on ? state_held()->devices[on->device].error : cudaErrorInvalidResourceHandle;
    if (found && on && (on->capture || found->captured))
        result = capture_wait(on, found);
    else if (found && on && !found->recorded)
        emulation_finding("cudaStreamWaitEvent: the event was never recorded, so nothing is waited for");
    else if (result == cudaSuccess)
        stream_await(on, found->stream, found->sequence, &found->clock);
    state_unlock();
    return give(result);
}

/** With the lock. CUDA calls an event that was never recorded reached. */
static bool is_reached(const struct CUevent_st *event) {
    return !event->recorded || event->stream->completed >= event->sequence;
}

static cudaError_t reached(const struct CUevent_st *event) {
    if (event->recorded)
        host_joins(&event->clock);
    return state_held()->devices[event->device].error;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    emulation_note(EMULATION_QUERY, "cudaEventQuery");
    state_lock();
    const struct CUevent_st *found = event_find(event, "cudaEventQuery");
    cudaError_t result = found ? capture_forbids_event(found, "cudaEventQuery") : cudaErrorInvalidResourceHandle;
    if (result == cudaSuccess)
        result = is_reached(found) ? reached(found) : cudaErrorNotReady;
    state_unlock();
    return give(result);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    emulation_note(EMULATION_SYNCHRONISATION, "cudaEventSynchronize");
    cudaError_t result = cudaErrorInvalidResourceHandle;
    state_lock();
    const struct CUevent_st *found = event_find(event, "cudaEventSynchronize");
    if (found)
        result = capture_forbids_event(found, "cudaEventSynchronize");
    if (found && result == cudaSuccess) {
        struct CUevent_st as_called = *found; /* another thread may record it anew meanwhile */
        if (as_called.recorded)
            stream_settle(as_called.stream, as_called.sequence);
        result = reached(&as_called);
    }
    state_unlock();
    return give(result);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end) {
    emulation_note(EMULATION_QUERY, "cudaEventElapsedTime");
    cudaError_t result = cudaErrorInvalidResourceHandle;
    state_lock();
    const struct CUevent_st *from = event_find(start, "cudaEventElapsedTime"), *to = event_find(end, "cudaEventElapsedTime");
    bool timed = from && to && from->recorded && to->recorded && !((from->flags | to->flags) & cudaEventDisableTiming);
    if (from && to && !timed)
        emulation_finding("cudaEventElapsedTime: an event was never recorded, or was made without timing");
    if (timed) {
        result = is_reached(from) && is_reached(to) ? cudaSuccess : cudaErrorNotReady;
        *ms = (float)(to->reached_ms - from->reached_ms);
    }
    state_unlock();
    return give(result);
}
