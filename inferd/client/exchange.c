#include "inferd/client/exchange.h"
#include "common/base/clock.h"
#include "common/base/text.h"
#include "inferd/pins.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BURST = 64, REPLY_MAX_BYTES = 2 << 20, PINS_MAX = 1 << 16 };

/** The connection to a member. */
struct link {
    char *endpoint;
    char server_key[CURVE_TEXT_SIZE]; /* "": none */
    struct wire_socket *socket, *watch;
    Thorax__V1__Envelope *status; /* the last one; or NULL */
    bool was_ready;
    bool refused; /* the last handshake failed */
    bool stale;   /* and nothing was opened anew since */
};

struct exchange {
    struct exchange_spec spec;
    struct dispatch *dispatch;
    struct pins *pins;
    struct link links[DISPATCH_MAX_MEMBERS];
    int link_count;
};

static void close_link(struct link *link) {
    wire_socket_close(link->watch);
    wire_socket_close(link->socket);
    link->watch = link->socket = NULL;
}

static bool open_link(struct exchange *exchange, struct link *link, struct error *err) {
    const char *const connect[] = {link->endpoint, NULL};
    struct wire_socket_spec spec = {.kind = WIRE_DEALER,
                                    .connect = connect,
                                    .max_frame_bytes = REPLY_MAX_BYTES,
                                    .security = exchange->spec.security,
                                    .server_key = *link->server_key ? link->server_key : NULL,
                                    .watch = &link->watch};
    link->stale = false;
    link->socket = wire_socket_open(exchange->spec.context, &spec, err);
    return link->socket != NULL;
}

static bool check_counts(const struct exchange_spec *spec, struct error *err) {
    int keys = spec->server_key_count;
    if (spec->endpoint_count < 1 || spec->endpoint_count > DISPATCH_MAX_MEMBERS) {
        return error_set(err, ERROR_INVALID, "%d endpoints: expected 1 to %d", spec->endpoint_count,
                         DISPATCH_MAX_MEMBERS);
    }
    return keys == 0 || keys == 1 || keys == spec->endpoint_count ||
           error_set(err, ERROR_INVALID, "%d server keys for %d endpoints: expected one for all, or one for each",
                     keys, spec->endpoint_count);
}

static bool take_server_key(const struct exchange_spec *spec, int endpoint, char out[CURVE_TEXT_SIZE],
                            struct error *err) {
    const char *key = spec->server_key_count == 0   ? NULL
                      : spec->server_key_count == 1 ? spec->server_keys[0]
                                                    : spec->server_keys[endpoint];
    if (key && !curve_public_ok(key)) {
        return error_set(err, ERROR_INVALID, "%s: its server key is no public key", spec->endpoints[endpoint]);
    }
    text_copy(out, CURVE_TEXT_SIZE, key ? key : "");
    return true;
}

static bool open_links(struct exchange *exchange, struct error *err) {
    const struct exchange_spec *spec = &exchange->spec;
    if (!check_counts(spec, err)) {
        return false;
    }
    for (int i = 0; i < spec->endpoint_count; i++) {
        struct link *link = &exchange->links[exchange->link_count++];
        if (!(link->endpoint = strdup(spec->endpoints[i]))) {
            return error_set(err, ERROR_MEMORY, "no memory for an endpoint");
        }
        if (!take_server_key(spec, i, link->server_key, err) || !open_link(exchange, link, err)) {
            return false;
        }
    }
    return true;
}

struct exchange *exchange_create(const struct exchange_spec *spec, struct error *err) {
    struct exchange *exchange = calloc(1, sizeof *exchange);
    if (!exchange) {
        error_set(err, ERROR_MEMORY, "no memory for connections");
        return NULL;
    }
    exchange->spec = *spec;
    struct dispatch_spec rules = {.members = spec->endpoint_count,
                                  .max_questions = spec->max_questions,
                                  .heartbeat_ms = spec->heartbeat_ms,
                                  .first_ticket = digest_random_u64()};
    struct pins_spec pins = {.limit = PINS_MAX, .time_ms = spec->pin_ms};
    if (!(exchange->pins = pins_create(&pins, err)) || !open_links(exchange, err) ||
        !(exchange->dispatch = dispatch_create(&rules, err))) {
        exchange_destroy(exchange);
        return NULL;
    }
    exchange->spec.endpoints = exchange->spec.server_keys = NULL; /* the caller's; links have copies */
    return exchange;
}

static void give_back(struct exchange *exchange, struct question *question, struct exchange_result result) {
    exchange->spec.done(exchange->spec.callback_context, question, &result);
}

void exchange_destroy(struct exchange *exchange) {
    uint64_t ticket;
    struct question *question;
    if (!exchange) {
        return;
    }
    while (exchange->dispatch && (question = dispatch_any(exchange->dispatch, &ticket))) {
        dispatch_cancel(exchange->dispatch, ticket);
        give_back(exchange, question, (struct exchange_result){.end = EXCHANGE_ABANDONED});
    }
    for (int i = 0; i < exchange->link_count; i++) {
        close_link(&exchange->links[i]);
        message_free(exchange->links[i].status ? &exchange->links[i].status->base : NULL);
        free(exchange->links[i].endpoint);
    }
    dispatch_destroy(exchange->dispatch);
    pins_destroy(exchange->pins);
    free(exchange);
}

/**
 * Holds a question to the model that its routing key is pinned to, by now: looked up whenever the question is
 * about to be sent or answered, since others with the same key may have been answered meanwhile. The asker's
 * own pin stands above it.
 */
static void adopt_pin(struct exchange *exchange, struct question *question, uint64_t ticket) {
    if (!question->has_pin && !question->particular &&
        pins_get(exchange->pins, question->routing_key, question->routing_key_size, clock_now_ms(),
                 &question->pin)) {
        question->has_pin = true;
        dispatch_pin(exchange->dispatch, ticket, &question->pin);
    }
}

/** The first answer pins; a later one changes nothing. */
static void pin(struct exchange *exchange, const struct question *question,
                const Thorax__V1__DiagnosisReply *reply) {
    struct digest model;
    if (reply->status == THORAX__V1__STATUS__STATUS_OK && !question->particular) {
        memcpy(model.bytes, reply->model->digest.data, sizeof model.bytes);
        pins_put(exchange->pins, question->routing_key, question->routing_key_size, &model, clock_now_ms());
    }
}

bool exchange_submit(struct exchange *exchange, struct question *question, int64_t now_ms,
                     struct error *err) {
    adopt_pin(exchange, question, 0);
    struct dispatch_question spec = {.deadline_ms = question->deadline_ms,
                                     .pinned = question->has_pin ? &question->pin : NULL,
                                     .particular = question->particular,
                                     .urgent = question->urgent,
                                     .owner = question};
    return dispatch_add(exchange->dispatch, &spec, now_ms, err) != 0;
}

/** After a break: what was queued for the old connection is of no use to the new one. */
static void reopen(struct exchange *exchange, int member) {
    struct link *link = &exchange->links[member];
    close_link(link);
    /* Where there are no descriptors for a new one, the next heartbeat tries again. */
    (void)open_link(exchange, link, NULL);
}

static bool send_to(struct exchange *exchange, int member, uint64_t ticket, struct wire_frame envelope) {
    struct link *link = &exchange->links[member];
    struct wire_frame frames[] = {{&ticket, sizeof ticket}, {"", 0}, envelope};
    if (!link->socket || link->stale) {
        reopen(exchange, member);
    }
    return link->socket && wire_send(link->socket, frames, 3, 0, NULL);
}

static void ping(struct exchange *exchange, int member) {
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    Thorax__V1__StatusRequest request = THORAX__V1__STATUS_REQUEST__INIT;
    struct bytes packed;
    envelope.protocol_version = MESSAGE_PROTOCOL_VERSION;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_STATUS_REQUEST;
    envelope.status_request = &request;
    if (message_pack(&envelope.base, &packed, NULL)) {
        /* One that cannot be sent counts as unanswered, which is what it is for. */
        (void)send_to(exchange, member, 0, (struct wire_frame){packed.data, packed.size});
        free(packed.data);
    }
}

static void take_status(struct exchange *exchange, int member, Thorax__V1__Envelope *envelope) {
    const Thorax__V1__StatusReply *reply = envelope->status_reply;
    struct dispatch_status status = {.ready =
                                         reply->condition == THORAX__V1__MEMBER_CONDITION__CONDITION_READY,
                                     .limit = reply->queue_limit < INT32_MAX ? (int)reply->queue_limit : 0};
    for (size_t i = 0; i <= reply->n_resident && status.resident_count < DISPATCH_MAX_RESIDENT; i++) {
        const Thorax__V1__ModelIdentity *model = i == 0 ? reply->model : reply->resident[i - 1];
        if (model && model->digest.len == sizeof(struct digest)) {
            memcpy(status.resident[status.resident_count++].bytes, model->digest.data, sizeof(struct digest));
        }
    }
    dispatch_status(exchange->dispatch, member, &status);
    struct link *link = &exchange->links[member];
    message_free(link->status ? &link->status->base : NULL);
    link->status = envelope;
}

bool exchange_model_changed(const struct question *question, const Thorax__V1__DiagnosisReply *reply) {
    return question->has_pin && reply->model && reply->model->digest.len == sizeof question->pin.bytes &&
           memcmp(reply->model->digest.data, question->pin.bytes, sizeof question->pin.bytes) != 0;
}

/** What a reply that passed its checks means for its question. */
static enum dispatch_reply_kind kind_of(const struct question *question,
                                        const Thorax__V1__DiagnosisReply *reply) {
    switch (reply->status) {
    case THORAX__V1__STATUS__STATUS_OK:
        return exchange_model_changed(question, reply) ? DISPATCH_CHANGED : DISPATCH_FINAL;
    case THORAX__V1__STATUS__STATUS_BUSY:
        return DISPATCH_BUSY;
    case THORAX__V1__STATUS__STATUS_NOT_READY:
        return DISPATCH_NOT_READY;
    case THORAX__V1__STATUS__STATUS_INTERNAL:
    case THORAX__V1__STATUS__STATUS_UNSUPPORTED_VERSION:
    case THORAX__V1__STATUS__STATUS_DEADLINE_EXCEEDED:
        return DISPATCH_FAULT;
    default:
        return DISPATCH_FINAL;
    }
}

static void note_refusal(struct question *question, const Thorax__V1__DiagnosisReply *reply) {
    if (reply && reply->status != THORAX__V1__STATUS__STATUS_OK) {
        question->refused_as = reply->status;
        text_copy(question->refusal, sizeof question->refusal, reply->message);
    }
}

/** A reply to one of our questions, or what should be one; takes envelope, which may be NULL. */
static void take_reply(struct exchange *exchange, int member, uint64_t ticket, Thorax__V1__Envelope *envelope,
                       struct wire_frame payload) {
    struct question *question = dispatch_owner(exchange->dispatch, ticket);
    const Thorax__V1__DiagnosisReply *reply =
        envelope && envelope->body_case == THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REPLY
            ? envelope->diagnosis_reply
            : NULL;
    bool good = question && reply && client_check(reply, question->request_id, &question->image, NULL);
    if (good) {
        adopt_pin(exchange, question, ticket);
    }
    enum dispatch_reply_kind kind = good ? kind_of(question, reply) : DISPATCH_GARBAGE;
    int64_t pause_ms = good ? reply->retry_after_ms : 0;
    switch (dispatch_reply(exchange->dispatch, member, ticket, kind, pause_ms, clock_now_ms())) {
    case DISPATCH_DELIVER:
        pin(exchange, question, reply);
        give_back(
            exchange, question,
            (struct exchange_result){.end = EXCHANGE_REPLIED, .envelope = envelope, .payload = payload});
        return;
    case DISPATCH_AGAIN:
        note_refusal(question, good ? reply : NULL);
        break;
    case DISPATCH_STALE:
        break;
    }
    message_free(envelope ? &envelope->base : NULL);
}

static void take_message(struct exchange *exchange, int member, const struct wire_message *message) {
    uint64_t ticket;
    if (message->count != 3 || message->frames[0].size != sizeof ticket || message->frames[1].size != 0) {
        return; /* answers nothing that we sent */
    }
    memcpy(&ticket, message->frames[0].data, sizeof ticket);
    Thorax__V1__Envelope *envelope = client_unpack(message->frames[2], NULL);
    if (envelope) {
        dispatch_heard(exchange->dispatch, member);
    }
    if (ticket == 0 && envelope && envelope->body_case == THORAX__V1__ENVELOPE__BODY_STATUS_REPLY) {
        take_status(exchange, member, envelope);
    } else {
        take_reply(exchange, member, ticket, envelope, message->frames[2]);
    }
}

static void receive(struct exchange *exchange, int member) {
    struct wire_message message = {0};
    for (int i = 0; i < BURST; i++) {
        struct error reason = {0};
        if (wire_receive(exchange->links[member].socket, &message, 0, &reason)) {
            take_message(exchange, member, &message);
            wire_message_fini(&message);
        } else if (reason.code != ERROR_TOO_LARGE) {
            return;
        }
    }
}

static void follow_connection(struct exchange *exchange, int member) {
    enum wire_event event;
    struct link *link = &exchange->links[member];
    while (link->watch && wire_watch_next(link->watch, &event)) {
        if (event == WIRE_HANDSHAKE_FAILED) {
            link->refused = link->stale = true; /* the next heartbeat tries again */
        } else if (event == WIRE_CONNECTED) {
            link->refused = link->stale = false;
            dispatch_reached(exchange->dispatch, member, clock_now_ms());
        } else if (dispatch_view(exchange->dispatch, member).reachable) {
            receive(exchange, member); /* what it answered before it went */
            dispatch_lost(exchange->dispatch, member, clock_now_ms());
            reopen(exchange, member);
            return;
        }
    }
}

static void ask(struct exchange *exchange, const struct dispatch_action *action) {
    struct question *question = action->owner;
    uint32_t timeout_ms = action->timeout_ms < UINT32_MAX ? (uint32_t)action->timeout_ms : UINT32_MAX;
    question->attempts++;
    adopt_pin(exchange, question, action->ticket);
    if (!send_to(exchange, action->member, action->ticket, question_envelope(question, timeout_ms))) {
        dispatch_lost(exchange->dispatch, action->member, clock_now_ms());
        reopen(exchange, action->member);
    }
}

static void act(struct exchange *exchange) {
    struct dispatch_action action;
    while (dispatch_next(exchange->dispatch, clock_now_ms(), &action)) {
        switch (action.kind) {
        case DISPATCH_ASK:
            ask(exchange, &action);
            break;
        case DISPATCH_PING:
            ping(exchange, action.member);
            break;
        case DISPATCH_DIED:
            reopen(exchange, action.member);
            break;
        case DISPATCH_EXPIRE:
            give_back(exchange, action.owner, (struct exchange_result){.end = EXCHANGE_EXPIRED});
            break;
        }
    }
}

static void tell_changes(struct exchange *exchange) {
    for (int i = 0; i < exchange->link_count; i++) {
        bool ready = dispatch_view(exchange->dispatch, i).ready;
        if (ready != exchange->links[i].was_ready && exchange->spec.member_changed) {
            exchange->spec.member_changed(exchange->spec.callback_context, i, ready);
        }
        exchange->links[i].was_ready = ready;
    }
}

int exchange_poll_items(struct exchange *exchange, struct wire_poll_item *items) {
    int count = 0;
    for (int i = 0; i < exchange->link_count; i++) {
        /* Without a socket (no descriptors left), a descriptor of -1, which poll ignores. */
        items[count++] = (struct wire_poll_item){.socket = exchange->links[i].socket, .descriptor = -1};
        items[count++] = (struct wire_poll_item){.socket = exchange->links[i].watch, .descriptor = -1};
    }
    return count;
}

int64_t exchange_wait_ms(const struct exchange *exchange, int64_t now_ms) {
    return dispatch_wait_ms(exchange->dispatch, now_ms);
}

void exchange_step(struct exchange *exchange, const struct wire_poll_item *items) {
    for (int i = 0; items && i < exchange->link_count; i++) {
        if (items[2 * i].readable && exchange->links[i].socket) {
            receive(exchange, i);
        }
        if (items[2 * i + 1].readable) {
            follow_connection(exchange, i);
        }
    }
    act(exchange);
    tell_changes(exchange);
}

static int refused_count(const struct exchange *exchange) {
    int count = 0;
    for (int i = 0; i < exchange->link_count; i++) {
        count += exchange->links[i].refused;
    }
    return count;
}

void exchange_explain(const struct exchange *exchange, const struct question *question, struct error *err) {
    int ready = exchange_ready_count(exchange), refused = refused_count(exchange);
    char handshakes[64] = "";
    if (refused > 0) {
        snprintf(handshakes, sizeof handshakes, ", with %d the handshake failed", refused);
    }
    error_set(err, ERROR_TIMEOUT, "nobody answered in time; %d of %d endpoints take requests%s", ready,
              exchange->link_count, handshakes);
    if (question->refused_as != THORAX__V1__STATUS__STATUS_UNSPECIFIED) {
        error_set(err, ERROR_TIMEOUT,
                  "nobody answered in time; %d of %d endpoints take requests%s; the last refusal was %s: %s",
                  ready, exchange->link_count, handshakes, client_status_name(question->refused_as),
                  question->refusal);
    }
    if (ready == 0) {
        error_hint(err, "%s", client_hint(exchange->spec.security != NULL, refused > 0));
    }
}

int exchange_count(const struct exchange *exchange) {
    return dispatch_count(exchange->dispatch);
}

int exchange_ready_count(const struct exchange *exchange) {
    return dispatch_ready_count(exchange->dispatch);
}

int exchange_member_count(const struct exchange *exchange) {
    return exchange->link_count;
}

struct dispatch_member_view exchange_view(const struct exchange *exchange, int member) {
    return dispatch_view(exchange->dispatch, member);
}

const Thorax__V1__StatusReply *exchange_status(const struct exchange *exchange, int member) {
    const Thorax__V1__Envelope *last = exchange->links[member].status;
    return last ? last->status_reply : NULL;
}
