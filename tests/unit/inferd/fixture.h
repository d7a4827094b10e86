#pragma once
#include "common/base/file.h"
#include "inferd/server.h"
#include <pthread.h>

/** A server on a free port of the loopback interface, run by a thread of its own until fixture_stop. */
struct fixture {
    struct slot *slot;
    struct server *server;
    char endpoint[128];
    pthread_t thread;
    atomic_bool stop;
    bool drained; /**< after fixture_stop: what server_drain returned */
    int64_t drain_ms;
};

/** Sizes that suit tests: small queue, small messages. */
struct server_spec fixture_spec(void);

/** Fails the test where the server does not start. model: taken; NULL: none yet. */
void fixture_start(struct fixture *fixture, const struct server_spec *spec, struct model *model);
/** Has the server drain and waits for its thread. */
void fixture_stop(struct fixture *fixture);

/** A grey PNG of 64 x 48 pixels, drawn from seed: different seeds, different bytes. Owned, free(data). */
struct bytes fixture_image(uint64_t seed);
