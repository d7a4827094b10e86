#include "common/wire/endpoint.h"
#include "common/base/clock.h"
#include "common/wire/address.h"
#include "common/wire/zap.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum {
    POLL_LIMIT = 160,
    RECONNECT_FIRST_MS = 50,
    RECONNECT_LAST_MS = 1000,
    HEARTBEAT_MISSES = 3,
    HANDSHAKE_MS = 3000, /* a refused peer is let go then, and may try again */
    HANDSHAKE_CLIENT_MS = 2000,
    HANDSHAKE_FAILED = ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_AUTH,
};
static const int64_t DEFAULT_FRAME_BYTES = 64 << 20;

struct wire_context {
    void *zmq;
    pthread_mutex_t lock; /* of zap, while sockets are opened; a leaf */
    struct zap *zap;      /* NULL: no socket here binds with security */
};

struct wire_socket {
    void *zmq;
    struct wire_security *guard; /* of a socket that binds with security: who may send */
    unsigned roles;
    void *watched; /* of a watch: what it watches */
    int send_timeout_ms,
        receive_timeout_ms; /* what ZeroMQ was told last, so as not to tell it with every message */
    int bound_count;
    char (*bound)[ADDRESS_SIZE];
};

/** A received message's memory. Small frames live inside zmq_msg_t, so the array must not move. */
struct parts {
    int count;
    zmq_msg_t parts[WIRE_MAX_FRAMES];
};

static enum error_code zmq_code(int number) {
    switch (number) {
    case EAGAIN:
    case EINTR:
        return ERROR_TIMEOUT;
    case EHOSTUNREACH:
        return ERROR_PEER;
    case EINVAL:
        return ERROR_INVALID;
    case EPROTONOSUPPORT:
        return ERROR_UNSUPPORTED;
    case ENOMEM:
        return ERROR_MEMORY;
    case EFSM:
    case ETERM:
        return ERROR_STATE;
    default:
        return ERROR_IO;
    }
}

/** The one converter from ZeroMQ's errno: true where result is not negative. */
static bool zmq_ok(int result, const char *what, const char *endpoint, struct error *err) {
    if (result >= 0) {
        return true;
    }
    int number = errno;
    enum error_code code = zmq_code(number);
    return error_set(err, code, "%s%s%s: %s", what, *endpoint ? " " : "", endpoint,
                     code == ERROR_TIMEOUT ? "timed out" : zmq_strerror(number));
}

struct wire_context *wire_context_create(int io_threads, struct error *err) {
    struct wire_context *context = calloc(1, sizeof *context);
    if (!context || !(context->zmq = zmq_ctx_new())) {
        free(context);
        error_set(err, ERROR_MEMORY, "no memory for a ZeroMQ context");
        return NULL;
    }
    pthread_mutex_init(&context->lock, NULL);
    if (!zmq_ok(zmq_ctx_set(context->zmq, ZMQ_IO_THREADS, io_threads), "ZeroMQ I/O threads", "", err)) {
        wire_context_destroy(context);
        return NULL;
    }
    return context;
}

void wire_context_destroy(struct wire_context *context) {
    if (!context) {
        return;
    }
    if (context->zap) {
        zmq_ctx_shutdown(context->zmq); /* ends its thread */
        zap_join(context->zap);
    }
    pthread_mutex_destroy(&context->lock);
    /* A signal may interrupt the wait for the I/O threads; giving up then would leak them. */
    while (zmq_ctx_term(context->zmq) < 0 && errno == EINTR) {
    }
    free(context);
}

static bool set_int(struct wire_socket *socket, int option, int value, const char *name, struct error *err) {
    return zmq_ok(zmq_setsockopt(socket->zmq, option, &value, sizeof value), "ZeroMQ option", name, err);
}

static bool set_text(struct wire_socket *socket, int option, const char *value, const char *name,
                     struct error *err) {
    return zmq_ok(zmq_setsockopt(socket->zmq, option, value, strlen(value)), "ZeroMQ option", name, err);
}

/** The context's handler answers for one security; it starts with the first socket that needs it. */
static bool start_zap(struct wire_context *context, struct wire_security *security, struct error *err) {
    pthread_mutex_lock(&context->lock);
    if (!context->zap) {
        context->zap = zap_start(context->zmq, security, err);
    } else if (zap_security(context->zap) != security) {
        error_set(err, ERROR_INVALID, "two allow-lists in one context");
        pthread_mutex_unlock(&context->lock);
        return false;
    }
    bool ok = context->zap != NULL;
    pthread_mutex_unlock(&context->lock);
    return ok;
}

static bool secure_server(struct wire_context *context, struct wire_socket *socket,
                          const struct wire_socket_spec *spec, struct error *err) {
    char domain[ZAP_DOMAIN_SIZE];
    int on = 1;
    if (!wire_security_has_list(spec->security)) {
        return error_set(err, ERROR_INVALID, "%s: a key and no allow-list (security.allow)", spec->bind[0]);
    }
    socket->guard = spec->security;
    socket->roles = spec->roles;
    return start_zap(context, spec->security, err) &&
           zmq_ok(zmq_setsockopt(socket->zmq, ZMQ_CURVE_SERVER, &on, sizeof on), "ZeroMQ option",
                  "CURVE_SERVER", err) &&
           set_text(socket, ZMQ_CURVE_SECRETKEY, wire_security_key(spec->security)->secret_key,
                    "CURVE_SECRETKEY", err) &&
           set_text(socket, ZMQ_ZAP_DOMAIN, zap_domain(spec->roles, domain), "ZAP_DOMAIN", err);
}

static bool secure_client(struct wire_socket *socket, const struct wire_socket_spec *spec, struct error *err) {
    const struct curve_key *key = wire_security_key(spec->security);
    if (!spec->server_key || !curve_public_ok(spec->server_key)) {
        return error_set(err, ERROR_INVALID, "%s: the public key of the other side is wanted",
                         spec->connect[0]);
    }
    return set_text(socket, ZMQ_CURVE_SERVERKEY, spec->server_key, "CURVE_SERVERKEY", err) &&
           set_text(socket, ZMQ_CURVE_PUBLICKEY, key->public_key, "CURVE_PUBLICKEY", err) &&
           set_text(socket, ZMQ_CURVE_SECRETKEY, key->secret_key, "CURVE_SECRETKEY", err);
}

/** Where keys are there, all TCP is encrypted, loopback too; ipc and inproc never are. */
static bool secure(struct wire_context *context, struct wire_socket *socket,
                   const struct wire_socket_spec *spec, struct error *err) {
    bool binds, connects;
    if (!spec->security) {
        return true;
    }
    bool pure = address_all_tcp(spec->bind, &binds);
    pure = address_all_tcp(spec->connect, &connects) && pure; /* both are asked: each says what there is */
    if (!binds && !connects) {
        return true;
    }
    if (!pure || (binds && connects)) {
        return error_set(err, ERROR_INVALID,
                         "with keys a socket either binds or connects, and either tcp:// or ipc:// alone");
    }
    return set_int(socket, ZMQ_HANDSHAKE_IVL, binds ? HANDSHAKE_MS : HANDSHAKE_CLIENT_MS, "HANDSHAKE_IVL", err) &&
           (binds ? secure_server(context, socket, spec, err) : secure_client(socket, spec, err));
}

static bool bind_all(struct wire_socket *socket, const struct wire_socket_spec *spec, struct error *err) {
    int count = 0;
    while (spec->bind && spec->bind[count]) {
        count++;
    }
    socket->bound = calloc((size_t)count + 1, sizeof *socket->bound);
    if (!socket->bound) {
        return error_set(err, ERROR_MEMORY, "no memory for %d endpoints", count);
    }
    for (int i = 0; i < count; i++) {
        size_t size = ADDRESS_SIZE;
        if (!address_check_bind(spec->bind[i], socket->guard || spec->insecure, err) ||
            !zmq_ok(zmq_bind(socket->zmq, spec->bind[i]), "bind", spec->bind[i], err) ||
            !zmq_ok(zmq_getsockopt(socket->zmq, ZMQ_LAST_ENDPOINT, socket->bound[i], &size), "endpoint of",
                    spec->bind[i], err)) {
            return false;
        }
        socket->bound_count++;
    }
    return true;
}

static bool connect_all(struct wire_socket *socket, const struct wire_socket_spec *spec, struct error *err) {
    for (const char *const *endpoint = spec->connect; endpoint && *endpoint; endpoint++) {
        if (!zmq_ok(zmq_connect(socket->zmq, *endpoint), "connect", *endpoint, err)) {
            return false;
        }
    }
    return true;
}

static bool set_heartbeat(struct wire_socket *socket, int interval_ms, struct error *err) {
    return interval_ms <= 0 ||
           (set_int(socket, ZMQ_HEARTBEAT_IVL, interval_ms, "HEARTBEAT_IVL", err) &&
            set_int(socket, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_MISSES * interval_ms, "HEARTBEAT_TIMEOUT",
                    err) &&
            set_int(socket, ZMQ_HEARTBEAT_TTL, HEARTBEAT_MISSES * interval_ms, "HEARTBEAT_TTL", err));
}

static bool wants_ipv6(const struct wire_socket_spec *spec) {
    const char *const *lists[] = {spec->bind, spec->connect};
    for (int i = 0; i < 2; i++) {
        for (const char *const *endpoint = lists[i]; endpoint && *endpoint; endpoint++) {
            if (strncmp(*endpoint, "tcp://[", 7) == 0) {
                return true;
            }
        }
    }
    return false;
}

static bool set_options(struct wire_socket *socket, const struct wire_socket_spec *spec, struct error *err) {
    int64_t frame = spec->max_frame_bytes ? spec->max_frame_bytes : DEFAULT_FRAME_BYTES;
    const struct {
        int option, value;
        const char *name;
        bool wanted;
    } rows[] = {
        {ZMQ_SNDHWM, spec->send_limit, "SNDHWM", spec->send_limit > 0},
        {ZMQ_RCVHWM, spec->receive_limit, "RCVHWM", spec->receive_limit > 0},
        {ZMQ_LINGER, spec->linger_ms, "LINGER", true},
        {ZMQ_RECONNECT_IVL, RECONNECT_FIRST_MS, "RECONNECT_IVL", true},
        {ZMQ_RECONNECT_IVL_MAX, RECONNECT_LAST_MS, "RECONNECT_IVL_MAX", true},
        {ZMQ_IPV6, 1, "IPV6", wants_ipv6(spec)},
        {ZMQ_ROUTER_MANDATORY, 1, "ROUTER_MANDATORY", spec->kind == WIRE_ROUTER && spec->router_mandatory},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].wanted && !set_int(socket, rows[i].option, rows[i].value, rows[i].name, err)) {
            return false;
        }
    }
    return zmq_ok(zmq_setsockopt(socket->zmq, ZMQ_MAXMSGSIZE, &frame, sizeof frame), "ZeroMQ option",
                  "MAXMSGSIZE", err) &&
           (!spec->identity ||
            zmq_ok(zmq_setsockopt(socket->zmq, ZMQ_ROUTING_ID, spec->identity, strlen(spec->identity)),
                   "ZeroMQ option", "ROUTING_ID", err)) &&
           set_heartbeat(socket, spec->heartbeat_ms, err);
}

static struct wire_socket *open_watch(struct wire_context *context, struct wire_socket *socket, struct error *err) {
    char endpoint[64]; /* the time makes it new, where memory is used again */
    snprintf(endpoint, sizeof endpoint, "inproc://watch-%p-%lld", (void *)socket, (long long)clock_now_ns());
    const char *const connect[] = {endpoint, NULL};
    if (!zmq_ok(zmq_socket_monitor(socket->zmq, endpoint,
                                   ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED | HANDSHAKE_FAILED),
                "watch a socket", "", err)) {
        return NULL;
    }
    struct wire_socket *watch =
        wire_socket_open(context, &(struct wire_socket_spec){.kind = WIRE_PAIR, .connect = connect}, err);
    if (watch) {
        watch->watched = socket->zmq;
    } else {
        zmq_socket_monitor(socket->zmq, NULL, 0);
    }
    return watch;
}

/** Binds and connects; watched for before, since the first handshake may be over at once. */
static bool attach(struct wire_context *context, struct wire_socket *socket, const struct wire_socket_spec *spec,
                   struct error *err) {
    return (!spec->watch || (*spec->watch = open_watch(context, socket, err))) && bind_all(socket, spec, err) &&
           connect_all(socket, spec, err);
}

struct wire_socket *wire_socket_open(struct wire_context *context, const struct wire_socket_spec *spec,
                                     struct error *err) {
    static const int kinds[] = {
        [WIRE_ROUTER] = ZMQ_ROUTER, [WIRE_DEALER] = ZMQ_DEALER, [WIRE_REQ] = ZMQ_REQ,
        [WIRE_XPUB] = ZMQ_XPUB,     [WIRE_SUB] = ZMQ_SUB,       [WIRE_PAIR] = ZMQ_PAIR};
    struct wire_socket *socket = calloc(1, sizeof *socket);
    if (spec->watch) {
        *spec->watch = NULL;
    }
    if (!socket) {
        error_set(err, ERROR_MEMORY, "no memory for a socket");
        return NULL;
    }
    socket->send_timeout_ms = socket->receive_timeout_ms = -1; /* ZeroMQ's own start value */
    socket->zmq = zmq_socket(context->zmq, kinds[spec->kind]);
    if (!zmq_ok(socket->zmq ? 0 : -1, "open a socket", "", err) || !set_options(socket, spec, err) ||
        !secure(context, socket, spec, err) || !attach(context, socket, spec, err)) {
        if (spec->watch) {
            wire_socket_close(*spec->watch);
            *spec->watch = NULL;
        }
        wire_socket_close(socket);
        return NULL;
    }
    return socket;
}

void wire_socket_close(struct wire_socket *socket) {
    if (!socket) {
        return;
    }
    if (socket->watched) {
        zmq_socket_monitor(socket->watched, NULL, 0);
    }
    if (socket->zmq) {
        zmq_close(socket->zmq);
    }
    free(socket->bound);
    free(socket);
}

const char *wire_socket_bound(struct wire_socket *socket, int i, char *out, size_t size) {
    if (i < 0 || i >= socket->bound_count || strlen(socket->bound[i]) >= size) {
        return NULL;
    }
    snprintf(out, size, "%s", socket->bound[i]);
    return out;
}

bool wire_subscribe(struct wire_socket *socket, const char *prefix, struct error *err) {
    return zmq_ok(zmq_setsockopt(socket->zmq, ZMQ_SUBSCRIBE, prefix, strlen(prefix)), "subscribe", prefix,
                  err);
}

/** Tells ZeroMQ how long the next blocking call may take, where that differs from the last one. */
static bool set_timeout(struct wire_socket *socket, int option, int *current, int64_t timeout_ms,
                        struct error *err) {
    int wanted = timeout_ms < 0 ? -1 : timeout_ms > INT32_MAX ? INT32_MAX : (int)timeout_ms;
    if (wanted == *current) {
        return true;
    }
    *current = wanted;
    return set_int(socket, option, wanted, "timeout", err);
}

bool wire_send(struct wire_socket *socket, const struct wire_frame *frames, int count, int64_t timeout_ms,
               struct error *err) {
    if (!set_timeout(socket, ZMQ_SNDTIMEO, &socket->send_timeout_ms, timeout_ms, err)) {
        return false;
    }
    for (int i = 0; i < count; i++) {
        zmq_msg_t part;
        if (!zmq_ok(zmq_msg_init_size(&part, frames[i].size), "send: memory for a frame", "", err)) {
            return false;
        }
        if (frames[i].size) {
            memcpy(zmq_msg_data(&part), frames[i].data, frames[i].size);
        }
        /* Where the peer goes in the middle of a message, a blocking send drops the part in silence and would
         * let the next one begin a new message; a non-blocking one says so. Later parts never have to wait.
         */
        int flags = (i + 1 < count ? ZMQ_SNDMORE : 0) | (i > 0 ? ZMQ_DONTWAIT : 0);
        if (!zmq_ok(zmq_msg_send(&part, socket->zmq, flags), "send", "", err)) {
            zmq_msg_close(&part);
            return i == 0 ? false
                          : error_set(err, ERROR_PEER, "send: the peer went while frame %d was sent", i);
        }
    }
    return true;
}

void wire_message_fini(struct wire_message *message) {
    struct parts *parts = message->opaque;
    for (int i = 0; parts && i < parts->count; i++) {
        zmq_msg_close(&parts->parts[i]);
    }
    free(parts);
    memset(message, 0, sizeof *message);
}

/** Takes what is left of a message that has too many frames, so that the next receive starts at a message. */
static void discard_rest(struct wire_socket *socket) {
    zmq_msg_t part;
    bool more = true;
    while (more) {
        zmq_msg_init(&part);
        more = zmq_msg_recv(&part, socket->zmq, ZMQ_DONTWAIT) >= 0 && zmq_msg_more(&part);
        zmq_msg_close(&part);
    }
}

/** Receives all parts of one message. Messages arrive whole: only the first part is waited for. */
static bool receive_parts(struct wire_socket *socket, struct parts *parts, struct error *err) {
    bool more = true;
    while (more) {
        if (parts->count == WIRE_MAX_FRAMES) {
            discard_rest(socket);
            return error_set(err, ERROR_TOO_LARGE, "a message of more than %d frames was dropped",
                             WIRE_MAX_FRAMES);
        }
        zmq_msg_t *part = &parts->parts[parts->count];
        zmq_msg_init(part);
        parts->count++;
        if (!zmq_ok(zmq_msg_recv(part, socket->zmq, 0), "receive", "", err)) {
            return false;
        }
        more = zmq_msg_more(part);
    }
    return true;
}

/** Who sent a message that came through a guarded socket; false where the list no longer has it. */
static bool check_peer(struct wire_socket *socket, struct parts *parts, struct wire_peer *out,
                       struct error *err) {
    /* The last frame: the first is the identity that ROUTER adds, which has no properties where the message was
     * polled for (libzmq 4.3). */
    const char *key = zmq_msg_gets(&parts->parts[parts->count - 1], "User-Id");
    if (key && wire_security_find(socket->guard, key, socket->roles, out)) {
        return true;
    }
    wire_security_refused(socket->guard, "message", key ? key : "");
    return error_set(err, ERROR_BUSY, "a message of a peer that is not allowed here was dropped");
}

bool wire_receive(struct wire_socket *socket, struct wire_message *message, int64_t timeout_ms,
                  struct error *err) {
    memset(message, 0, sizeof *message);
    if (!set_timeout(socket, ZMQ_RCVTIMEO, &socket->receive_timeout_ms, timeout_ms, err)) {
        return false;
    }
    struct parts *parts = calloc(1, sizeof *parts);
    if (!parts) {
        return error_set(err, ERROR_MEMORY, "no memory for a message");
    }
    message->opaque = parts;
    if (!receive_parts(socket, parts, err) ||
        (socket->guard && !check_peer(socket, parts, &message->peer, err))) {
        wire_message_fini(message);
        return false;
    }
    message->count = parts->count;
    for (int i = 0; i < parts->count; i++) {
        message->frames[i].data = zmq_msg_data(&parts->parts[i]);
        message->frames[i].size = zmq_msg_size(&parts->parts[i]);
    }
    return true;
}

bool wire_watch_next(struct wire_socket *watch, enum wire_event *out) {
    struct wire_message message = {0};
    uint16_t event = 0; /* the first two bytes of the first frame (zmq_socket_monitor) */
    if (!wire_receive(watch, &message, 0, NULL)) {
        return false;
    }
    if (message.frames[0].size >= sizeof event) {
        memcpy(&event, message.frames[0].data, sizeof event);
    }
    wire_message_fini(&message);
    *out = event == ZMQ_EVENT_DISCONNECTED ? WIRE_DISCONNECTED
           : event & HANDSHAKE_FAILED      ? WIRE_HANDSHAKE_FAILED
                                           : WIRE_CONNECTED;
    return true;
}

int wire_poll(struct wire_poll_item *items, int count, int64_t timeout_ms, struct error *err) {
    zmq_pollitem_t poll[POLL_LIMIT];
    if (count < 0 || count > POLL_LIMIT) {
        error_set(err, ERROR_INVALID, "poll of %d entries: at most %d", count, POLL_LIMIT);
        return -1;
    }
    for (int i = 0; i < count; i++) {
        poll[i] = (zmq_pollitem_t){.socket = items[i].socket ? items[i].socket->zmq : NULL,
                                   .fd = items[i].descriptor,
                                   .events = ZMQ_POLLIN};
        items[i].readable = false;
    }
    int ready = zmq_poll(poll, count, timeout_ms < 0 ? -1 : (long)timeout_ms);
    if (ready < 0 && errno == EINTR) {
        return 0;
    }
    if (!zmq_ok(ready, "poll", "", err)) {
        return -1;
    }
    for (int i = 0; i < count; i++) {
        items[i].readable = (poll[i].revents & (ZMQ_POLLIN | ZMQ_POLLERR)) != 0;
    }
    return ready;
}
