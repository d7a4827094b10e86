#pragma once
#include "tests/emulation/emulation.h"

#include <pthread.h>

/**
 * What the emulated runtime knows, in one place and under one lock. Functions here want the lock held (state_lock) unless
 * they say otherwise. Streams and events are never given back to the C library: a handle that was destroyed is told from one
 * that never was.
 */

enum { MOST_STREAMS = 256, MOST_DEVICES = 16, NO_DEVICE = -1, ALLOCATION_ALIGNMENT = 256, POISON = 0xFF };

/** A vector clock: of each stream's slot, how many of its pieces of work come before. */
struct vector_clock {
    uint64_t tick[MOST_STREAMS];
};

/** Makes `into` come after `other` too. */
void clock_join(struct vector_clock *into, const struct vector_clock *other);

/* --- memory --- */

/** One use of bytes of an allocation that a later use may have to come after. */
struct access {
    size_t offset, bytes;
    bool written;
    int slot; /**< of the stream that did it */
    uint64_t tick;
    const char *name;
};

enum memory_kind { MEMORY_DEVICE, MEMORY_HOST };

struct allocation {
    struct allocation *next;
    char *memory;
    size_t bytes;
    enum memory_kind kind;
    int device; /**< of page-locked memory: the one that was current */
    void *mapping;
    size_t mapping_bytes; /**< with the guard pages; 0: the memory is not ours (cudaHostRegister) */
    struct access *accesses;
    int access_count, access_capacity;
};

/** Maps memory full of POISON between two guard pages. NULL: the system has none left. */
struct allocation *memory_create(size_t bytes, enum memory_kind kind, int device);
/** Enters memory that is not ours. */
struct allocation *memory_register(void *memory, size_t bytes, int device);
/** Forgets the allocation; its pages fault from now on, and its addresses are not handed out again for a while. */
void memory_destroy(struct allocation *allocation);
/** The live allocation that this byte lies in, or NULL. */
struct allocation *memory_find(const void *memory);
/** The live allocation of these bytes that work on the device may use; else NULL and a finding. */
struct allocation *memory_use(int device, const char *who, const struct emulation_range *range);
/** Bytes of device memory that are allocated. */
size_t memory_used(int device);
/** Whether work that is still queued or running uses these bytes, or (only_writes) writes them. */
bool memory_is_busy(const void *memory, size_t bytes, bool only_writes);
/** Reports what was never freed. Without the lock. */
void memory_report_leaks(void);

/** Compares a use with those before it, in the order that `now` tells of, reports what is not ordered, and keeps it. */
void race_check(struct allocation *allocation, const struct access *access, const struct vector_clock *now);

/* --- streams --- */

struct work {
    struct work *next;
    const char *name;
    uint64_t sequence;
    void (*run)(void *argument); /**< NULL: waits for another stream */
    bool reads_pageable;
    struct CUstream_st *awaited;
    uint64_t awaited_sequence;
    struct CUevent_st *event; /**< to be marked as reached, or NULL */
    _Alignas(16) char argument[];
};

/** Nodes of a graph, by their numbers. */
struct node_set {
    uint64_t *words;
    int count; /**< of words */
};

struct CUstream_st {
    struct CUstream_st *next;
    int device, slot, priority;
    unsigned flags;
    bool legacy; /**< the device's default stream, which the others wait for unless they are non-blocking */
    bool destroyed;
    struct vector_clock clock; /**< of the newest piece of work */
    uint64_t enqueued, completed;
    int pageable_reads; /**< queued copies whose source the host may not touch, and cannot be followed */
    struct work *first, *last;
    pthread_cond_t wake;
    struct capture *capture; /**< that work goes to instead of being done, or NULL */
    struct node_set before;  /**< in it: what comes before whatever is queued next */
};

struct CUevent_st {
    struct CUevent_st *next;
    int device;
    unsigned flags;
    bool recorded, destroyed;
    struct CUstream_st *stream;
    uint64_t sequence; /**< in that stream, of the newest record */
    struct vector_clock clock;
    double reached_ms;
    uint64_t captured;      /**< the number of the capture that it was recorded in last; 0: in none */
    struct node_set before; /**< in that capture: what it stands for */
};

/** The stream that is meant: NULL and cudaStreamLegacy are the current device's default one. NULL and a finding: no such
 * stream. */
struct CUstream_st *stream_find(cudaStream_t stream, const char *who);
struct CUevent_st *event_find(cudaEvent_t event, const char *who);

/** What is queued, beside its ranges. */
struct work_spec {
    const char *name;
    void (*run)(void *argument);
    /** Called with the stream's own copy of the argument each time that it is queued: once, or at each launch of a graph that
     * it is in. NULL: nothing is to be done then. */
    void (*prepare)(struct CUstream_st *stream, void *argument);
    const void *argument;
    size_t argument_bytes;
    struct CUevent_st *event;
    bool reads_pageable;
};

/** Checks the ranges and queues the work. The device's sticky error, or cudaErrorIllegalAddress where a range is wrong. */
cudaError_t stream_enqueue(struct CUstream_st *stream, const struct work_spec *spec, const struct emulation_range *ranges,
                           int count);
/** Work queued on the stream from now on comes after that piece of work of the other one. */
void stream_await(struct CUstream_st *stream, struct CUstream_st *other, uint64_t sequence, const struct vector_clock *clock);
/** The host waits, the lock let go meanwhile, until that piece of work is done. */
void stream_settle(struct CUstream_st *stream, uint64_t sequence);
/** The host waits for all work of a device. Nothing becomes ordered for it: only documented waits do that. */
void streams_settle(int device);
/** All that the stream was given comes before whatever the host does from now on. */
void host_joins(const struct vector_clock *clock);

/* --- capture: capture.c makes bodies of graphs, graph.c runs them --- */

struct node {
    struct work_spec spec; /**< its argument is the node's own */
    struct emulation_range *ranges;
    int range_count;
    struct node_set before;
};

/** What a graph and the executables that were made from it share. */
struct graph_body {
    int references, device;
    struct node *nodes;
    int count, capacity;
};

struct capture {
    struct capture *next;
    uint64_t number;
    struct CUstream_st *origin;
    enum cudaStreamCaptureMode mode;
    const void *thread; /**< that began it */
    cudaError_t broken; /**< why it cannot become a graph any more */
    struct graph_body *body;
};

bool node_set_has(const struct node_set *set, int node);
void graph_body_release(struct graph_body *body);
/** A handle of the program's for it. Takes the body. */
cudaGraph_t graph_create(struct graph_body *body);
/** Instead of queueing: the work becomes a node behind those that the stream has come to. */
cudaError_t capture_add(struct CUstream_st *stream, const struct work_spec *spec, const struct emulation_range *ranges,
                        int count);
/** The same for recording an event, and for waiting for one where the stream, or the event, is part of a capture. */
cudaError_t capture_record(struct CUstream_st *stream, struct CUevent_st *event);
cudaError_t capture_wait(struct CUstream_st *stream, struct CUevent_st *event);
/** cudaSuccess, or a finding and an error, where a capture keeps this thread from such a call; breaks the capture. */
cudaError_t capture_forbids(const char *who);
/** The same for looking at a stream or an event that is part of a capture, and for what would order the legacy stream behind
 * one. */
cudaError_t capture_forbids_stream(struct CUstream_st *stream, const char *who);
cudaError_t capture_forbids_event(const struct CUevent_st *event, const char *who);
cudaError_t capture_forbids_legacy(const struct CUstream_st *stream, const char *who);

/* --- devices and the whole --- */

struct emulated_device {
    cudaError_t error; /**< sticky */
    struct CUstream_st *default_stream;
};

struct state {
    pthread_mutex_t lock;
    pthread_cond_t progress; /**< some piece of work is done */
    int device_count;
    struct emulated_device devices[MOST_DEVICES];
    struct vector_clock host;
    struct CUstream_st *streams, *slots[MOST_STREAMS];
    struct CUevent_st *events;
    struct capture *captures;
    uint64_t captures_begun;
    struct allocation *allocations;
    int64_t failures[EMULATION_FAILURE_COUNT]; /**< calls until one fails; 0: never */
    size_t memory_bytes;                       /**< of each device */
    unsigned delay_us;                         /**< longest random delay */
};

/** Takes the lock and returns the state, made at the first call from the environment. */
struct state *state_lock(void);
void state_unlock(void);
/** The same for who holds the lock already. */
struct state *state_held(void);
/** Counts down to an ordered failure: true where this call is the one. */
bool failure_is_due(enum emulation_failure failure);

/** The calling thread's device. */
int device_current(void);
/** Keeps what a call returns for cudaGetLastError, and returns it. Any thread, with or without the lock. */
cudaError_t give(cudaError_t result);

/** Log and handles at the exit of the process. Without the lock. */
void calls_print(void);
void handles_report_leaks(void);
