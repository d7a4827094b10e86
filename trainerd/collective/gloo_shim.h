#pragma once
#include "trainerd/collective/collective.h"

/**
 * Gloo (C++) behind a C interface: each call blocks, converts every exception to an error, and ends by itself
 * when the time-out passes without progress. After a failure all connections are closed and every further
 * call fails. Threads: one at a time, but for gloo_shim_abort, which any may call while another is inside a
 * call.
 */
struct gloo_shim;

/** Connects every rank with every other through the store, within spec->timeout_ms. Returns owned. */
struct gloo_shim *gloo_shim_create(const struct collective_spec *spec, struct error *err);
/** Takes NULL. Closes the connections at once. */
void gloo_shim_destroy(struct gloo_shim *shim);

/** Whether gloo_shim_allreduce can sum this type. */
bool gloo_shim_supports(enum dtype dtype);
/** Sum in place, ring algorithm: the order of additions depends on count and world size only. */
bool gloo_shim_allreduce(struct gloo_shim *shim, void *buffer, enum dtype dtype, size_t count,
                         int64_t timeout_ms, struct error *err);
bool gloo_shim_broadcast(struct gloo_shim *shim, void *buffer, size_t size, int root, int64_t timeout_ms,
                         struct error *err);
bool gloo_shim_allgather(struct gloo_shim *shim, const void *mine, size_t size, void *all, int64_t timeout_ms,
                         struct error *err);
bool gloo_shim_barrier(struct gloo_shim *shim, int64_t timeout_ms, struct error *err);

/** Closes all connections: the call under way fails at once, and so do the peers' calls. Any thread. */
void gloo_shim_abort(struct gloo_shim *shim);
