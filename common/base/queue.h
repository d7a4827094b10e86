#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * A bounded first-in-first-out queue of pointers between threads. The queue does not own what the pointers point to.
 * Any number of pushing and popping threads. Opaque; its mutex is a leaf lock.
 */
struct queue;

/** An owned queue of that capacity (> 0); NULL where memory ends. */
struct queue *queue_create(size_t capacity);
/** Takes NULL. Nobody may be waiting; items left inside are the caller's to have drained. */
void queue_destroy(struct queue *queue);
/** Waits for room, up to timeout_ms (negative: for ever). False: time out, or closed. */
bool queue_push(struct queue *queue, void *item, int64_t timeout_ms);
/** Waits for an item, up to timeout_ms (negative: for ever). NULL: time out, or closed and empty. */
void *queue_pop(struct queue *queue, int64_t timeout_ms);
/** Wakes all who wait: pushes fail from now on, pops drain what is left. */
void queue_close(struct queue *queue);
size_t queue_length(struct queue *queue);
