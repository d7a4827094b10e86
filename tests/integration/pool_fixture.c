#include "tests/integration/pool_fixture.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/rng.h"
#include "trainerd/publisher_inspect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

void pool_name(struct pool *pool, const char *folder) {
    *pool = (struct pool){0};
    snprintf(pool->folder, sizeof pool->folder, "%s", folder);
    snprintf(pool->announce, sizeof pool->announce, "ipc://%s/announce", folder);
    snprintf(pool->control, sizeof pool->control, "ipc://%s/control", folder);
    snprintf(pool->blobs, sizeof pool->blobs, "ipc://%s/blobs", folder);
}

int pool_setup(void **state) {
    struct pool *pool = calloc(1, sizeof *pool);
    char folder[] = "/tmp/thorax-pool-XXXXXX";
    assert_non_null(mkdtemp(folder));
    pool_name(pool, folder);
    *state = pool;
    return 0;
}

int pool_teardown(void **state) {
    struct pool *pool = *state;
    publisher_destroy(pool->publisher);
    assert_true(file_remove_tree(pool->folder, NULL));
    free(pool);
    return 0;
}

void start_inspecting_publisher(struct pool *pool, enum publisher_activate activate, bool inspects) {
    char store[128];
    struct error err = {0};
    snprintf(store, sizeof store, "%s/publisher", pool->folder);
    struct publisher_spec spec = {
        .announce = pool->announce,
        .control = pool->control,
        .blobs = pool->blobs,
        .store_folder = store,
        .heartbeat_ms = HEARTBEAT_MS,
        .security = pool->security,
        .activate = activate,
        .inspect = inspects ? publisher_inspect_model : NULL,
    };
    pool->publisher = publisher_create(&spec, &err);
    assert_string_equal(err.message, "");
    assert_non_null(pool->publisher);
}

void start_publisher(struct pool *pool, enum publisher_activate activate) {
    start_inspecting_publisher(pool, activate, false);
}

void *model_bytes(uint32_t seed, size_t size) {
    uint32_t *data = malloc(size + 16);
    for (size_t i = 0; i * 4 < size; i += 4) {
        struct rng_block block = rng_philox(seed, RNG_TEST, i);
        memcpy(data + i, block.v, sizeof block.v);
    }
    return data;
}

struct digest publish(struct pool *pool, uint32_t seed, size_t size) {
    char path[128], name[16];
    snprintf(path, sizeof path, "%s/model", pool->folder);
    snprintf(name, sizeof name, "%u", (unsigned)seed);
    void *data = model_bytes(seed, size);
    struct error err = {0};
    struct publisher_published published;
    assert_true(file_write_atomic(path, data, size, NULL));
    free(data);
    publisher_publish_file(pool->publisher, path, "chest", name, &published, &err);
    assert_string_equal(err.message, "");
    return published.digest;
}

static bool pretend(void *context, const char *path, const struct digest *digest, struct error *err) {
    struct daemon *daemon = context;
    struct pool *pool = daemon->pool;
    int now = atomic_fetch_add(&pool->activating, 1) + 1, most = atomic_load(&pool->most_activating);
    while (now > most && !atomic_compare_exchange_weak(&pool->most_activating, &most, now)) {
    }
    struct digest found = {{0}};
    bool ok = digest_file(path, &found, err);
    assert_true(!ok ||
                digest_equal(&found, digest)); /* what is handed over is always the whole, right file */
    clock_sleep_ms(atomic_load(&pool->activation_ms));
    atomic_fetch_add(&daemon->activations, 1);
    atomic_fetch_sub(&pool->activating, 1);
    return ok && (!atomic_load(&daemon->fail) || error_set(err, ERROR_INVALID, "golden image 2 differs"));
}

void daemon_init(struct daemon *daemon, struct pool *pool, int i) {
    *daemon = (struct daemon){.pool = pool};
    snprintf(daemon->name, sizeof daemon->name, "member-%d", i);
    snprintf(daemon->store, sizeof daemon->store, "%s/member-%d", pool->folder, i);
    daemon->spec = (struct subscriber_spec){
        .announce = pool->announce,
        .control = pool->control,
        .blobs = pool->blobs,
        .member = daemon->name,
        .store_folder = daemon->store,
        .heartbeat_ms = HEARTBEAT_MS,
        .retry_ms = RETRY_MS,
        .activate = pretend,
        .context = daemon,
    };
}

void daemon_open(struct daemon *daemon) {
    struct error err = {0};
    daemon->subscriber = subscriber_create(&daemon->spec, &err);
    assert_string_equal(err.message, "");
}

void daemon_run(struct daemon *daemon) {
    daemon_open(daemon);
    assert_true(subscriber_start(daemon->subscriber, NULL));
}

void daemon_stop(struct daemon *daemon) {
    subscriber_destroy(daemon->subscriber);
    daemon->subscriber = NULL;
}

bool runs(struct daemon *daemon, const struct digest *digest) {
    struct subscriber_status status;
    subscriber_status(daemon->subscriber, &status);
    return status.has_active && digest_equal(&status.active, digest);
}

bool failed(struct daemon *daemon, const struct digest *digest) {
    struct subscriber_status status;
    subscriber_status(daemon->subscriber, &status);
    return status.phase == SUBSCRIBER_FAILED && digest_equal(&status.target, digest);
}

void wait_for(struct daemon *daemon, const struct digest *digest,
              bool (*reached)(struct daemon *, const struct digest *)) {
    int64_t deadline_ms = clock_now_ms() + WAIT_MS;
    while (!reached(daemon, digest)) {
        assert_true(clock_now_ms() < deadline_ms);
        clock_sleep_ms(5);
    }
}

void wait_stable(struct pool *pool, const struct digest *digest) {
    struct publisher_status status = {0};
    for (int64_t deadline_ms = clock_now_ms() + WAIT_MS; !status.has_current || !digest_equal(&status.current, digest);) {
        assert_true(clock_now_ms() < deadline_ms);
        assert_true(publisher_status(pool->publisher, &status, NULL));
        clock_sleep_ms(5);
    }
}

void wait_all(struct daemon *daemons, int count, const struct digest *digest) {
    for (int i = 0; i < count; i++)
        wait_for(&daemons[i], digest, runs);
}

void run_all(struct pool *pool, struct daemon *daemons, int count) {
    for (int i = 0; i < count; i++) {
        daemon_init(&daemons[i], pool, i);
        daemon_run(&daemons[i]);
    }
}

void stop_all(struct daemon *daemons, int count) {
    for (int i = 0; i < count; i++)
        daemon_stop(&daemons[i]);
}
