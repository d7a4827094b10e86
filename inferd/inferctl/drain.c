#include "common/base/clock.h"
#include "common/wire/endpoint.h"
#include "common/wire/message.h"
#include "inferd/inferctl/commands.h"
#include "inferd/inferctl/options.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

enum { POLL_PAUSE_MS = 100, POLL_TIMEOUT_MS = 1000, SILENT_POLLS = 2, REPLY_MAX_BYTES = 1 << 20 };

/** How a drain ended. */
struct outcome {
    uint32_t in_flight, timeout_ms; /**< what the member said at first */
    uint32_t left;                  /**< in flight when it was last heard of */
    bool gone;
    int64_t waited_ms;
};

static bool send_request(struct wire_socket *socket, int64_t timeout_ms, struct error *err) {
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    Thorax__V1__DrainRequest request = THORAX__V1__DRAIN_REQUEST__INIT;
    struct bytes packed;
    envelope.protocol_version = MESSAGE_PROTOCOL_VERSION;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_DRAIN_REQUEST;
    envelope.drain_request = &request;
    if (!message_pack(&envelope.base, &packed, err)) {
        return false;
    }
    struct wire_frame frames[] = {{"", 0}, {packed.data, packed.size}};
    bool ok = wire_send(socket, frames, 2, timeout_ms, err);
    free(packed.data);
    return ok;
}

static bool read_reply(const struct wire_message *message, struct outcome *out, struct error *err) {
    struct message_limits limits = {.max_bytes = REPLY_MAX_BYTES, .max_fields = 64, .max_depth = 4};
    struct wire_frame payload = message->frames[message->count - 1];
    Thorax__V1__Envelope *envelope =
        (Thorax__V1__Envelope *)message_unpack(&thorax__v1__envelope__descriptor, payload, &limits, err);
    if (!envelope) {
        return error_prefix(err, "reply");
    }
    bool ok = true;
    if (envelope->body_case != THORAX__V1__ENVELOPE__BODY_DRAIN_REPLY) {
        ok = error_set(err, ERROR_UNSUPPORTED,
                       "this member does not know how to drain on request; SIGTERM does the same");
    } else if (envelope->drain_reply->status != THORAX__V1__STATUS__STATUS_OK) {
        ok = error_set(err, ERROR_STATE, "refused (%s): %s",
                       client_status_name(envelope->drain_reply->status), envelope->drain_reply->message);
    } else {
        out->in_flight = out->left = envelope->drain_reply->in_flight;
        out->timeout_ms = envelope->drain_reply->timeout_ms;
    }
    message_free(&envelope->base);
    return ok;
}

/** Asks the member to drain, and takes its first answer. */
static bool begin(const struct options *options, struct outcome *out, struct error *err) {
    const char *const connect[] = {options->endpoint, NULL};
    struct wire_socket_spec spec = {
        .kind = WIRE_DEALER, .connect = connect, .max_frame_bytes = REPLY_MAX_BYTES};
    struct wire_context *context = wire_context_create(1, err);
    struct wire_socket *socket = context ? wire_socket_open(context, &spec, err) : NULL;
    struct wire_message message = {0};
    bool ok = socket && send_request(socket, options->timeout_ms, err) &&
              wire_receive(socket, &message, options->timeout_ms, err);
    if (!ok && err->code == ERROR_TIMEOUT) {
        error_set(err, ERROR_TIMEOUT, "no reply within %" PRId64 " ms", options->timeout_ms);
        error_hint(err, "is a member listening at that endpoint?");
    }
    ok = ok && read_reply(&message, out, err);
    wire_message_fini(&message);
    wire_socket_close(socket);
    wire_context_destroy(context);
    return ok;
}

/** One look at the member. It is gone where it does not answer any more, or where another one took its place.
 */
static bool is_gone(struct client *client, int *silent, struct outcome *out) {
    struct client_reply reply;
    if (!client_status(client, POLL_TIMEOUT_MS, &reply, NULL)) {
        return ++*silent >= SILENT_POLLS;
    }
    *silent = 0;
    out->left = reply.status->in_flight;
    bool other = reply.status->condition != THORAX__V1__MEMBER_CONDITION__CONDITION_DRAINING;
    client_reply_fini(&reply);
    return other;
}

static bool wait_until_gone(const struct options *options, struct outcome *out, struct error *err) {
    int64_t start_ms = clock_now_ms(), deadline_ms = start_ms + options->timeout_ms;
    int silent = 0;
    struct client *client = client_open(options->endpoint, err);
    if (!client) {
        return false;
    }
    while (!(out->gone = is_gone(client, &silent, out)) && clock_left_ms(deadline_ms) > 0) {
        clock_sleep_ms(POLL_PAUSE_MS);
    }
    client_close(client);
    out->waited_ms = clock_now_ms() - start_ms;
    return out->gone ||
           error_set(err, ERROR_TIMEOUT, "still busy after %" PRId64 " ms: %" PRIu32 " requests in flight",
                     options->timeout_ms, out->left);
}

static void print(const struct outcome *outcome, bool as_json) {
    if (as_json) {
        json_t *out = json_pack("{s:b, s:I, s:I, s:I, s:I}", "gone", outcome->gone, "in_flight",
                                (json_int_t)outcome->in_flight, "left",
                                (json_int_t)(outcome->gone ? 0 : outcome->left), "drain_timeout_ms",
                                (json_int_t)outcome->timeout_ms, "waited_ms", (json_int_t)outcome->waited_ms);
        json_dumpf(out, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(out);
    } else if (outcome->gone) {
        printf("drained after %.1f s; %" PRIu32 " requests were in flight\n",
               (double)outcome->waited_ms / 1000, outcome->in_flight);
    }
}

int command_drain(int argc, char **argv) {
    struct options options;
    struct error err = {0};
    struct outcome outcome = {0};
    if (!options_parse(argc, argv, &options, &err)) {
        return options_fail(&err, INFERCTL_USAGE);
    }
    if (options.file_count > 0) {
        error_set(&err, ERROR_INVALID, "drain: what is \"%s\"?", options.files[0]);
        return options_fail(&err, INFERCTL_USAGE);
    }
    if (!begin(&options, &outcome, &err)) {
        return options_fail(&err, INFERCTL_FAILED);
    }
    bool gone = wait_until_gone(&options, &outcome, &err);
    print(&outcome, options.json);
    return gone ? 0 : options_fail(&err, INFERCTL_FAILED);
}
