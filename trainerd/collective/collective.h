#pragma once
#include "common/base/file.h"
#include "common/tensor/dtype.h"

/**
 * What the ranks of one training job do together: sum gradients, spread weights, exchange a few bytes.
 * Engines are files behind one const table: `solo` (one rank), `gloo` (CPUs, TCP), `nccl` (GPUs, in
 * libthorax-cuda.so).
 *
 * Order: every rank makes the same calls in the same order with the same sizes and types; compare
 * fingerprints (trainerd/rendezvous.h) before the first call. Reductions run in the order in which they were
 * started, whichever is waited for first, so results are bitwise equal on all ranks, and from run to run for
 * one world size. Threads: one thread calls all functions but collective_abort, which any may call. Failure
 * is final: once a call failed, every later one fails at once with the first error, and the peers soon fail
 * too. The way on is a new collective in a fresh process (a new generation). Only arguments that are refused
 * (ERROR_INVALID, ERROR_UNSUPPORTED, ERROR_BUSY) change nothing.
 */
struct event; /**< common/device/device.h; a cudaEvent_t where the device is CUDA */

/** How ranks find each other: keys and values that all ranks share, e.g. over the rendezvous. */
struct collective_store {
    void *context;
    /** Publishes a value under a key that nobody has set before. Borrows both. */
    bool (*set)(void *context, const char *key, const void *data, size_t size, struct error *err);
    /** Waits until some rank has set the key; out is owned by the caller. ERROR_TIMEOUT past the monotonic
     * deadline. */
    bool (*get)(void *context, const char *key, int64_t deadline_ms, struct bytes *out, struct error *err);
};

struct collective_spec {
    const char *name;                     /**< "solo", "gloo" or "nccl" */
    int rank, world_size;                 /**< 0 <= rank < world_size */
    const struct collective_store *store; /**< used during open only; NULL for solo */
    int64_t timeout_ms;                   /**< for opening, and for each operation; > 0 */
    const char *address; /**< gloo: the local address to bind, a name or number; NULL: loopback, for nccl too where
                            NCCL_SOCKET_IFNAME says nothing else. Nothing is encrypted */
    int device_index;    /**< nccl: the GPU whose memory the buffers are in */
    /** Called now and then while a call waits for other ranks, on the caller's thread, to say that this rank lives; returns
     * soon. Or NULL. */
    void (*waiting)(void *context);
    void *context;
};

/** What is to be summed, in place. */
struct collective_piece {
    void *buffer; /**< in the memory of the engine's device: host memory for solo and gloo */
    enum dtype dtype;
    int64_t count;
    struct event *ready; /**< when the buffer will be complete; NULL: it is, as always on CPUs */
};

/** What the sums since opening took. */
struct collective_times {
    int64_t busy_ns;   /**< sums were under way on this rank, waits for other ranks among it */
    int64_t waited_ns; /**< of collective_wait for sums: what nothing hides */
    int64_t sums;      /**< that were done */
    int64_t bytes;     /**< of their buffers */
};

/** Base of every engine's object. */
struct collective {
    const struct collective_ops *ops;
    int rank, world_size;
};

/** All slots are called through the wrappers below, which check the arguments. */
struct collective_ops {
    const char *name;
    /** Meets the other ranks; blocks up to timeout_ms. Called once per generation, before any other slot.
     * Returns owned. */
    struct collective *(*open)(const struct collective_spec *spec, struct error *err);
    /**
     * Called last, once; no abort may be running. Says goodbye to the peers first (bounded by the time-out),
     * so that none takes a clean end for a death, unless something failed, was aborted, or is not waited for.
     */
    void (*close)(struct collective *collective);
    /** Called often, while compute goes on; queues and returns. */
    bool (*start)(struct collective *collective, const struct collective_piece *piece, int *ticket,
                  struct error *err);
    /** Called once per ticket. */
    bool (*wait)(struct collective *collective, int ticket, int64_t deadline_ms, struct error *err);
    /** Optional (NULL on CPUs). */
    struct event *(*done_event)(struct collective *collective, int ticket);
    /** Blocking; behind all that was started before. */
    bool (*broadcast)(struct collective *collective, void *buffer, size_t size, int root, struct error *err);
    bool (*allgather)(struct collective *collective, const void *mine, size_t size, void *all,
                      struct error *err);
    bool (*barrier)(struct collective *collective, struct error *err);
    /** Any thread, any time between open and close, any number of times; does not block. */
    void (*abort)(struct collective *collective);
    /** Optional: version and devices, gathered by open. Borrowed until close. */
    const char *(*describe)(const struct collective *collective);
    /** Optional: for engines whose host sees when a sum begins and ends. */
    void (*times)(struct collective *collective, struct collective_times *out);
};

/** Opens the engine of that name. NULL: ERROR_NOT_FOUND lists the names; ERROR_TIMEOUT and ERROR_PEER say who
 * is missing. */
struct collective *collective_open(const struct collective_spec *spec, struct error *err);

/** Takes NULL. Every ticket has been waited for, or collective_abort was called. */
void collective_close(struct collective *collective);

/**
 * Starts summing a piece over all ranks, in place; copies the description. The buffer belongs to the
 * collective until the wait for this ticket returns. On a GPU the reduction runs on a stream of its own and
 * begins when `ready` is reached. f32, f64, s32, s64 and bf16 (nccl also f16); sums of 16 bits are rounded to them on
 * their way. Up to COLLECTIVE_TICKETS may be under way, else ERROR_BUSY.
 */
bool collective_start(struct collective *collective, const struct collective_piece *piece, int *ticket,
                      struct error *err);
enum { COLLECTIVE_TICKETS = 512 };

/**
 * Waits until the reduction is done and the buffer is the caller's again, also where it failed. deadline_ms
 * is monotonic (common/base/clock.h); negative: only the engine's own time-out. ERROR_TIMEOUT, ERROR_PEER
 * (names the rank where it is known, which may be a rank that only gave up because of a third one: the
 * supervisor knows who died first).
 */
bool collective_wait(struct collective *collective, int ticket, int64_t deadline_ms, struct error *err);

/**
 * The event that is reached when the ticket's reduction is done, and with it all that were started before, so that
 * a device's stream can go on without the host (valid until COLLECTIVE_TICKETS more were started). The ticket is
 * still to be waited for: only that notices a peer's death, while the stream waits without end. NULL on CPUs: just
 * wait.
 */
struct event *collective_done_event(struct collective *collective, int ticket);

/** Copies size bytes of root's buffer into everyone's (memory as for collective_start). */
bool collective_broadcast(struct collective *collective, void *buffer, size_t size, int root,
                          struct error *err);

/** Gathers `size` bytes of host memory (at most 1 MiB) from each rank into all (world_size * size bytes, in
 * rank order). */
bool collective_allgather(struct collective *collective, const void *mine, size_t size, void *all,
                          struct error *err);
enum { COLLECTIVE_ALLGATHER_MAX = 1 << 20 };

/** Returns once every rank has called it. */
bool collective_barrier(struct collective *collective, struct error *err);

/** What there is to know of the ranks' machinery, for one line of a log: engine, version, devices; "" for nothing.
 * Borrowed until close. */
const char *collective_describe(const struct collective *collective);

/**
 * What the sums since opening took on this rank; false, and zeroes, where the engine does not know (solo, and nccl, whose sums
 * are a stream's work). The caller makes differences of two moments. 1 - waited / busy is the share of communication that compute
 * hid; on a core that both share a hidden sum still takes its cycles from compute.
 */
bool collective_read_times(struct collective *collective, struct collective_times *out);

/** Makes all calls under way, here and soon on the peers, fail. Takes NULL. */
void collective_abort(struct collective *collective);

extern const struct collective_ops collective_solo; /**< solo.c */
extern const struct collective_ops collective_gloo; /**< gloo.c */
extern const struct collective_ops collective_nccl; /**< nccl.c, inside libthorax-cuda.so */
