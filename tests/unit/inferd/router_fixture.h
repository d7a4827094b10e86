#pragma once
#include "inferd/router.h"
#include <pthread.h>
#include <stdatomic.h>

/** A router on a free port of the loopback interface, run by a thread of its own until router_fixture_stop.
 */
struct router_fixture {
    struct router *router;
    char endpoint[128];
    pthread_t thread;
    atomic_bool stop;
    bool drained; /**< after router_fixture_stop: what router_drain returned */
};

/** In front of these members: small queue, small messages, quick heartbeats. members is borrowed for the
 * router's life. */
struct router_spec router_fixture_spec(const char *const *members, int count);

/** Fails the test where the router does not start. */
void router_fixture_start(struct router_fixture *fixture, const struct router_spec *spec);
/** Has the router drain and waits for its thread. */
void router_fixture_stop(struct router_fixture *fixture);
/** Waits until so many members take requests; fails the test where that takes too long. */
void router_fixture_wait(struct router_fixture *fixture, int members);
