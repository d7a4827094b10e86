#include "inferd/router.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "inferd/intake.h"
#include "inferd/reply.h"
#include "inferd/route.h"
#include "inferd/router_reply.h"
#include <stdlib.h>
#include <string.h>

enum {
    BURST = 64, /* messages read before answers are sent again */
    PEER_RECEIVE_LIMIT =
        64, /* messages of one peer that ZeroMQ may hold: admission does not bound them yet */
    CLOSE_LINGER_MS = 2000,
    DRAIN_QUIET_MS = 100,
    DRAIN_REFUSE_MS = 2000,
    RETRY_AFTER_MS = 50,
    FIELD_REQUEST = 2, /* of Envelope */
};

struct router {
    struct router_spec spec;
    struct wire_context *context;
    struct wire_socket *socket;
    struct exchange *exchange;
    struct counters counters;
    size_t bytes; /* of questions that wait for an answer */
    int64_t started_ms;
    uint64_t incarnation, received; /* messages */
    atomic_bool draining;
    _Atomic int64_t turned_ms; /* when our thread last began a step; 0: never */
    _Atomic int in_flight, members_ready;
    _Atomic uint64_t sent;
};

/** Who waits for a question's answer. */
struct waiting {
    struct route route;
    int64_t arrived_ns;
};

static void count(struct router *router, Thorax__V1__Status status) {
    if ((int)status >= 0 && (int)status < COUNTERS_STATUSES) {
        atomic_fetch_add(&router->counters.by_status[status], 1);
    }
}

static void send_frame(struct router *router, const struct route *route, struct wire_frame payload) {
    if (!route_send(route, router->socket, payload, NULL)) {
        atomic_fetch_add(&router->counters.undelivered, 1);
    }
}

/** Sends and frees; where there was no memory to pack, nothing can be sent, and the log says so. */
static void send_packed(struct router *router, const struct route *route, bool packed, struct bytes *reply,
                        const struct error *err) {
    if (packed) {
        send_frame(router, route, (struct wire_frame){reply->data, reply->size});
        free(reply->data);
    } else {
        log_error("reply_failed", err);
    }
}

static void refuse(struct router *router, const struct route *route, const struct refusal *refusal) {
    struct error err = {0};
    struct bytes reply;
    count(router, refusal->status);
    bool packed = reply_refuse(refusal, router->spec.name, &reply, &err);
    send_packed(router, route, packed, &reply, &err);
}

/* ---- answers ---- */

static void pass_on(struct router *router, const struct question *question, const struct route *route,
                    const struct exchange_result *result) {
    const Thorax__V1__DiagnosisReply *reply = result->envelope->diagnosis_reply;
    count(router, reply->status);
    if (reply->status == THORAX__V1__STATUS__STATUS_OK && reply->pinned_model.len == 0 &&
        exchange_model_changed(question, reply)) {
        struct error err = {0};
        struct bytes packed;
        bool ok = router_warn(question, result->envelope, &packed, &err);
        send_packed(router, route, ok, &packed, &err);
    } else {
        send_frame(router, route, result->payload);
    }
}

/** The exchange's call: a question's end. */
static void on_done(void *context, struct question *question, struct exchange_result *result) {
    struct router *router = context;
    struct waiting *waiting = question->owner;
    struct error err = {0};
    router->bytes -= question->size_bytes;
    atomic_fetch_add(&router->sent, (uint64_t)question->attempts);
    switch (result->end) {
    case EXCHANGE_REPLIED:
        pass_on(router, question, &waiting->route, result);
        histogram_record(&router->counters.request, (uint64_t)(clock_now_ns() - waiting->arrived_ns) / 1000);
        message_free(&result->envelope->base);
        break;
    case EXCHANGE_EXPIRED:
        exchange_explain(router->exchange, question, &err);
        refuse(router, &waiting->route,
               &(struct refusal){.request_id = question->request_id,
                                 .status = THORAX__V1__STATUS__STATUS_DEADLINE_EXCEEDED,
                                 .message = err.message});
        break;
    case EXCHANGE_ABANDONED:
        break;
    }
    free(waiting);
    question_destroy(question);
}

static void on_member_changed(void *context, int member, bool ready) {
    struct router *router = context;
    log_event(ready ? LOG_INFO : LOG_WARNING, ready ? "member_ready" : "member_lost",
              "endpoint=%s members_ready=%d", router->spec.members[member],
              exchange_ready_count(router->exchange));
}

/* ---- requests ---- */

static int64_t deadline_of(const struct router *router, const Thorax__V1__DiagnosisRequest *request) {
    int64_t timeout_ms = request->timeout_ms ? request->timeout_ms : router->spec.default_timeout_ms;
    return clock_now_ms() +
           (timeout_ms < router->spec.max_timeout_ms ? timeout_ms : router->spec.max_timeout_ms);
}

/** Takes the question in. ERROR_STATE: not ready; ERROR_BUSY; ERROR_INVALID: a field. The question is
 * destroyed on error. */
static bool admit(struct router *router, struct question *question, struct error *err) {
    if (atomic_load(&router->draining)) {
        return error_set(err, ERROR_STATE, "this router is shutting down");
    }
    if (question->size_bytes > router->spec.max_request_bytes - router->bytes) {
        return error_set(err, ERROR_BUSY, "too many bytes of requests wait");
    }
    return exchange_submit(router->exchange, question, clock_now_ms(), err);
}

static Thorax__V1__Status status_of(enum error_code code) {
    switch (code) {
    case ERROR_STATE:
        return THORAX__V1__STATUS__STATUS_NOT_READY;
    case ERROR_BUSY:
        return THORAX__V1__STATUS__STATUS_BUSY;
    default:
        return intake_status(code);
    }
}

static struct question *make_question(struct router *router, const struct route *route,
                                      const Thorax__V1__DiagnosisRequest *request, struct wire_frame packed,
                                      struct error *err) {
    struct question *question = question_take(packed, request, err);
    struct waiting *waiting = question ? malloc(sizeof *waiting) : NULL;
    if (!waiting) {
        if (question) {
            error_set(err, ERROR_MEMORY, "no memory for a request");
        }
        question_destroy(question);
        return NULL;
    }
    *waiting = (struct waiting){*route, clock_now_ns()};
    question->owner = waiting;
    question->deadline_ms = deadline_of(router, request);
    return question;
}

static void diagnose(struct router *router, const struct route *route,
                     const Thorax__V1__DiagnosisRequest *request, struct wire_frame payload) {
    struct error err = {0};
    struct wire_frame packed = {NULL, 0};
    message_find(payload, FIELD_REQUEST, &packed); /* it is there: it was unpacked from there */
    struct question *question = make_question(router, route, request, packed, &err);
    if (question && admit(router, question, &err)) {
        router->bytes += question->size_bytes;
        return;
    }
    struct refusal refusal = {.request_id =
                                  strlen(request->request_id) < QUESTION_ID_SIZE ? request->request_id : "",
                              .status = status_of(err.code),
                              .message = err.message,
                              .retry_after_ms = err.code == ERROR_BUSY ? RETRY_AFTER_MS : 0};
    refuse(router, route, &refusal);
    if (question) {
        free(question->owner);
        question_destroy(question);
    }
}

static void say_status(struct router *router, const struct route *route) {
    struct error err = {0};
    struct bytes reply;
    struct router_about about = {.name = router->spec.name,
                                 .version = router->spec.version,
                                 .draining = atomic_load(&router->draining),
                                 .in_flight = (uint32_t)exchange_count(router->exchange),
                                 .queue_limit = (uint32_t)router->spec.max_requests,
                                 .started_ms = router->started_ms,
                                 .incarnation = router->incarnation,
                                 .undelivered = atomic_load(&router->counters.undelivered),
                                 .by_status = router->counters.by_status};
    bool packed = router_status(&about, router->exchange, &reply, &err);
    send_packed(router, route, packed, &reply, &err);
}

static void start_drain(struct router *router, const struct route *route, const struct wire_peer *peer) {
    struct error err = {0};
    struct bytes reply;
    bool granted;
    struct drain_terms terms = {.what = "router",
                                .allowed = router->spec.allow_drain,
                                .peer = peer,
                                .in_flight = (uint32_t)exchange_count(router->exchange),
                                .timeout_ms = (uint32_t)router->spec.drain_timeout_ms};
    bool packed = reply_to_drain(&terms, &granted, &reply, &err);
    if (granted) {
        atomic_store(&router->draining, true);
    }
    send_packed(router, route, packed, &reply, &err);
}

static void take_envelope(struct router *router, const struct route *route, const struct wire_peer *peer,
                          const Thorax__V1__Envelope *envelope, struct wire_frame payload) {
    switch (envelope->body_case) {
    case THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REQUEST:
        diagnose(router, route, envelope->diagnosis_request, payload);
        return;
    case THORAX__V1__ENVELOPE__BODY_STATUS_REQUEST:
        say_status(router, route);
        return;
    case THORAX__V1__ENVELOPE__BODY_DRAIN_REQUEST:
        start_drain(router, route, peer);
        return;
    default:
        refuse(router, route,
               &(struct refusal){.request_id = "",
                                 .status = THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT,
                                 .message = "the envelope holds no request"});
    }
}

static void take_message(struct router *router, const struct wire_message *message) {
    struct error err = {0};
    struct route route;
    struct wire_frame payload;
    Thorax__V1__Envelope *envelope = NULL;
    if (route_split(message, &route, &payload, &err)) {
        envelope = intake_unpack(payload, (size_t)router->spec.max_message_bytes, &err);
    }
    if (envelope) {
        take_envelope(router, &route, &message->peer, envelope, payload);
        message_free(&envelope->base);
    } else {
        refuse(
            router, &route,
            &(struct refusal){.request_id = "", .status = intake_status(err.code), .message = err.message});
    }
}

/** Reads what clients sent, up to a burst. False where the socket fails. */
static bool receive(struct router *router, struct error *err) {
    for (int i = 0; i < BURST; i++) {
        struct error reason = {0};
        struct wire_message message = {0};
        if (wire_receive(router->socket, &message, 0, &reason)) {
            router->received++;
            take_message(router, &message);
            wire_message_fini(&message);
        } else if (reason.code == ERROR_TIMEOUT) {
            return true;
        } else if (reason.code != ERROR_TOO_LARGE && reason.code != ERROR_BUSY) {
            /* those: too many frames, or a peer that is not allowed; dropped whole, there is nobody to answer */
            return error_set(err, reason.code, "%s", reason.message);
        }
    }
    return true;
}

/* ---- life ---- */

static bool open_sockets(struct router *router, struct error *err) {
    const struct router_spec *spec = &router->spec;
    struct wire_socket_spec socket = {.kind = WIRE_ROUTER,
                                      .bind = spec->bind,
                                      .receive_limit = PEER_RECEIVE_LIMIT,
                                      .max_frame_bytes = 2 * spec->max_message_bytes,
                                      .linger_ms = CLOSE_LINGER_MS,
                                      .router_mandatory = true,
                                      .security = spec->security,
                                      .roles = WIRE_CLIENT | WIRE_ADMIN,
                                      .insecure = spec->insecure};
    if (!(router->context = wire_context_create(1, err)) ||
        !(router->socket = wire_socket_open(router->context, &socket, err))) {
        return false;
    }
    struct exchange_spec exchange = {.context = router->context,
                                     .endpoints = spec->members,
                                     .endpoint_count = spec->member_count,
                                     .security = spec->security,
                                     .server_keys = spec->server_keys,
                                     .server_key_count = spec->server_key_count,
                                     .max_questions = spec->max_requests,
                                     .heartbeat_ms = spec->heartbeat_ms,
                                     .pin_ms = spec->pin_ms,
                                     .done = on_done,
                                     .member_changed = on_member_changed,
                                     .callback_context = router};
    return (router->exchange = exchange_create(&exchange, err)) != NULL;
}

struct router *router_create(const struct router_spec *spec, struct error *err) {
    struct router *router = calloc(1, sizeof *router);
    if (!router) {
        error_set(err, ERROR_MEMORY, "no memory for the router");
        return NULL;
    }
    router->spec = *spec;
    router->started_ms = clock_now_ms();
    router->incarnation = digest_random_u64();
    if (!open_sockets(router, err)) {
        router_destroy(router);
        return NULL;
    }
    return router;
}

void router_destroy(struct router *router) {
    if (router) {
        exchange_destroy(router->exchange);
        wire_socket_close(router->socket);
        wire_context_destroy(router->context);
        free(router);
    }
}

const char *router_bound(struct router *router, int i, char *out, size_t size) {
    return wire_socket_bound(router->socket, i, out, size);
}

bool router_step(struct router *router, int64_t timeout_ms, struct error *err) {
    struct wire_poll_item items[EXCHANGE_MAX_ITEMS + 1];
    struct error reason = {0};
    int64_t due_ms = exchange_wait_ms(router->exchange, clock_now_ms());
    int count = exchange_poll_items(router->exchange, items);
    items[count] = (struct wire_poll_item){.socket = router->socket};
    atomic_store(&router->turned_ms, clock_now_ms());
    int ready = wire_poll(items, count + 1, due_ms < timeout_ms ? due_ms : timeout_ms, &reason);
    if (ready < 0 || (ready > 0 && items[count].readable && !receive(router, &reason))) {
        return error_set(err, reason.code, "%s", reason.message);
    }
    exchange_step(router->exchange, ready > 0 ? items : NULL);
    atomic_store(&router->in_flight, exchange_count(router->exchange));
    atomic_store(&router->members_ready, exchange_ready_count(router->exchange));
    return true;
}

bool router_draining(const struct router *router) {
    return atomic_load(&router->draining);
}

/** Refuses what is still on its way until nothing comes any more. */
static bool refuse_the_rest(struct router *router, struct error *err) {
    int64_t end_ms = clock_now_ms() + DRAIN_REFUSE_MS, quiet_ms = clock_now_ms() + DRAIN_QUIET_MS;
    while (clock_left_ms(quiet_ms) > 0 && clock_left_ms(end_ms) > 0) {
        uint64_t before = router->received;
        if (!router_step(router, clock_left_ms(quiet_ms), err)) {
            return false;
        }
        quiet_ms = router->received == before ? quiet_ms : clock_now_ms() + DRAIN_QUIET_MS;
    }
    return true;
}

bool router_drain(struct router *router, int64_t timeout_ms, struct error *err) {
    int64_t deadline_ms = clock_now_ms() + timeout_ms;
    atomic_store(&router->draining, true);
    while (exchange_count(router->exchange) > 0) {
        if (clock_left_ms(deadline_ms) == 0) {
            return error_set(err, ERROR_TIMEOUT, "%d requests were not answered within %lld ms",
                             exchange_count(router->exchange), (long long)timeout_ms);
        }
        if (!router_step(router, clock_left_ms(deadline_ms), err)) {
            return false;
        }
    }
    return refuse_the_rest(router, err);
}

void router_health(const struct router *router, struct router_health *out) {
    int64_t now_ms = clock_now_ms(), turned_ms = atomic_load(&router->turned_ms);
    *out = (struct router_health){.silent_ms = turned_ms ? now_ms - turned_ms : -1,
                                  .in_flight = atomic_load(&router->in_flight),
                                  .queue_limit = router->spec.max_requests,
                                  .members = router->spec.member_count,
                                  .members_ready = atomic_load(&router->members_ready),
                                  .draining = atomic_load(&router->draining)};
}

const struct counters *router_counters(const struct router *router) {
    return &router->counters;
}

uint64_t router_sent(const struct router *router) {
    return atomic_load(&router->sent);
}
