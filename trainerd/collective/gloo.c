#include "trainerd/collective/gloo_shim.h"

#include "common/base/clock.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/**
 * Gloo's calls block, so one thread of ours makes them all, in the order in which they were asked for, while
 * the compute threads go on. There is no copy: Gloo works on the caller's buffers.
 */
enum kind { KIND_ALLREDUCE, KIND_BROADCAST, KIND_ALLGATHER, KIND_BARRIER };

struct request {
    enum kind kind;
    void *buffer;     /* all-gather: the output */
    const void *mine; /* all-gather: the input */
    size_t count;     /* elements of dtype, else bytes */
    enum dtype dtype;
    int root;
    int64_t timeout_ms;
};

/** How often a rank that waits for others says that it lives. */
enum { SAY_MS = 500 };

struct gloo {
    struct collective base;
    struct gloo_shim *shim;
    int64_t timeout_ms;
    pthread_t thread;
    pthread_mutex_t lock;    /* guards all below; a leaf lock, never held during a call to the shim */
    pthread_cond_t asked;    /* a request came, or the end */
    pthread_cond_t answered; /* a request is done, or all have failed */
    struct request ring[COLLECTIVE_TICKETS];
    uint32_t submitted, completed; /* how many so far, modulo 2^32; a ticket is its request's number */
    bool running;                  /* the thread is inside a call, on the buffers of request `completed` */
    bool stopping, failed;
    struct error failure; /* the first one */
    void (*waiting)(void *context); /* of the specification */
    void *context;
    struct collective_times times;
};

/** Records the first failure and wakes everyone. With the lock held. */
static void fail_locked(struct gloo *gloo, const struct error *cause) {
    if (!gloo->failed) {
        gloo->failed = true;
        gloo->failure = *cause;
    }
    pthread_cond_broadcast(&gloo->asked);
    pthread_cond_broadcast(&gloo->answered);
}

static bool call(struct gloo *gloo, const struct request *request, struct error *err) {
    int64_t timeout_ms = request->timeout_ms;
    switch (request->kind) {
    case KIND_ALLREDUCE:
        return gloo_shim_allreduce(gloo->shim, request->buffer, request->dtype, request->count, timeout_ms,
                                   err);
    case KIND_BROADCAST:
        return gloo_shim_broadcast(gloo->shim, request->buffer, request->count, request->root, timeout_ms,
                                   err);
    case KIND_ALLGATHER:
        return gloo_shim_allgather(gloo->shim, request->mine, request->count, request->buffer, timeout_ms,
                                   err);
    case KIND_BARRIER:
        return gloo_shim_barrier(gloo->shim, timeout_ms, err);
    }
    return error_set(err, ERROR_INTERNAL, "gloo: an unknown request");
}

/** What failed was of some size: that tells which of a step's calls it was. */
static bool run(struct gloo *gloo, const struct request *request, struct error *err) {
    static const char *const names[] = {[KIND_ALLREDUCE] = "all-reduce", [KIND_BROADCAST] = "broadcast",
                                        [KIND_ALLGATHER] = "all-gather", [KIND_BARRIER] = "barrier"};
    const char *unit = request->kind == KIND_ALLREDUCE ? dtype_name(request->dtype) : "bytes";
    return call(gloo, request, err) || error_prefix(err, "%s of %zu %s", names[request->kind], request->count, unit);
}

/** Waits for a request and marks it as running. False: the end. With the lock held. */
static bool next_locked(struct gloo *gloo, struct request *out) {
    while (!gloo->stopping && !gloo->failed && gloo->submitted == gloo->completed)
        pthread_cond_wait(&gloo->asked, &gloo->lock);
    if (gloo->stopping || gloo->failed)
        return false;
    *out = gloo->ring[gloo->completed % COLLECTIVE_TICKETS];
    gloo->running = true;
    return true;
}

/** With the lock held. */
static void count_locked(struct gloo *gloo, const struct request *request, int64_t took_ns) {
    if (request->kind != KIND_ALLREDUCE)
        return;
    gloo->times.busy_ns += took_ns;
    gloo->times.sums++;
    gloo->times.bytes += (int64_t)(request->count * dtype_size(request->dtype));
}

static void *communicate(void *context) {
    struct gloo *gloo = context;
    struct request request;
    pthread_setname_np(pthread_self(), "gloo");
    pthread_mutex_lock(&gloo->lock);
    while (next_locked(gloo, &request)) {
        struct error err = {0};
        pthread_mutex_unlock(&gloo->lock);
        int64_t begin_ns = clock_now_ns();
        bool ok = run(gloo, &request, &err);
        int64_t took_ns = clock_now_ns() - begin_ns;
        pthread_mutex_lock(&gloo->lock);
        gloo->running = false;
        if (ok) {
            gloo->completed++;
            count_locked(gloo, &request, took_ns);
        } else {
            fail_locked(gloo, &err);
        }
        pthread_cond_broadcast(&gloo->answered);
    }
    pthread_mutex_unlock(&gloo->lock);
    return NULL;
}

static bool submit(struct gloo *gloo, const struct request *request, int *ticket, struct error *err) {
    bool ok = true;
    pthread_mutex_lock(&gloo->lock);
    if (gloo->failed) {
        ok = false;
        if (err)
            *err = gloo->failure;
    } else if (gloo->submitted - gloo->completed >= COLLECTIVE_TICKETS) {
        ok = error_set(err, ERROR_BUSY, "gloo: %d operations are under way already", COLLECTIVE_TICKETS);
    } else {
        gloo->ring[gloo->submitted % COLLECTIVE_TICKETS] = *request;
        gloo->submitted++;
        *ticket = (int)gloo->submitted;
        pthread_cond_signal(&gloo->asked);
    }
    pthread_mutex_unlock(&gloo->lock);
    return ok;
}

static bool gloo_start(struct collective *collective, const struct collective_piece *piece, int *ticket,
                       struct error *err) {
    struct gloo *gloo = (struct gloo *)collective;
    if (piece->ready)
        return error_set(err, ERROR_UNSUPPORTED, "gloo reduces host memory: there is no event to wait for");
    if (!gloo_shim_supports(piece->dtype))
        return error_set(err, ERROR_UNSUPPORTED, "gloo cannot sum %s", dtype_name(piece->dtype));
    struct request request = {.kind = KIND_ALLREDUCE,
                              .buffer = piece->buffer,
                              .dtype = piece->dtype,
                              .count = (size_t)piece->count,
                              .timeout_ms = gloo->timeout_ms};
    return submit(gloo, &request, ticket, err);
}

/** Serial-number arithmetic: numbers may wrap around. */
static bool done_locked(const struct gloo *gloo, int ticket) {
    return (int32_t)((uint32_t)ticket - gloo->completed) <= 0;
}

/** Says that this rank lives, while it waits for others. The lock is not held meanwhile. */
static void say_waiting_locked(struct gloo *gloo) {
    if (!gloo->waiting)
        return;
    pthread_mutex_unlock(&gloo->lock);
    gloo->waiting(gloo->context);
    pthread_mutex_lock(&gloo->lock);
}

/** Waits until the ticket is done, everything failed, or the time is over. False: time is over. With the lock
 * held. */
static bool wait_locked(struct gloo *gloo, int ticket, int64_t deadline_ms) {
    while (!done_locked(gloo, ticket) && !gloo->failed && (deadline_ms < 0 || clock_left_ms(deadline_ms) > 0)) {
        int64_t now_ms = clock_now_ms(), until_ms = now_ms + SAY_MS;
        if (deadline_ms >= 0 && deadline_ms < until_ms)
            until_ms = deadline_ms;
        struct timespec until = {until_ms / 1000, until_ms % 1000 * 1000000};
        if (pthread_cond_timedwait(&gloo->answered, &gloo->lock, &until) != 0)
            say_waiting_locked(gloo);
    }
    return done_locked(gloo, ticket) || gloo->failed;
}

/** For whatever was submitted. With the lock held. */
static bool await_locked(struct gloo *gloo, int ticket, int64_t deadline_ms, struct error *err) {
    if (!wait_locked(gloo, ticket, deadline_ms)) {
        struct error late;
        error_set(&late, ERROR_TIMEOUT, "rank %d: a reduction was not done by its deadline", gloo->base.rank);
        fail_locked(gloo, &late);
    }
    bool ok = done_locked(gloo, ticket);
    if (!ok && gloo->running) {
        /* The buffer is the caller's again only when Gloo has let go of it. */
        pthread_mutex_unlock(&gloo->lock);
        gloo_shim_abort(gloo->shim);
        pthread_mutex_lock(&gloo->lock);
        while (gloo->running)
            pthread_cond_wait(&gloo->answered, &gloo->lock);
    }
    if (!ok && err)
        *err = gloo->failure;
    return ok;
}

static bool gloo_wait(struct collective *collective, int ticket, int64_t deadline_ms, struct error *err) {
    struct gloo *gloo = (struct gloo *)collective;
    int64_t begin_ns = clock_now_ns();
    pthread_mutex_lock(&gloo->lock);
    bool ok = await_locked(gloo, ticket, deadline_ms, err);
    gloo->times.waited_ns += clock_now_ns() - begin_ns;
    pthread_mutex_unlock(&gloo->lock);
    return ok;
}

static bool await(struct gloo *gloo, int ticket, int64_t deadline_ms, struct error *err) {
    pthread_mutex_lock(&gloo->lock);
    bool ok = await_locked(gloo, ticket, deadline_ms, err);
    pthread_mutex_unlock(&gloo->lock);
    return ok;
}

static bool run_now(struct gloo *gloo, struct request *request, struct error *err) {
    int ticket;
    request->timeout_ms = gloo->timeout_ms;
    return submit(gloo, request, &ticket, err) && await(gloo, ticket, -1, err);
}

static bool gloo_broadcast(struct collective *collective, void *buffer, size_t size, int root,
                           struct error *err) {
    struct request request = {.kind = KIND_BROADCAST, .buffer = buffer, .count = size, .root = root};
    return run_now((struct gloo *)collective, &request, err);
}

static bool gloo_allgather(struct collective *collective, const void *mine, size_t size, void *all,
                           struct error *err) {
    struct request request = {.kind = KIND_ALLGATHER, .buffer = all, .mine = mine, .count = size};
    return run_now((struct gloo *)collective, &request, err);
}

static bool gloo_barrier(struct collective *collective, struct error *err) {
    struct request request = {.kind = KIND_BARRIER};
    return run_now((struct gloo *)collective, &request, err);
}

static void gloo_times(struct collective *collective, struct collective_times *out) {
    struct gloo *gloo = (struct gloo *)collective;
    pthread_mutex_lock(&gloo->lock);
    *out = gloo->times;
    pthread_mutex_unlock(&gloo->lock);
}

static void gloo_abort(struct collective *collective) {
    struct gloo *gloo = (struct gloo *)collective;
    struct error cause;
    error_set(&cause, ERROR_STATE, "rank %d: the collective was aborted", gloo->base.rank);
    pthread_mutex_lock(&gloo->lock);
    fail_locked(gloo, &cause);
    pthread_mutex_unlock(&gloo->lock);
    gloo_shim_abort(gloo->shim);
}

/**
 * A peer that is still inside its last operation would take our closed connection for a death. Once all have
 * met here, nobody is; should this last meeting fail, no result is lost.
 */
static void say_goodbye(struct gloo *gloo) {
    enum { GOODBYE_MS = 5000 };
    struct request request = {.kind = KIND_BARRIER};
    int ticket;
    request.timeout_ms = gloo->timeout_ms < GOODBYE_MS ? gloo->timeout_ms : GOODBYE_MS;
    if (submit(gloo, &request, &ticket, NULL))
        await(gloo, ticket, clock_now_ms() + request.timeout_ms, NULL);
}

static void gloo_close(struct collective *collective) {
    struct gloo *gloo = (struct gloo *)collective;
    pthread_mutex_lock(&gloo->lock);
    bool idle = !gloo->failed && gloo->submitted == gloo->completed;
    pthread_mutex_unlock(&gloo->lock);
    if (idle)
        say_goodbye(gloo);
    else
        gloo_abort(collective);
    pthread_mutex_lock(&gloo->lock);
    gloo->stopping = true;
    pthread_cond_broadcast(&gloo->asked);
    pthread_mutex_unlock(&gloo->lock);
    pthread_join(gloo->thread, NULL);
    gloo_shim_destroy(gloo->shim);
    pthread_cond_destroy(&gloo->answered);
    pthread_cond_destroy(&gloo->asked);
    pthread_mutex_destroy(&gloo->lock);
    free(gloo);
}

/** The thread takes no signals: they are for the one that polls. */
static bool start_thread(struct gloo *gloo, struct error *err) {
    sigset_t all, saved;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved);
    int failed = pthread_create(&gloo->thread, NULL, communicate, gloo);
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
    return !failed || error_set(err, ERROR_MEMORY, "gloo: cannot start a thread: %s", strerror(failed));
}

static struct collective *gloo_open(const struct collective_spec *spec, struct error *err) {
    if (!spec->store) {
        error_set(err, ERROR_INVALID, "gloo needs a store to meet the other ranks");
        return NULL;
    }
    struct gloo *gloo = calloc(1, sizeof *gloo);
    struct gloo_shim *shim = gloo ? gloo_shim_create(spec, err) : NULL;
    if (!shim) {
        if (!gloo)
            error_set(err, ERROR_MEMORY, "gloo: out of memory");
        free(gloo);
        return NULL;
    }
    gloo->base.rank = spec->rank;
    gloo->shim = shim;
    gloo->timeout_ms = spec->timeout_ms;
    gloo->waiting = spec->waiting;
    gloo->context = spec->context;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&gloo->lock, NULL);
    pthread_cond_init(&gloo->asked, &monotonic);
    pthread_cond_init(&gloo->answered, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (start_thread(gloo, err))
        return &gloo->base;
    gloo_shim_destroy(shim);
    free(gloo);
    return NULL;
}

const struct collective_ops collective_gloo = {
    .name = "gloo",
    .open = gloo_open,
    .close = gloo_close,
    .start = gloo_start,
    .wait = gloo_wait,
    .broadcast = gloo_broadcast,
    .allgather = gloo_allgather,
    .barrier = gloo_barrier,
    .abort = gloo_abort,
    .times = gloo_times,
};
