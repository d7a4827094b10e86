#include "common/base/clock.h"
#include "inferd/inferctl/commands.h"
#include "inferd/inferctl/options.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

enum { POLL_PAUSE_MS = 100, POLL_TIMEOUT_MS = 1000, SILENT_POLLS = 2 };

/** How a drain ended. */
struct outcome {
    uint32_t in_flight, timeout_ms; /**< what the member said at first */
    uint32_t left;                  /**< in flight when it was last heard of */
    bool gone;
    int64_t waited_ms;
};

/** Asks the member to drain, and takes its first answer. */
static bool begin(struct client *client, const struct options *options, struct outcome *out, struct error *err) {
    struct client_reply reply;
    if (!client_drain(client, options->timeout_ms, &reply, err)) {
        return false;
    }
    bool ok = reply.drain->status == THORAX__V1__STATUS__STATUS_OK ||
              error_set(err, ERROR_STATE, "refused (%s): %s", client_status_name(reply.drain->status),
                        reply.drain->message);
    out->in_flight = out->left = reply.drain->in_flight;
    out->timeout_ms = reply.drain->timeout_ms;
    client_reply_fini(&reply);
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

static bool wait_until_gone(struct client *client, const struct options *options, struct outcome *out,
                            struct error *err) {
    int64_t start_ms = clock_now_ms(), deadline_ms = start_ms + options->timeout_ms;
    int silent = 0;
    while (!(out->gone = is_gone(client, &silent, out)) && clock_left_ms(deadline_ms) > 0) {
        clock_sleep_ms(POLL_PAUSE_MS);
    }
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
    struct client_keys keys;
    struct client *client = options_connect(&options, &keys, &err);
    bool gone = client && begin(client, &options, &outcome, &err);
    if (gone) {
        gone = wait_until_gone(client, &options, &outcome, &err);
        print(&outcome, options.json);
    }
    client_close(client);
    client_keys_fini(&keys);
    return gone ? 0 : options_fail(&err, INFERCTL_FAILED);
}
