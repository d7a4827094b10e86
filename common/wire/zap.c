#include "common/wire/zap.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

/* The frames of a request: version, request id, domain, address, identity, mechanism, CURVE's public key. */
enum { VERSION, REQUEST_ID, DOMAIN, MECHANISM = 5, CREDENTIAL, FRAMES, FRAME_SIZE = 256, KEY_SIZE = 32 };

struct zap {
    void *socket; /* the thread's, once it runs */
    struct wire_security *security;
    pthread_t thread;
};

/** A request; frames that are longer than the room for them count as empty, and fit nothing. */
struct request {
    int count;
    size_t sizes[FRAMES];
    char frames[FRAMES][FRAME_SIZE];
};

const char *zap_domain(unsigned roles, char out[ZAP_DOMAIN_SIZE]) {
    snprintf(out, ZAP_DOMAIN_SIZE, "roles-%u", roles);
    return out;
}

/** False: the context ends, or the socket fails. */
static bool receive(void *socket, struct request *request) {
    int more = 1;
    *request = (struct request){0};
    while (more) {
        char frame[FRAME_SIZE];
        size_t size = sizeof more;
        int got = zmq_recv(socket, frame, sizeof frame, 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return false;
        }
        if (request->count < FRAMES && got < FRAME_SIZE) {
            memcpy(request->frames[request->count], frame, (size_t)got);
            request->sizes[request->count] = (size_t)got;
        }
        request->count++;
        if (zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size) < 0) {
            return false;
        }
    }
    return true;
}

/** The roles that the socket's domain names; 0: none of ours. The domain is what we told the socket. */
static unsigned domain_roles(const char *domain) {
    return strncmp(domain, "roles-", 6) == 0 ? (unsigned)strtoul(domain + 6, NULL, 10) : 0;
}

static bool allowed(struct zap *zap, const struct request *request, char key[CURVE_TEXT_SIZE]) {
    struct wire_peer peer;
    key[0] = '\0';
    if (request->count != FRAMES || strcmp(request->frames[VERSION], "1.0") != 0 ||
        strcmp(request->frames[MECHANISM], "CURVE") != 0 || request->sizes[CREDENTIAL] != KEY_SIZE ||
        !zmq_z85_encode(key, (const uint8_t *)request->frames[CREDENTIAL], KEY_SIZE)) {
        return false;
    }
    return wire_security_find(zap->security, key, domain_roles(request->frames[DOMAIN]), &peer);
}

/** 300 and not 400: behind a 400 libzmq never connects again, and a peer may be added to the list. Behind a
 * 300 the connection ends by ZMQ_HANDSHAKE_IVL. */
static bool reply(struct zap *zap, const struct request *request, bool ok, const char *key) {
    const struct {
        const char *data;
        size_t size;
    } frames[] = {{"1.0", 3},
                  {request->frames[REQUEST_ID], request->sizes[REQUEST_ID]},
                  {ok ? "200" : "300", 3},
                  {ok ? "OK" : "not allowed", ok ? 2 : 11},
                  {key, ok ? strlen(key) : 0},
                  {"", 0}};
    enum { COUNT = sizeof frames / sizeof *frames };
    for (int i = 0; i < COUNT; i++) {
        if (zmq_send(zap->socket, frames[i].data, frames[i].size, i + 1 < COUNT ? ZMQ_SNDMORE : 0) < 0) {
            return false;
        }
    }
    return true;
}

static void *run(void *context) {
    struct zap *zap = context;
    struct request request;
    while (receive(zap->socket, &request)) {
        char key[CURVE_TEXT_SIZE];
        bool ok = allowed(zap, &request, key);
        if (!ok) {
            wire_security_refused(zap->security, "connection", key);
        }
        if (!reply(zap, &request, ok, key)) {
            break;
        }
    }
    zmq_close(zap->socket);
    return NULL;
}

/** Signals are for the threads that wait for them. */
static bool start_thread(struct zap *zap) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool ok = pthread_create(&zap->thread, NULL, run, zap) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return ok;
}

struct zap *zap_start(void *zmq_context, struct wire_security *security, struct error *err) {
    struct zap *zap = calloc(1, sizeof *zap);
    int linger = 0;
    if (!zap) {
        error_set(err, ERROR_MEMORY, "out of memory for authentication");
        return NULL;
    }
    zap->security = security;
    zap->socket = zmq_socket(zmq_context, ZMQ_REP);
    if (zap->socket && zmq_setsockopt(zap->socket, ZMQ_LINGER, &linger, sizeof linger) == 0 &&
        zmq_bind(zap->socket, "inproc://zeromq.zap.01") == 0 && start_thread(zap)) {
        return zap;
    }
    error_set(err, ERROR_IO, "authentication does not start: %s", zmq_strerror(errno));
    if (zap->socket) {
        zmq_close(zap->socket);
    }
    free(zap);
    return NULL;
}

void zap_join(struct zap *zap) {
    if (zap) {
        pthread_join(zap->thread, NULL);
        free(zap);
    }
}

const struct wire_security *zap_security(const struct zap *zap) {
    return zap->security;
}
