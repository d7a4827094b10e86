#pragma once
#include "common/base/digest.h"
#include "inferd/subscriber.h"
#include "trainerd/publisher.h"

#include <stdatomic.h>

/*
 * A publisher and its members in one process, with daemons that only pretend to load a model. Times are short
 * so that the tests are: what is asserted is order and outcome, never speed.
 */

enum { HEARTBEAT_MS = 100, RETRY_MS = 300, WAIT_MS = 60000, SMALL_BYTES = 700 * 1000, MEMBERS = 3 };

/** What all pretended daemons of a test share. */
struct pool {
    char folder[64];
    char announce[128], control[128], blobs[128];
    struct wire_security *security; /* of the publisher; NULL: clear text */
    struct publisher *publisher;
    atomic_int activating, most_activating; /* how many at once, and the most ever */
    atomic_int activation_ms;
};

/** One pretended inferd. */
struct daemon {
    struct pool *pool;
    char name[32], store[128];
    struct subscriber *subscriber;
    struct subscriber_spec spec;
    atomic_int activations;
    atomic_bool fail;
};

/** A pool on that folder: fills in its endpoints. */
void pool_name(struct pool *pool, const char *folder);
/** For cmocka: a folder and endpoints of its own for each test. */
int pool_setup(void **state);
int pool_teardown(void **state);
/** inspects: files must be models. */
void start_inspecting_publisher(struct pool *pool, enum publisher_activate activate, bool inspects);
void start_publisher(struct pool *pool, enum publisher_activate activate);
/** Bytes that only this seed gives. Owned. */
void *model_bytes(uint32_t seed, size_t size);
/** Publishes model_bytes under the version `seed`. */
struct digest publish(struct pool *pool, uint32_t seed, size_t size);
void daemon_init(struct daemon *daemon, struct pool *pool, int i);
/** Makes the subscriber, without its threads. */
void daemon_open(struct daemon *daemon);
void daemon_run(struct daemon *daemon);
void daemon_stop(struct daemon *daemon);
bool runs(struct daemon *daemon, const struct digest *digest);
/** What the pool is to run could not be fetched or activated here. */
bool failed(struct daemon *daemon, const struct digest *digest);
/** Waits until reached, and fails the test where that takes too long. */
void wait_for(struct daemon *daemon, const struct digest *digest,
              bool (*reached)(struct daemon *, const struct digest *));
/** Until the model is stable: its rollout is done. */
void wait_stable(struct pool *pool, const struct digest *digest);
void wait_all(struct daemon *daemons, int count, const struct digest *digest);
void run_all(struct pool *pool, struct daemon *daemons, int count);
void stop_all(struct daemon *daemons, int count);
