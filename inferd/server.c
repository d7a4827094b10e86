#include "inferd/server.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/wire/message.h"
#include "inferd/handlers/handler.h"
#include "inferd/intake.h"
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    BURST = 64, /* messages read before answers are sent again */
    PEER_RECEIVE_LIMIT =
        64, /* messages of one peer that ZeroMQ may hold: they are not bounded by admission yet */
    CLOSE_LINGER_MS = 2000,
    DRAIN_QUIET_MS = 100, /* nothing came for so long: all that was on its way is here */
    DRAIN_REFUSE_MS = 2000, /* but those who ask without pause do not keep it alive */
};

struct server {
    struct service service;
    struct wire_context *context;
    struct wire_socket *router;
    int64_t max_message_bytes;
    int finished_event; /* the pipeline's threads write, our thread polls */
    uint64_t received; /* messages since the start */
    _Atomic int64_t turned_ms; /* when our thread last began a step; 0: never */
};

static void notify(void *context) {
    struct server *server = context;
    uint64_t one = 1;
    /* Fails only where the counter would overflow, and then the event is readable anyway. */
    ssize_t written = write(server->finished_event, &one, sizeof one);
    (void)written;
}

static bool open_socket(struct server *server, const struct server_spec *spec, struct error *err) {
    struct wire_socket_spec socket = {
        .kind = WIRE_ROUTER,
        .bind = spec->bind,
        .receive_limit = PEER_RECEIVE_LIMIT,
        .max_frame_bytes = 2 * spec->max_message_bytes,
        .linger_ms = CLOSE_LINGER_MS,
        .router_mandatory = true,
        .security = spec->security,
        .roles = WIRE_CLIENT | WIRE_ADMIN,
        .insecure = spec->insecure,
    };
    server->context = wire_context_create(1, err);
    return server->context && (server->router = wire_socket_open(server->context, &socket, err)) != NULL;
}

static bool start_pipeline(struct server *server, const struct server_spec *spec, struct error *err) {
    server->finished_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (server->finished_event < 0) {
        return error_set_errno(err, "eventfd");
    }
    struct pipeline_spec pipeline = {
        .decode_threads = spec->decode_threads,
        .max_jobs = spec->max_jobs,
        .max_bytes = spec->max_job_bytes,
        .max_batch = spec->max_batch,
        .max_delay_us = spec->max_delay_us,
        .instances = spec->instances,
        .limits = spec->limits,
        .counters = &server->service.counters,
        .notify = notify,
        .context = server,
    };
    server->service.pipeline = pipeline_create(&pipeline, err);
    return server->service.pipeline != NULL;
}

struct server *server_create(const struct server_spec *spec, struct error *err) {
    struct server *server = calloc(1, sizeof *server);
    if (!server) {
        error_set(err, ERROR_MEMORY, "no memory for the server");
        return NULL;
    }
    server->finished_event = -1;
    server->max_message_bytes = spec->max_message_bytes;
    server->service = (struct service){
        .member = spec->member,
        .version = spec->version,
        .default_timeout_ms = spec->default_timeout_ms,
        .max_timeout_ms = spec->max_timeout_ms,
        .drain_timeout_ms = spec->drain_timeout_ms,
        .allow_drain = spec->allow_drain,
        .max_jobs = spec->max_jobs,
        .slot = spec->slot,
        .stats = spec->stats,
        .shadow = spec->shadow,
        .incarnation = spec->incarnation,
        .started_ms = clock_now_ms(),
    };
    server->service.pins = pins_create(&spec->pins, err);
    if (!server->service.pins || !open_socket(server, spec, err) || !start_pipeline(server, spec, err)) {
        server_destroy(server);
        return NULL;
    }
    return server;
}

static void request_destroy(struct request *request) {
    if (request) {
        job_fini(&request->job);
        message_free(request->envelope ? &request->envelope->base : NULL);
        free(request);
    }
}

static void send_reply(struct server *server, const struct route *route, struct bytes *reply) {
    if (!route_send(route, server->router, (struct wire_frame){reply->data, reply->size}, NULL)) {
        atomic_fetch_add(&server->service.counters.undelivered, 1);
    }
    free(reply->data);
    reply->data = NULL;
}

/** Answers what could not be read as a request. */
static void refuse(struct server *server, const struct route *route, Thorax__V1__Status status,
                   const struct error *reason) {
    struct error err = {0};
    struct bytes reply;
    struct refusal refusal = {.request_id = "", .status = status, .message = reason->message};
    if (service_refuse(&server->service, &refusal, &reply, &err)) {
        send_reply(server, route, &reply);
    } else {
        log_error("reply_failed", &err);
    }
}

/** Hands a well-formed request to its handler; takes it. */
static void dispatch(struct server *server, struct request *request) {
    struct error err = {0};
    struct bytes reply = {0};
    enum handled how = HANDLED_NOW;
    const struct handler *handler = handler_find(request->envelope->body_case);
    if (!handler) {
        error_set(&err, ERROR_INVALID, "the envelope holds no request");
        refuse(server, &request->route, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT, &err);
    } else if (!handler->handle(&server->service, request, &reply, &how, &err)) {
        log_error("request_failed", &err);
    } else if (how == HANDLED_LATER) {
        return;
    } else {
        send_reply(server, &request->route, &reply);
    }
    request_destroy(request);
}

static void accept_message(struct server *server, const struct wire_message *message) {
    struct error err = {0};
    struct wire_frame payload;
    struct request *request = calloc(1, sizeof *request);
    if (!request) {
        error_set(&err, ERROR_MEMORY, "no memory for a request");
        log_error("request_dropped", &err);
        return;
    }
    request->peer = message->peer;
    if (route_split(message, &request->route, &payload, &err)) {
        request->envelope = intake_unpack(payload, (size_t)server->max_message_bytes, &err);
    }
    if (!request->envelope) {
        refuse(server, &request->route, intake_status(err.code), &err);
        request_destroy(request);
        return;
    }
    dispatch(server, request);
}

/** Reads what has arrived, up to a burst. Returns the number of messages, -1 where the socket fails. */
static int receive(struct server *server, struct error *err) {
    for (int i = 0; i < BURST; i++) {
        struct error reason = {0};
        struct wire_message message;
        if (wire_receive(server->router, &message, 0, &reason)) {
            server->received++;
            accept_message(server, &message);
            wire_message_fini(&message);
        } else if (reason.code == ERROR_TIMEOUT) {
            return i;
        } else if (reason.code != ERROR_TOO_LARGE && reason.code != ERROR_BUSY) {
            /* those: too many frames, or a peer that is not allowed; dropped whole, there is nobody to answer */
            *err = reason;
            return -1;
        }
    }
    return BURST;
}

static void send_finished(struct server *server) {
    struct job *job;
    uint64_t count;
    ssize_t got = read(server->finished_event, &count, sizeof count);
    (void)got; /* nothing to read: a look too many does no harm */
    while ((job = pipeline_collect(server->service.pipeline))) {
        struct request *request = (struct request *)job;
        struct bytes reply;
        struct error err = {0};
        if (service_conclude(&server->service, job, &reply, &err)) {
            send_reply(server, &request->route, &reply);
        } else {
            log_error("reply_failed", &err);
        }
        request_destroy(request);
    }
}

bool server_step(struct server *server, int64_t timeout_ms, struct error *err) {
    struct wire_poll_item items[] = {{.socket = server->router}, {.descriptor = server->finished_event}};
    struct error reason = {0};
    atomic_store(&server->turned_ms, clock_now_ms());
    int ready = wire_poll(items, 2, timeout_ms, &reason);
    if (ready < 0 || (items[0].readable && receive(server, &reason) < 0)) {
        return error_set(err, reason.code, "%s", reason.message);
    }
    send_finished(server);
    return true;
}

/** What is on its way to us already gets its NOT_READY, too. */
static bool refuse_the_rest(struct server *server, struct error *err) {
    int64_t end = clock_now_ms() + DRAIN_REFUSE_MS, quiet = clock_now_ms() + DRAIN_QUIET_MS;
    while (clock_left_ms(quiet) > 0 && clock_left_ms(end) > 0) {
        uint64_t before = server->received;
        if (!server_step(server, clock_left_ms(quiet), err)) {
            return false;
        }
        quiet = server->received == before ? quiet : clock_now_ms() + DRAIN_QUIET_MS;
    }
    return true;
}

bool server_drain(struct server *server, int64_t timeout_ms, struct error *err) {
    int64_t deadline = clock_now_ms() + timeout_ms;
    server->service.draining = true;
    while (pipeline_in_flight(server->service.pipeline) > 0) {
        if (clock_left_ms(deadline) == 0) {
            return error_set(err, ERROR_TIMEOUT, "%d requests were not answered within %lld ms",
                             pipeline_in_flight(server->service.pipeline), (long long)timeout_ms);
        }
        if (!server_step(server, clock_left_ms(deadline), err)) {
            return false;
        }
    }
    return refuse_the_rest(server, err);
}

bool server_draining(const struct server *server) {
    return server->service.draining;
}

static int64_t longest_computing_ms(const struct counters *counters, int64_t now_ms) {
    int64_t longest = 0;
    for (int i = 0; i < counters->instance_count; i++) {
        int64_t since = counters->instances[i].computing_since_ms;
        longest = since && now_ms - since > longest ? now_ms - since : longest;
    }
    return longest;
}

void server_health(const struct server *server, struct server_health *out) {
    int64_t now = clock_now_ms(), turned = server->turned_ms;
    *out = (struct server_health){.silent_ms = turned ? now - turned : -1,
                                  .computing_ms = longest_computing_ms(&server->service.counters, now),
                                  .in_flight = pipeline_in_flight(server->service.pipeline),
                                  .queue_limit = server->service.max_jobs,
                                  .draining = server->service.draining,
                                  .lost = atomic_load(&server->service.counters.lost) > 0};
}

const struct counters *server_counters(const struct server *server) {
    return &server->service.counters;
}

const char *server_bound(struct server *server, int i, char *out, size_t size) {
    return wire_socket_bound(server->router, i, out, size);
}

/** Waits until all threads are done with their jobs, and drops them. */
static void abandon(struct server *server) {
    struct job *job;
    while (server->service.pipeline && pipeline_in_flight(server->service.pipeline) > 0) {
        while ((job = pipeline_collect(server->service.pipeline))) {
            request_destroy((struct request *)job);
        }
        clock_sleep_ms(1);
    }
}

void server_destroy(struct server *server) {
    if (!server) {
        return;
    }
    abandon(server);
    pipeline_destroy(server->service.pipeline);
    pins_destroy(server->service.pins);
    wire_socket_close(server->router);
    wire_context_destroy(server->context);
    if (server->finished_event >= 0) {
        close(server->finished_event);
    }
    free(server);
}
