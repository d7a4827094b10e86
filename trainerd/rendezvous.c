#include "trainerd/rendezvous.h"

#include "common/base/clock.h"
#include "common/base/signals.h"
#include "trainerd/rendezvous_message.h"

#include <stdlib.h>
#include <string.h>

enum {
    HEARTBEAT_INTERVAL_MS = 500,
    ANSWER_TIMEOUT_MS = 30000,
    REPORT_TIMEOUT_MS = 5000,
    LEAVE_TIMEOUT_MS = 2000
};

struct rendezvous {
    struct wire_socket *socket;
    bool joined;
    struct rendezvous_message head; /* what all messages of this rank share */
    int64_t sent_ms;                /* when the supervisor was told anything last */
};

static bool send_message(struct rendezvous *rendezvous, const struct rendezvous_message *message,
                         int64_t timeout_ms, struct error *err) {
    uint8_t head[RENDEZVOUS_HEAD_SIZE];
    struct wire_frame frames[RENDEZVOUS_FRAMES];
    if (message->key.size > RENDEZVOUS_KEY_MAX || message->value.size > RENDEZVOUS_VALUE_MAX)
        return error_set(err, ERROR_TOO_LARGE,
                         "rendezvous: a key of %zu bytes and a value of %zu: at most %d and %d",
                         message->key.size, message->value.size, RENDEZVOUS_KEY_MAX, RENDEZVOUS_VALUE_MAX);
    rendezvous_pack(message, head, frames);
    rendezvous->sent_ms = clock_now_ms();
    return wire_send(rendezvous->socket, frames, RENDEZVOUS_FRAMES, timeout_ms, err);
}

/** Keeps an answer's value, NUL-terminated. */
static bool keep_value(const struct wire_frame *value, struct bytes *out, struct error *err) {
    out->data = malloc(value->size + 1);
    if (!out->data)
        return error_set(err, ERROR_MEMORY, "rendezvous: out of memory for %zu bytes", value->size);
    if (value->size)
        memcpy(out->data, value->data, value->size);
    out->data[value->size] = 0;
    out->size = value->size;
    return true;
}

/** What other ranks have to do first may take for ever; then SIGTERM ends the wait. */
static bool depends_on_others(enum rendezvous_verb verb) {
    return verb == RENDEZVOUS_HELLO || verb == RENDEZVOUS_GET;
}

/** Waits for the answer to the last question; answers to earlier ones, which were given up, are skipped. */
static bool await_answer(struct rendezvous *rendezvous, enum rendezvous_verb verb, int64_t deadline_ms,
                         struct bytes *out, struct error *err) {
    for (;;) {
        struct wire_message received;
        struct rendezvous_message answer;
        struct error cause = {0};
        if (!wire_receive(rendezvous->socket, &received, clock_left_ms(deadline_ms), &cause)) {
            if (signals_stop && depends_on_others(verb))
                return error_set(err, ERROR_STATE, "told to stop");
            if (cause.code == ERROR_TIMEOUT && clock_left_ms(deadline_ms) > 0)
                continue; /* a signal that is not for us */
            if (err)
                *err = cause;
            return false;
        }
        bool mine = rendezvous_unpack(received.frames, received.count, &answer) &&
                    answer.sequence == rendezvous->head.sequence;
        bool refused = mine && answer.verb == RENDEZVOUS_REFUSED, ok = mine && !refused;
        if (refused)
            error_set(err, ERROR_INVALID, "%.*s", (int)answer.value.size, (const char *)answer.value.data);
        else if (mine && out)
            ok = keep_value(&answer.value, out, err);
        wire_message_fini(&received);
        if (mine)
            return ok;
    }
}

/** Asks and waits for the answer, until a monotonic deadline. */
static bool ask(struct rendezvous *rendezvous, struct rendezvous_message question, int64_t deadline_ms,
                struct bytes *out, struct error *err) {
    question.sequence = ++rendezvous->head.sequence;
    return send_message(rendezvous, &question, clock_left_ms(deadline_ms), err) &&
           await_answer(rendezvous, question.verb, deadline_ms, out, err);
}

struct rendezvous *rendezvous_join(const struct rendezvous_spec *spec, struct error *err) {
    struct rendezvous *rendezvous = calloc(1, sizeof *rendezvous);
    const char *const endpoints[] = {spec->endpoint, NULL};
    struct wire_socket_spec socket = {
        .kind = WIRE_DEALER, .connect = endpoints, .security = spec->security, .server_key = spec->server_key};
    struct error cause = {0};
    if (!rendezvous) {
        error_set(err, ERROR_MEMORY, "rendezvous: out of memory");
        return NULL;
    }
    rendezvous->head = (struct rendezvous_message){.rank = (uint32_t)spec->rank,
                                                   .world_size = (uint32_t)spec->world_size,
                                                   .generation = spec->generation};
    struct rendezvous_message hello = rendezvous->head;
    hello.verb = RENDEZVOUS_HELLO;
    hello.value = (struct wire_frame){spec->fingerprint, strlen(spec->fingerprint)};
    rendezvous->socket = wire_socket_open(spec->wire, &socket, &cause);
    rendezvous->joined =
        rendezvous->socket && ask(rendezvous, hello, clock_now_ms() + spec->timeout_ms, NULL, &cause);
    if (rendezvous->joined)
        return rendezvous;
    if (cause.code == ERROR_TIMEOUT)
        error_set(&cause, ERROR_TIMEOUT, "not all %d ranks had joined after %lld ms", spec->world_size,
                  (long long)spec->timeout_ms);
    error_prefix(&cause, "rank %d: rendezvous", spec->rank);
    if (err)
        *err = cause;
    rendezvous_leave(rendezvous);
    return NULL;
}

void rendezvous_leave(struct rendezvous *rendezvous) {
    if (!rendezvous)
        return;
    struct rendezvous_message leave = rendezvous->head;
    leave.verb = RENDEZVOUS_LEAVE;
    if (rendezvous->joined)
        ask(rendezvous, leave, clock_now_ms() + LEAVE_TIMEOUT_MS, NULL, NULL);
    wire_socket_close(rendezvous->socket);
    free(rendezvous);
}

bool rendezvous_set(struct rendezvous *rendezvous, const char *key, const void *data, size_t size,
                    struct error *err) {
    struct rendezvous_message question = rendezvous->head;
    question.verb = RENDEZVOUS_SET;
    question.key = (struct wire_frame){key, strlen(key)};
    question.value = (struct wire_frame){data, size};
    return ask(rendezvous, question, clock_now_ms() + ANSWER_TIMEOUT_MS, NULL, err) ||
           error_prefix(err, "rank %u: setting %s", rendezvous->head.rank, key);
}

bool rendezvous_get(struct rendezvous *rendezvous, const char *key, int64_t deadline_ms, struct bytes *out,
                    struct error *err) {
    struct rendezvous_message question = rendezvous->head;
    question.verb = RENDEZVOUS_GET;
    question.key = (struct wire_frame){key, strlen(key)};
    *out = (struct bytes){0};
    struct error cause = {0};
    if (ask(rendezvous, question, deadline_ms, out, &cause))
        return true;
    if (cause.code == ERROR_TIMEOUT)
        error_set(&cause, ERROR_TIMEOUT, "rank %u: nobody has set %s in time", rendezvous->head.rank, key);
    if (err)
        *err = cause;
    return false;
}

static bool store_set(void *context, const char *key, const void *data, size_t size, struct error *err) {
    return rendezvous_set(context, key, data, size, err);
}

static bool store_get(void *context, const char *key, int64_t deadline_ms, struct bytes *out,
                      struct error *err) {
    return rendezvous_get(context, key, deadline_ms, out, err);
}

struct collective_store rendezvous_store(struct rendezvous *rendezvous) {
    return (struct collective_store){.context = rendezvous, .set = store_set, .get = store_get};
}

bool rendezvous_report(struct rendezvous *rendezvous, const char *kind, const void *data, size_t size,
                       struct error *err) {
    struct rendezvous_message report = rendezvous->head;
    report.verb = RENDEZVOUS_REPORT;
    report.key = (struct wire_frame){kind, strlen(kind)};
    report.value = (struct wire_frame){data, size};
    return send_message(rendezvous, &report, REPORT_TIMEOUT_MS, err);
}

void rendezvous_heartbeat(struct rendezvous *rendezvous) {
    if (clock_now_ms() - rendezvous->sent_ms < HEARTBEAT_INTERVAL_MS)
        return;
    struct rendezvous_message beat = rendezvous->head;
    beat.verb = RENDEZVOUS_HEARTBEAT;
    send_message(rendezvous, &beat, 0, NULL);
}
