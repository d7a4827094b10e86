#include "tests/emulation/runtime/state.h"

#include <stdlib.h>

/* Graphs and their executables. A launch queues the nodes in the order in which they were captured, each with all checks. */

static const char GRAPH[] = "cudaGraph_t", EXECUTABLE[] = "cudaGraphExec_t";

/* Their memory stays: no later one may look like one that was destroyed. */
struct CUgraph_st {
    struct CUgraph_st *next;
    struct graph_body *body;
};

struct CUgraphExec_st {
    struct CUgraphExec_st *next;
    struct graph_body *body;
    struct CUstream_st *last; /* where it was launched last; NULL: nowhere yet */
    uint64_t last_sequence;
    struct vector_clock last_clock;
};

/** All that ever were, under the lock. */
static struct CUgraph_st *graphs;
static struct CUgraphExec_st *executables;

cudaGraph_t graph_create(struct graph_body *body) {
    struct CUgraph_st *graph = calloc(1, sizeof *graph);
    if (!graph)
        abort();
    graph->body = body;
    graph->next = graphs;
    graphs = graph;
    emulation_handle_add(GRAPH, graph);
    return graph;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    emulation_note(EMULATION_HANDLE, "cudaGraphDestroy");
    if (!emulation_handle_remove(GRAPH, graph, "cudaGraphDestroy"))
        return give(cudaErrorInvalidValue);
    state_lock();
    graph_body_release(graph->body);
    state_unlock();
    return give(cudaSuccess);
}

/* --- executables --- */

static bool conflict(const struct emulation_range *a, const struct emulation_range *b) {
    const char *p = a->memory, *q = b->memory;
    return (a->written || b->written) && a->bytes && b->bytes && p < q + b->bytes && q < p + a->bytes;
}

static bool nodes_conflict(const struct node *a, const struct node *b) {
    for (int i = 0; i < a->range_count; i++)
        for (int j = 0; j < b->range_count; j++)
            if (conflict(&a->ranges[i], &b->ranges[j]))
                return true;
    return false;
}

/** Here nodes run one by one; on a GPU those that nothing orders run at once. */
static void check_order(const struct graph_body *body) {
    for (int late = 0; late < body->count; late++)
        for (int early = 0; early < late; early++)
            if (!node_set_has(&body->nodes[late].before, early) && nodes_conflict(&body->nodes[early], &body->nodes[late]))
                emulation_finding("%s and %s of one graph use the same bytes, and nothing orders the two",
                                  body->nodes[early].spec.name, body->nodes[late].spec.name);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags) {
    (void)flags;
    emulation_note(EMULATION_HANDLE, "cudaGraphInstantiate");
    if (!emulation_handle_check(GRAPH, graph, "cudaGraphInstantiate"))
        return give(cudaErrorInvalidValue);
    struct CUgraphExec_st *executable = calloc(1, sizeof *executable);
    if (!executable)
        return give(cudaErrorMemoryAllocation);
    struct state *state = state_lock();
    cudaError_t result = state->devices[graph->body->device].error;
    executable->next = executables;
    executables = executable;
    executable->body = graph->body;
    executable->body->references++;
    check_order(executable->body);
    state_unlock();
    emulation_handle_add(EXECUTABLE, executable);
    *out = executable;
    return give(result);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    emulation_note(EMULATION_HANDLE, "cudaGraphExecDestroy");
    if (!emulation_handle_remove(EXECUTABLE, executable, "cudaGraphExecDestroy"))
        return give(cudaErrorInvalidValue);
    state_lock();
    graph_body_release(executable->body);
    state_unlock();
    return give(cudaSuccess);
}

/** The stream to launch on, or NULL and a finding. */
static struct CUstream_st *stream_for(const struct CUgraphExec_st *executable, cudaStream_t stream, const char *who) {
    struct CUstream_st *found = stream_find(stream, who);
    if (!found || (found->device == executable->body->device && !found->capture))
        return found;
    if (found->capture)
        emulation_finding("%s: on a stream that is captured: graphs within graphs are not emulated", who);
    else
        emulation_finding("%s: a graph of device %d on a stream of device %d", who, executable->body->device, found->device);
    return NULL;
}

/** With the lock. Behind whatever the executable was launched for before. */
static cudaError_t queue_nodes(struct CUgraphExec_st *executable, struct CUstream_st *stream) {
    const struct graph_body *body = executable->body;
    cudaError_t result = state_held()->devices[stream->device].error;
    if (result == cudaSuccess && executable->last)
        stream_await(stream, executable->last, executable->last_sequence, &executable->last_clock);
    for (int i = 0; i < body->count && result == cudaSuccess; i++)
        result = stream_enqueue(stream, &body->nodes[i].spec, body->nodes[i].ranges, body->nodes[i].range_count);
    executable->last = stream;
    executable->last_sequence = stream->enqueued;
    executable->last_clock = stream->clock;
    return result;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    emulation_note(EMULATION_GRAPH, "cudaGraphLaunch");
    if (!emulation_handle_check(EXECUTABLE, executable, "cudaGraphLaunch"))
        return give(cudaErrorInvalidValue);
    state_lock();
    struct CUstream_st *found = stream_for(executable, stream, "cudaGraphLaunch");
    cudaError_t result = found ? queue_nodes(executable, found) : cudaErrorInvalidResourceHandle;
    state_unlock();
    return give(result);
}

/** There is nowhere to put it. */
cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t stream) {
    emulation_note(EMULATION_HANDLE, "cudaGraphUpload");
    if (!emulation_handle_check(EXECUTABLE, executable, "cudaGraphUpload"))
        return give(cudaErrorInvalidValue);
    struct state *state = state_lock();
    struct CUstream_st *found = stream_for(executable, stream, "cudaGraphUpload");
    cudaError_t result = found ? state->devices[found->device].error : cudaErrorInvalidResourceHandle;
    state_unlock();
    return give(result);
}
