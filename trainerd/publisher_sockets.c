#include "common/base/clock.h"
#include "common/base/log.h"
#include "trainerd/publisher_internal.h"

enum {
    SEND_LIMIT = 2 * POOL_MAX_CREDIT, /* messages that may wait for one peer */
    /* Whose connections are taken. Who may ask what on the control socket: publisher_control.c. */
    POOL_ROLES = WIRE_TRAINER | WIRE_MEMBER | WIRE_ADMIN,
    REOPEN_TRIES = 50, /* ZeroMQ closes in the background, and the address is taken until then */
    REOPEN_PAUSE_MS = 4,
};

static bool open_socket(struct publisher *publisher, enum publisher_socket which, const char *endpoint,
                        struct error *err) {
    const char *const bind[] = {endpoint, NULL};
    struct wire_socket_spec spec = {
        .kind = which == PUBLISHER_ANNOUNCE ? WIRE_XPUB : WIRE_ROUTER,
        .bind = bind,
        .max_frame_bytes = which == PUBLISHER_CONTROL ? POOL_MAX_MESSAGE_BYTES : 4096,
        .send_limit = SEND_LIMIT,
        .router_mandatory = which == PUBLISHER_BLOBS,
        .linger_ms = which == PUBLISHER_CONTROL ? 200 : 0,
        .insecure = publisher->insecure,
        .security = publisher->security,
        .roles = POOL_ROLES,
    };
    publisher->sockets[which] = wire_socket_open(publisher->context, &spec, err);
    return publisher->sockets[which];
}

static bool open_first(struct publisher *publisher, enum publisher_socket which, const char *given,
                       const char *fallback, struct error *err) {
    const char *endpoint = given ? given : fallback;
    return open_socket(publisher, which, endpoint, err) &&
           (wire_socket_bound(publisher->sockets[which], 0, publisher->bound[which], PUBLISHER_ENDPOINT_SIZE) ||
            error_set(err, ERROR_INTERNAL, "%s: the bound endpoint is not known", endpoint));
}

bool publisher_open_sockets(struct publisher *publisher, const struct publisher_spec *spec, struct error *err) {
    publisher->security = spec->security;
    publisher->insecure = spec->insecure;
    publisher->removals = spec->security ? wire_security_removals(spec->security) : 0;
    publisher->context = wire_context_create(1, err);
    return publisher->context &&
           open_first(publisher, PUBLISHER_ANNOUNCE, spec->announce, POOL_DEFAULT_ANNOUNCE, err) &&
           open_first(publisher, PUBLISHER_CONTROL, spec->control, POOL_DEFAULT_CONTROL, err) &&
           open_first(publisher, PUBLISHER_BLOBS, spec->blobs, POOL_DEFAULT_BLOBS, err);
}

/** What is announced meanwhile is lost; members see it by the number in the next reply, and ask. */
static void reopen(struct publisher *publisher) {
    struct error err = {0};
    wire_socket_close(publisher->sockets[PUBLISHER_ANNOUNCE]);
    publisher->sockets[PUBLISHER_ANNOUNCE] = NULL;
    for (int i = 0; i < REOPEN_TRIES; i++) {
        if (open_socket(publisher, PUBLISHER_ANNOUNCE, publisher->bound[PUBLISHER_ANNOUNCE], &err)) {
            log_event(LOG_INFO, "subscribers_asked_anew", "reason=\"the allow-list lost somebody\"");
            return;
        }
        clock_sleep_ms(REOPEN_PAUSE_MS);
    }
    log_error("announce_not_reopened", &err); /* tried again at the next tick */
}

void publisher_follow_list(struct publisher *publisher) {
    uint64_t removals = publisher->security ? wire_security_removals(publisher->security) : 0;
    if (removals == publisher->removals && publisher->sockets[PUBLISHER_ANNOUNCE])
        return;
    publisher->removals = removals;
    reopen(publisher);
}
