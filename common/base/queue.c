#include "common/base/queue.h"

#include "common/base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct queue {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t not_empty, not_full;
    size_t capacity, head, length;
    bool closed;
    void *items[];
};

static void cond_init_monotonic(pthread_cond_t *cond) {
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

struct queue *queue_create(size_t capacity) {
    struct queue *queue = calloc(1, sizeof *queue + capacity * sizeof queue->items[0]);
    if (!queue)
        return NULL;
    pthread_mutex_init(&queue->lock, NULL);
    cond_init_monotonic(&queue->not_empty);
    cond_init_monotonic(&queue->not_full);
    queue->capacity = capacity;
    return queue;
}

void queue_destroy(struct queue *queue) {
    if (!queue)
        return;
    pthread_cond_destroy(&queue->not_full);
    pthread_cond_destroy(&queue->not_empty);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}

/** Waits on cond until the monotonic deadline (0: for ever). False once it has passed. */
static bool wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline_ns) {
    if (!deadline_ns)
        return pthread_cond_wait(cond, lock) == 0;
    struct timespec time = {.tv_sec = deadline_ns / 1000000000, .tv_nsec = deadline_ns % 1000000000};
    return pthread_cond_timedwait(cond, lock, &time) != ETIMEDOUT;
}

static int64_t deadline_of(int64_t timeout_ms) {
    return timeout_ms < 0 ? 0 : clock_now_ns() + timeout_ms * 1000000;
}

bool queue_push(struct queue *queue, void *item, int64_t timeout_ms) {
    int64_t deadline_ns = deadline_of(timeout_ms);
    pthread_mutex_lock(&queue->lock);
    while (queue->length == queue->capacity && !queue->closed) {
        if (!wait_until(&queue->not_full, &queue->lock, deadline_ns))
            break;
    }
    bool pushed = !queue->closed && queue->length < queue->capacity;
    if (pushed) {
        queue->items[(queue->head + queue->length++) % queue->capacity] = item;
        pthread_cond_signal(&queue->not_empty);
    }
    pthread_mutex_unlock(&queue->lock);
    return pushed;
}

void *queue_pop(struct queue *queue, int64_t timeout_ms) {
    int64_t deadline_ns = deadline_of(timeout_ms);
    pthread_mutex_lock(&queue->lock);
    while (queue->length == 0 && !queue->closed) {
        if (!wait_until(&queue->not_empty, &queue->lock, deadline_ns))
            break;
    }
    void *item = NULL;
    if (queue->length > 0) {
        item = queue->items[queue->head];
        queue->head = (queue->head + 1) % queue->capacity;
        queue->length--;
        pthread_cond_signal(&queue->not_full);
    }
    pthread_mutex_unlock(&queue->lock);
    return item;
}

void queue_close(struct queue *queue) {
    pthread_mutex_lock(&queue->lock);
    queue->closed = true;
    pthread_cond_broadcast(&queue->not_empty);
    pthread_cond_broadcast(&queue->not_full);
    pthread_mutex_unlock(&queue->lock);
}

size_t queue_length(struct queue *queue) {
    pthread_mutex_lock(&queue->lock);
    size_t length = queue->length;
    pthread_mutex_unlock(&queue->lock);
    return length;
}
