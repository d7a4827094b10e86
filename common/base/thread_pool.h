#pragma once
#include "common/base/error.h"
#include <stddef.h>

/** Threads that run jobs from one bounded queue. Opaque. */
struct thread_pool;

struct thread_pool_spec {
    int threads;        /**< at least 1 */
    size_t queue_limit; /**< jobs that may wait; submit blocks past it */
    int nice;           /**< added to the threads' niceness: background work yields to compute teams */
    const char *name;   /**< shown in ps and gdb; at most 15 characters */
};

/** Returns owned, NULL on error. */
struct thread_pool *thread_pool_create(const struct thread_pool_spec *spec, struct error *err);
/** Finishes the jobs that wait, joins, frees. Takes NULL. */
void thread_pool_destroy(struct thread_pool *pool);
/** Runs job(context) on some thread, later. Waits where the queue is full. False: out of memory. */
bool thread_pool_submit(struct thread_pool *pool, void (*job)(void *context), void *context);
/** As submit, but returns false at once where the queue is full. */
bool thread_pool_try_submit(struct thread_pool *pool, void (*job)(void *context), void *context);
/** Waits until no job waits or runs. */
void thread_pool_wait(struct thread_pool *pool);
