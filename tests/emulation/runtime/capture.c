#include "tests/emulation/runtime/state.h"

#include <stdlib.h>
#include <string.h>

/*
 * Streams that are captured: work becomes nodes of a graph. What comes before what is kept as sets of nodes, as vector
 * clocks do for work that runs: of each stream in the capture, of each event that was recorded in it, and of each node.
 */

enum { WORD_BITS = 64 };

static void *grow(void *memory, int count, size_t size) {
    void *grown = realloc(memory, (size_t)count * size);
    if (!grown)
        abort();
    return grown;
}

/* --- sets of nodes --- */

bool node_set_has(const struct node_set *set, int node) {
    return node / WORD_BITS < set->count && (set->words[node / WORD_BITS] >> node % WORD_BITS & 1);
}

static void set_resize(struct node_set *set, int words) {
    if (words <= set->count)
        return;
    set->words = grow(set->words, words, sizeof *set->words);
    memset(set->words + set->count, 0, (size_t)(words - set->count) * sizeof *set->words);
    set->count = words;
}

static void set_add(struct node_set *set, int node) {
    set_resize(set, node / WORD_BITS + 1);
    set->words[node / WORD_BITS] |= (uint64_t)1 << node % WORD_BITS;
}

static void set_join(struct node_set *into, const struct node_set *other) {
    set_resize(into, other->count);
    for (int i = 0; i < other->count; i++)
        into->words[i] |= other->words[i];
}

static bool set_holds(const struct node_set *set, const struct node_set *other) {
    for (int i = 0; i < other->count; i++)
        if (other->words[i] & ~(i < set->count ? set->words[i] : 0))
            return false;
    return true;
}

static void set_clear(struct node_set *set) {
    free(set->words);
    *set = (struct node_set){0};
}

/* --- bodies --- */

void graph_body_release(struct graph_body *body) {
    if (--body->references > 0)
        return;
    for (int i = 0; i < body->count; i++) {
        free((void *)body->nodes[i].spec.argument);
        free(body->nodes[i].ranges);
        set_clear(&body->nodes[i].before);
    }
    free(body->nodes);
    free(body);
}

static void *copy_of(const void *memory, size_t bytes) {
    void *copy = grow(NULL, 1, bytes + 1);
    return bytes ? memcpy(copy, memory, bytes) : copy;
}

cudaError_t capture_add(struct CUstream_st *stream, const struct work_spec *spec, const struct emulation_range *ranges,
                        int count) {
    struct graph_body *body = stream->capture->body;
    if (stream->capture->broken != cudaSuccess)
        return cudaErrorStreamCaptureInvalidated;
    if (body->count == body->capacity) {
        body->capacity = body->capacity ? 2 * body->capacity : 64;
        body->nodes = grow(body->nodes, body->capacity, sizeof *body->nodes);
    }
    struct node *node = &body->nodes[body->count];
    *node = (struct node){.spec = *spec, .range_count = count};
    node->spec.argument = copy_of(spec->argument, spec->argument_bytes);
    node->ranges = copy_of(ranges, (size_t)count * sizeof *ranges);
    set_join(&node->before, &stream->before);
    set_add(&stream->before, body->count++);
    return cudaSuccess;
}

/* --- what a capture forbids --- */

/** Names the calling thread. */
static const void *this_thread(void) {
    static _Thread_local char here;
    return &here;
}

static cudaError_t break_capture(struct capture *capture, cudaError_t error) {
    if (capture->broken == cudaSuccess)
        capture->broken = error;
    return error;
}

/* Threads are of the mode that they begin with, cudaStreamCaptureModeGlobal. */
cudaError_t capture_forbids(const char *who) {
    cudaError_t result = cudaSuccess;
    for (struct capture *at = state_held()->captures; at; at = at->next) {
        bool own = at->thread == this_thread() && at->mode != cudaStreamCaptureModeRelaxed;
        if (!own && at->mode != cudaStreamCaptureModeGlobal)
            continue;
        emulation_finding("%s is not permitted while %s", who, own ? "this thread captures a stream" : "a stream is captured");
        result = break_capture(at, cudaErrorStreamCaptureUnsupported);
    }
    return result;
}

cudaError_t capture_forbids_stream(struct CUstream_st *stream, const char *who) {
    if (!stream->capture)
        return capture_forbids(who);
    emulation_finding("%s is not permitted on a stream that is captured", who);
    return break_capture(stream->capture, cudaErrorStreamCaptureUnsupported);
}

static struct capture *capture_numbered(uint64_t number) {
    struct capture *at = state_held()->captures;
    while (at && at->number != number)
        at = at->next;
    return at;
}

cudaError_t capture_forbids_event(const struct CUevent_st *event, const char *who) {
    if (!event->captured)
        return capture_forbids(who);
    struct capture *capture = capture_numbered(event->captured);
    emulation_finding("%s is not permitted on an event that was last recorded on a captured stream", who);
    return capture ? break_capture(capture, cudaErrorCapturedEvent) : cudaErrorCapturedEvent;
}

cudaError_t capture_forbids_legacy(const struct CUstream_st *stream, const char *who) {
    cudaError_t result = cudaSuccess;
    for (struct CUstream_st *at = stream->legacy ? state_held()->streams : NULL; at; at = at->next) {
        if (!at->capture || at->device != stream->device || (at->flags & cudaStreamNonBlocking))
            continue;
        emulation_finding("%s makes the default stream wait for a stream that is captured", who);
        result = break_capture(at->capture, cudaErrorStreamCaptureImplicit);
    }
    return result;
}

/* --- events: forks and joins --- */

cudaError_t capture_record(struct CUstream_st *stream, struct CUevent_st *event) {
    if (stream->capture->broken != cudaSuccess)
        return cudaErrorStreamCaptureInvalidated;
    event->captured = stream->capture->number;
    set_clear(&event->before);
    set_join(&event->before, &stream->before);
    return cudaSuccess;
}

cudaError_t capture_wait(struct CUstream_st *stream, struct CUevent_st *event) {
    struct capture *capture = event->captured ? capture_numbered(event->captured) : NULL;
    if (event->captured && !capture) {
        emulation_finding("cudaStreamWaitEvent: the event was last recorded in a capture that has ended");
        return cudaErrorCapturedEvent;
    }
    if (!capture) {
        emulation_finding("cudaStreamWaitEvent: a captured stream waits for an event of work that is not captured");
        return break_capture(stream->capture, cudaErrorStreamCaptureIsolation);
    }
    if (stream->capture && stream->capture != capture) {
        emulation_finding("cudaStreamWaitEvent: the stream and the event are of two captures");
        break_capture(capture, cudaErrorStreamCaptureMerge);
        return break_capture(stream->capture, cudaErrorStreamCaptureMerge);
    }
    if (capture->broken != cudaSuccess)
        return cudaErrorStreamCaptureInvalidated;
    stream->capture = capture;
    set_join(&stream->before, &event->before);
    return cudaSuccess;
}

/* --- CUDA's calls --- */

static cudaError_t begin(struct CUstream_st *stream, enum cudaStreamCaptureMode mode) {
    struct state *state = state_held();
    if (state->devices[stream->device].error != cudaSuccess)
        return state->devices[stream->device].error;
    if (stream->legacy || stream->capture) {
        emulation_finding("cudaStreamBeginCapture: the stream is %s", stream->legacy ? "the default one" : "captured already");
        return stream->legacy ? cudaErrorStreamCaptureUnsupported : cudaErrorIllegalState;
    }
    struct capture *capture = grow(NULL, 1, sizeof *capture);
    *capture = (struct capture){.next = state->captures,
                                .number = ++state->captures_begun,
                                .origin = stream,
                                .mode = mode,
                                .thread = this_thread(),
                                .body = grow(NULL, 1, sizeof *capture->body)};
    *capture->body = (struct graph_body){.references = 1, .device = stream->device};
    state->captures = stream->capture = capture;
    emulation_handle_add("capture of a stream", capture);
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    emulation_note(EMULATION_HANDLE, "cudaStreamBeginCapture");
    state_lock();
    struct CUstream_st *found = stream_find(stream, "cudaStreamBeginCapture");
    cudaError_t result = found ? begin(found, mode) : cudaErrorInvalidResourceHandle;
    state_unlock();
    return give(result);
}

/** Lets go of the streams. Whether all that they captured comes before the end of the origin. */
static bool leave_streams(const struct capture *capture) {
    bool joined = true;
    struct CUstream_st *origin = capture->origin;
    for (struct CUstream_st *at = state_held()->streams; at; at = at->next) {
        if (at->capture != capture || at == origin)
            continue;
        joined = set_holds(&origin->before, &at->before) && joined;
        at->capture = NULL;
        set_clear(&at->before);
    }
    origin->capture = NULL;
    set_clear(&origin->before);
    return joined;
}

/** NULL and a reason: there is no graph. */
static struct graph_body *end(struct capture *capture, cudaError_t *result) {
    struct capture **at = &state_held()->captures;
    struct graph_body *body = capture->body;
    bool joined = leave_streams(capture);
    while (*at != capture)
        at = &(*at)->next;
    *at = capture->next;
    *result = capture->broken != cudaSuccess || failure_is_due(EMULATION_FAIL_CAPTURE) ? cudaErrorStreamCaptureInvalidated
              : joined                                                                 ? cudaSuccess
                                                                                       : cudaErrorStreamCaptureUnjoined;
    if (*result == cudaErrorStreamCaptureUnjoined)
        emulation_finding("cudaStreamEndCapture: a stream that forked off was not joined");
    if (*result != cudaSuccess)
        graph_body_release(body);
    emulation_handle_remove("capture of a stream", capture, "cudaStreamEndCapture");
    free(capture);
    return *result == cudaSuccess ? body : NULL;
}

static cudaError_t may_end(const struct CUstream_st *stream) {
    const struct capture *capture = stream->capture;
    cudaError_t result = !capture                    ? cudaErrorIllegalState
                         : capture->origin != stream ? cudaErrorStreamCaptureUnmatched
                         : capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != this_thread()
                             ? cudaErrorStreamCaptureWrongThread
                             : cudaSuccess;
    if (result != cudaSuccess)
        emulation_finding("cudaStreamEndCapture: %s", cudaGetErrorName(result));
    return result;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out) {
    emulation_note(EMULATION_HANDLE, "cudaStreamEndCapture");
    *out = NULL;
    state_lock();
    struct CUstream_st *found = stream_find(stream, "cudaStreamEndCapture");
    cudaError_t result = found ? may_end(found) : cudaErrorInvalidResourceHandle;
    struct graph_body *body = result == cudaSuccess ? end(found->capture, &result) : NULL;
    if (body)
        *out = graph_create(body);
    state_unlock();
    return give(result);
}
