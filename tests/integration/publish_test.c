#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/pool/message.h"
#include "common/wire/endpoint.h"
#include "inferd/subscriber.h"
#include "trainerd/publisher.h"
#include "trainerd/publisher_inspect.h"
#include "trainerd/trainctl/models.h"
#include "trainerd/trainctl/publish.h"
#include "trainerd/trainctl/upload.h"

#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/*
 * A publisher and its members in one process, with daemons that only pretend to load a model. Times are short so that the test is:
 * what is asserted is order and outcome, never speed.
 */

enum { HEARTBEAT_MS = 100, RETRY_MS = 300, WAIT_MS = 60000, SMALL_BYTES = 700 * 1000, MEMBERS = 3 };

/** What all pretended daemons of a test share. */
struct pool {
    char folder[64];
    char announce[128], control[128], blobs[128];
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

static int setup(void **state) {
    struct pool *pool = calloc(1, sizeof *pool);
    snprintf(pool->folder, sizeof pool->folder, "/tmp/thorax-pool-XXXXXX");
    assert_non_null(mkdtemp(pool->folder));
    snprintf(pool->announce, sizeof pool->announce, "ipc://%s/announce", pool->folder);
    snprintf(pool->control, sizeof pool->control, "ipc://%s/control", pool->folder);
    snprintf(pool->blobs, sizeof pool->blobs, "ipc://%s/blobs", pool->folder);
    *state = pool;
    return 0;
}

static int teardown(void **state) {
    struct pool *pool = *state;
    publisher_destroy(pool->publisher);
    assert_true(file_remove_tree(pool->folder, NULL));
    free(pool);
    return 0;
}

static void start_inspecting_publisher(struct pool *pool, enum publisher_activate activate, bool inspects) {
    char store[128];
    struct error err = {0};
    snprintf(store, sizeof store, "%s/publisher", pool->folder);
    struct publisher_spec spec = {
        .announce = pool->announce,
        .control = pool->control,
        .blobs = pool->blobs,
        .store_folder = store,
        .heartbeat_ms = HEARTBEAT_MS,
        .activate = activate,
        .inspect = inspects ? publisher_inspect_model : NULL,
    };
    pool->publisher = publisher_create(&spec, &err);
    assert_string_equal(err.message, "");
    assert_non_null(pool->publisher);
}

static void start_publisher(struct pool *pool, enum publisher_activate activate) {
    start_inspecting_publisher(pool, activate, false);
}

/** Bytes that only this seed gives. Owned. */
static void *model_bytes(uint32_t seed, size_t size) {
    uint32_t *data = malloc(size + 16);
    for (size_t i = 0; i * 4 < size; i += 4) {
        struct rng_block block = rng_philox(seed, RNG_TEST, i);
        memcpy(data + i, block.v, sizeof block.v);
    }
    return data;
}

static struct digest publish(struct pool *pool, uint32_t seed, size_t size) {
    char path[128], name[16];
    snprintf(path, sizeof path, "%s/model", pool->folder);
    snprintf(name, sizeof name, "%u", (unsigned)seed);
    void *data = model_bytes(seed, size);
    struct error err = {0};
    struct digest digest;
    assert_true(file_write_atomic(path, data, size, NULL));
    free(data);
    publisher_publish_file(pool->publisher, path, "chest", name, &digest, &err);
    assert_string_equal(err.message, "");
    return digest;
}

static bool pretend(void *context, const char *path, const struct digest *digest, struct error *err) {
    struct daemon *daemon = context;
    struct pool *pool = daemon->pool;
    int now = atomic_fetch_add(&pool->activating, 1) + 1, most = atomic_load(&pool->most_activating);
    while (now > most && !atomic_compare_exchange_weak(&pool->most_activating, &most, now)) {
    }
    struct digest found = {{0}};
    bool ok = digest_file(path, &found, err);
    assert_true(!ok || digest_equal(&found, digest)); /* what is handed over is always the whole, right file */
    clock_sleep_ms(atomic_load(&pool->activation_ms));
    atomic_fetch_add(&daemon->activations, 1);
    atomic_fetch_sub(&pool->activating, 1);
    return ok && (!atomic_load(&daemon->fail) || error_set(err, ERROR_INVALID, "golden image 2 differs"));
}

static void daemon_init(struct daemon *daemon, struct pool *pool, int i) {
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

static void daemon_open(struct daemon *daemon) {
    struct error err = {0};
    daemon->subscriber = subscriber_create(&daemon->spec, &err);
    assert_string_equal(err.message, "");
}

static void daemon_run(struct daemon *daemon) {
    daemon_open(daemon);
    assert_true(subscriber_start(daemon->subscriber, NULL));
}

static void daemon_stop(struct daemon *daemon) {
    subscriber_destroy(daemon->subscriber);
    daemon->subscriber = NULL;
}

static bool runs(struct daemon *daemon, const struct digest *digest) {
    struct subscriber_status status;
    subscriber_status(daemon->subscriber, &status);
    return status.has_active && digest_equal(&status.active, digest);
}

static bool failed(struct daemon *daemon, const struct digest *digest) {
    struct subscriber_status status;
    subscriber_status(daemon->subscriber, &status);
    return status.phase == SUBSCRIBER_FAILED && digest_equal(&status.target, digest);
}

static void wait_for(struct daemon *daemon, const struct digest *digest,
                     bool (*reached)(struct daemon *, const struct digest *)) {
    int64_t deadline_ms = clock_now_ms() + WAIT_MS;
    while (!reached(daemon, digest)) {
        assert_true(clock_now_ms() < deadline_ms);
        clock_sleep_ms(5);
    }
}

static void wait_all(struct daemon *daemons, int count, const struct digest *digest) {
    for (int i = 0; i < count; i++)
        wait_for(&daemons[i], digest, runs);
}

static void run_all(struct pool *pool, struct daemon *daemons, int count) {
    for (int i = 0; i < count; i++) {
        daemon_init(&daemons[i], pool, i);
        daemon_run(&daemons[i]);
    }
}

static void stop_all(struct daemon *daemons, int count) {
    for (int i = 0; i < count; i++)
        daemon_stop(&daemons[i]);
}

static void members_activate_one_after_the_other(void **state) {
    struct pool *pool = *state;
    struct daemon daemons[MEMBERS];
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    atomic_store(&pool->activation_ms, 150);
    run_all(pool, daemons, MEMBERS);
    struct digest digest = publish(pool, 1, SMALL_BYTES);
    wait_all(daemons, MEMBERS, &digest);
    stop_all(daemons, MEMBERS);
    assert_int_equal(atomic_load(&pool->most_activating), 1);
    for (int i = 0; i < MEMBERS; i++)
        assert_int_equal(atomic_load(&daemons[i].activations), 1);
}

static void the_publisher_knows_what_its_members_run(void **state) {
    struct pool *pool = *state;
    struct daemon daemons[MEMBERS];
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    run_all(pool, daemons, MEMBERS);
    struct digest digest = publish(pool, 1, SMALL_BYTES);
    struct publisher_status status = {0};
    for (int64_t deadline_ms = clock_now_ms() + WAIT_MS; status.members_current < MEMBERS;) {
        assert_true(clock_now_ms() < deadline_ms);
        assert_true(publisher_status(pool->publisher, &status, NULL));
        clock_sleep_ms(5);
    }
    assert_true(status.has_current && digest_equal(&status.current, &digest));
    assert_int_equal(status.members, MEMBERS);
    assert_int_equal(status.number, 2); /* staged, activate */
    stop_all(daemons, MEMBERS);
}

static void a_member_that_starts_late_gets_the_current_model(void **state) {
    struct pool *pool = *state;
    struct daemon late;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    publish(pool, 1, SMALL_BYTES);
    struct digest digest = publish(pool, 2, SMALL_BYTES);
    daemon_init(&late, pool, 0);
    daemon_run(&late);
    wait_for(&late, &digest, runs);
    daemon_stop(&late);
    assert_int_equal(atomic_load(&late.activations), 1);
}

static void a_member_that_starts_before_the_publisher_converges(void **state) {
    struct pool *pool = *state;
    struct daemon early;
    daemon_init(&early, pool, 0);
    daemon_run(&early);
    clock_sleep_ms(6 * HEARTBEAT_MS); /* long enough to give up and try anew */
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    struct digest digest = publish(pool, 1, SMALL_BYTES);
    wait_for(&early, &digest, runs);
    daemon_stop(&early);
}

static void without_a_publisher_a_restarted_member_has_its_last_model(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    daemon_init(&daemon, pool, 0);
    daemon_open(&daemon);
    char path[PATH_MAX];
    struct digest last, found;
    struct error err = {0};
    assert_false(subscriber_last_model(daemon.subscriber, path, sizeof path, &last, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    assert_true(subscriber_start(daemon.subscriber, NULL));
    struct digest first = publish(pool, 1, SMALL_BYTES);
    wait_for(&daemon, &first, runs);
    struct digest second = publish(pool, 2, SMALL_BYTES);
    wait_for(&daemon, &second, runs);
    daemon_stop(&daemon);
    publisher_destroy(pool->publisher);
    pool->publisher = NULL;
    daemon_open(&daemon);
    assert_true(subscriber_last_model(daemon.subscriber, path, sizeof path, &last, NULL));
    assert_true(digest_equal(&last, &second));
    assert_true(digest_file(path, &found, NULL) && digest_equal(&found, &second));
    /* A damaged file must not serve: the model before it does. */
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(truncate(path, SMALL_BYTES - 1), 0);
    assert_true(subscriber_last_model(daemon.subscriber, path, sizeof path, &last, NULL));
    assert_true(digest_equal(&last, &first));
    daemon_stop(&daemon);
}

static void a_restarted_member_does_not_activate_again_what_it_runs(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    struct digest first = publish(pool, 1, SMALL_BYTES), last;
    daemon_init(&daemon, pool, 0);
    daemon_run(&daemon);
    wait_for(&daemon, &first, runs);
    daemon_stop(&daemon);
    char path[PATH_MAX];
    daemon_open(&daemon);
    assert_true(subscriber_last_model(daemon.subscriber, path, sizeof path, &last, NULL));
    assert_true(subscriber_set_active(daemon.subscriber, &last, NULL));
    assert_true(subscriber_start(daemon.subscriber, NULL));
    struct digest second = publish(pool, 2, SMALL_BYTES);
    wait_for(&daemon, &second, runs);
    daemon_stop(&daemon);
    assert_int_equal(atomic_load(&daemon.activations), 2);
}

static void a_restarted_publisher_goes_on(void **state) {
    struct pool *pool = *state;
    struct daemon daemons[2];
    struct publisher_status before, after;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    run_all(pool, daemons, 1);
    struct digest digest = publish(pool, 1, SMALL_BYTES);
    wait_all(daemons, 1, &digest);
    assert_true(publisher_status(pool->publisher, &before, NULL));
    publisher_destroy(pool->publisher);
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    assert_true(publisher_status(pool->publisher, &after, NULL));
    assert_int_equal(after.number, before.number);
    assert_true(after.has_current && digest_equal(&after.current, &digest));
    daemon_init(&daemons[1], pool, 1); /* the model of the publisher before it is still to be had */
    daemon_run(&daemons[1]);
    wait_all(daemons, 2, &digest);
    digest = publish(pool, 2, SMALL_BYTES);
    wait_all(daemons, 2, &digest);
    stop_all(daemons, 2);
    assert_int_equal(atomic_load(&daemons[0].activations), 2);
}

static void a_model_that_fails_is_reported_and_left_alone_for_a_while(void **state) {
    struct pool *pool = *state;
    struct daemon daemons[2];
    struct subscriber_status status;
    struct publisher_status all;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    run_all(pool, daemons, 2);
    struct digest good = publish(pool, 1, SMALL_BYTES);
    wait_all(daemons, 2, &good);
    atomic_store(&daemons[0].fail, true);
    struct digest bad = publish(pool, 2, SMALL_BYTES);
    wait_for(&daemons[0], &bad, failed);
    wait_for(&daemons[1], &bad, runs); /* one member's failure does not keep the others */
    subscriber_status(daemons[0].subscriber, &status);
    assert_true(digest_equal(&status.active, &good));
    assert_string_equal(status.error.message, "golden image 2 differs");
    clock_sleep_ms(2 * HEARTBEAT_MS);
    assert_true(publisher_status(pool->publisher, &all, NULL));
    assert_int_equal(all.members_current, 1);
    clock_sleep_ms(10 * RETRY_MS); /* pauses of 1, 2, 4, 8 times RETRY_MS: at most four more tries */
    assert_in_range(atomic_load(&daemons[0].activations), 2, 6);
    atomic_store(&daemons[0].fail, false);
    wait_for(&daemons[0], &bad, runs);
    stop_all(daemons, 2);
}

static void a_staged_model_is_fetched_and_not_activated(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    start_publisher(pool, PUBLISHER_ACTIVATE_MANUAL);
    daemon_init(&daemon, pool, 0);
    daemon_run(&daemon);
    struct digest digest = publish(pool, 1, SMALL_BYTES);
    char hex[DIGEST_HEX_SIZE], path[PATH_MAX];
    digest_hex(&digest, hex);
    snprintf(path, sizeof path, "%s/objects/%.2s/%s", daemon.store, hex, hex + 2);
    for (int64_t deadline_ms = clock_now_ms() + WAIT_MS; !file_exists(path); clock_sleep_ms(5))
        assert_true(clock_now_ms() < deadline_ms);
    clock_sleep_ms(5 * HEARTBEAT_MS);
    assert_int_equal(atomic_load(&daemon.activations), 0);
    assert_true(publisher_activate(pool->publisher, &digest, NULL));
    wait_for(&daemon, &digest, runs);
    daemon_stop(&daemon);
}

static void ten_publishes_in_a_row_end_with_the_last(void **state) {
    struct pool *pool = *state;
    struct daemon daemons[MEMBERS];
    struct digest digest = {{0}};
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    run_all(pool, daemons, MEMBERS);
    for (uint32_t i = 1; i <= 10; i++)
        digest = publish(pool, i, SMALL_BYTES);
    wait_all(daemons, MEMBERS, &digest);
    stop_all(daemons, MEMBERS);
    assert_int_equal(atomic_load(&pool->most_activating), 1);
}

static void ten_publishes_one_by_one_reach_everybody(void **state) {
    struct pool *pool = *state;
    struct daemon daemons[MEMBERS];
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    run_all(pool, daemons, MEMBERS);
    for (uint32_t i = 1; i <= 10; i++) {
        struct digest digest = publish(pool, i, SMALL_BYTES);
        wait_all(daemons, MEMBERS, &digest);
    }
    stop_all(daemons, MEMBERS);
    assert_int_equal(atomic_load(&pool->most_activating), 1);
    for (int i = 0; i < MEMBERS; i++) /* none is loaded twice */
        assert_int_equal(atomic_load(&daemons[i].activations), 10);
}

static void a_large_model_reaches_three_members(void **state) {
    struct pool *pool = *state;
    struct daemon daemons[MEMBERS];
    const size_t size = 45 * 1000 * 1000 + 7;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    run_all(pool, daemons, MEMBERS);
    int64_t begin_ms = clock_now_ms();
    struct digest digest = publish(pool, 1, size);
    wait_all(daemons, MEMBERS, &digest);
    print_message("45 MB to %d members: %lld ms\n", MEMBERS, (long long)(clock_now_ms() - begin_ms));
    for (int i = 0; i < MEMBERS; i++) {
        struct subscriber_status status;
        subscriber_status(daemons[i].subscriber, &status);
        assert_int_equal(status.transferred_bytes, size); /* nothing was sent twice */
        assert_int_equal(status.bad_chunks, 0);
    }
    stop_all(daemons, MEMBERS);
}

/* ---- a bad connection: a proxy in front of the blobs socket, for one member ---- */

struct proxy {
    struct pool *pool;
    char endpoint[128];
    atomic_int corrupt;    /* chunks still to be damaged */
    atomic_int pass_bytes; /* chunks are swallowed when so many bytes have passed; negative: never */
    atomic_bool stop;
    pthread_t thread;
};

static void proxy_back(struct proxy *proxy, struct wire_socket *front, const struct wire_message *chunk,
                       const struct wire_frame *route) {
    struct wire_frame frames[3] = {*route, chunk->frames[0], {0}};
    if (chunk->count < 2) {
        wire_send(front, frames, 2, 0, NULL);
        return;
    }
    int left = atomic_load(&proxy->pass_bytes);
    if (left == 0)
        return;
    if (left > 0)
        atomic_store(&proxy->pass_bytes, left > (int)chunk->frames[1].size ? left - (int)chunk->frames[1].size : 0);
    frames[2] = chunk->frames[1];
    uint8_t *copy = malloc(frames[2].size);
    memcpy(copy, frames[2].data, frames[2].size);
    if (atomic_load(&proxy->corrupt) > 0) {
        atomic_fetch_sub(&proxy->corrupt, 1);
        copy[frames[2].size / 2] ^= 1;
    }
    frames[2].data = copy;
    wire_send(front, frames, 3, 0, NULL);
    free(copy);
}

static void *proxy_run(void *context) {
    struct proxy *proxy = context;
    struct wire_context *wire = wire_context_create(1, NULL);
    const char *const bind[] = {proxy->endpoint, NULL}, *const connect[] = {proxy->pool->blobs, NULL};
    struct wire_socket_spec front_spec = {.kind = WIRE_ROUTER, .bind = bind};
    struct wire_socket_spec back_spec = {.kind = WIRE_DEALER, .connect = connect};
    struct wire_socket *front = wire_socket_open(wire, &front_spec, NULL);
    struct wire_socket *back = wire_socket_open(wire, &back_spec, NULL);
    uint8_t route_bytes[256];
    struct wire_frame route = {route_bytes, 0};
    while (!atomic_load(&proxy->stop)) {
        struct wire_poll_item items[] = {{.socket = front}, {.socket = back}};
        wire_poll(items, 2, 20, NULL);
        struct wire_message message = {0};
        if (items[0].readable && wire_receive(front, &message, 0, NULL)) {
            route.size = message.frames[0].size;
            memcpy(route_bytes, message.frames[0].data, route.size);
            wire_send(back, &message.frames[1], 1, 0, NULL);
            wire_message_fini(&message);
        }
        if (items[1].readable && wire_receive(back, &message, 0, NULL)) {
            proxy_back(proxy, front, &message, &route);
            wire_message_fini(&message);
        }
    }
    wire_socket_close(front);
    wire_socket_close(back);
    wire_context_destroy(wire);
    return NULL;
}

static void proxy_start(struct proxy *proxy, struct pool *pool, int corrupt, int pass_bytes) {
    *proxy = (struct proxy){.pool = pool};
    atomic_init(&proxy->corrupt, corrupt);
    atomic_init(&proxy->pass_bytes, pass_bytes);
    snprintf(proxy->endpoint, sizeof proxy->endpoint, "ipc://%s/proxy", pool->folder);
    assert_int_equal(pthread_create(&proxy->thread, NULL, proxy_run, proxy), 0);
}

static void proxy_stop(struct proxy *proxy) {
    atomic_store(&proxy->stop, true);
    pthread_join(proxy->thread, NULL);
}

static void a_damaged_chunk_is_asked_for_again(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    struct proxy proxy;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    proxy_start(&proxy, pool, 1, -1);
    daemon_init(&daemon, pool, 0);
    daemon.spec.blobs = proxy.endpoint;
    daemon_run(&daemon);
    struct digest digest = publish(pool, 1, SMALL_BYTES);
    wait_for(&daemon, &digest, runs);
    struct subscriber_status status;
    subscriber_status(daemon.subscriber, &status);
    assert_int_equal(status.bad_chunks, 1);
    daemon_stop(&daemon);
    proxy_stop(&proxy);
}

static void damage_that_does_not_end_is_reported_and_never_loaded(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    struct proxy proxy;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    proxy_start(&proxy, pool, INT_MAX, -1);
    daemon_init(&daemon, pool, 0);
    daemon.spec.blobs = proxy.endpoint;
    daemon_run(&daemon);
    struct digest digest = publish(pool, 1, SMALL_BYTES);
    wait_for(&daemon, &digest, failed);
    struct subscriber_status status;
    subscriber_status(daemon.subscriber, &status);
    assert_int_equal(status.error.code, ERROR_FORMAT);
    assert_int_equal(atomic_load(&daemon.activations), 0);
    atomic_store(&proxy.corrupt, 0); /* the line is mended: the member comes back by itself */
    wait_for(&daemon, &digest, runs);
    daemon_stop(&daemon);
    proxy_stop(&proxy);
}

static void an_interrupted_transfer_goes_on_where_it_stopped(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    struct proxy proxy;
    const int size = 8 * 1000 * 1000;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    proxy_start(&proxy, pool, 0, size / 2);
    daemon_init(&daemon, pool, 0);
    daemon.spec.blobs = proxy.endpoint;
    daemon_run(&daemon);
    struct digest digest = publish(pool, 1, (size_t)size);
    while (atomic_load(&proxy.pass_bytes) > 0)
        clock_sleep_ms(5);
    clock_sleep_ms(HEARTBEAT_MS);
    daemon_stop(&daemon); /* the member dies in mid-transfer, and starts again */
    assert_int_equal(atomic_load(&daemon.activations), 0);
    atomic_store(&proxy.pass_bytes, -1);
    daemon_run(&daemon);
    wait_for(&daemon, &digest, runs);
    struct subscriber_status status;
    subscriber_status(daemon.subscriber, &status);
    assert_true(status.transferred_bytes < (uint64_t)size * 6 / 10);
    daemon_stop(&daemon);
    proxy_stop(&proxy);
}

static void lost_chunks_are_asked_for_again(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    struct proxy proxy;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    proxy_start(&proxy, pool, 0, SMALL_BYTES / 2);
    daemon_init(&daemon, pool, 0);
    daemon.spec.blobs = proxy.endpoint;
    daemon_run(&daemon);
    struct digest digest = publish(pool, 1, SMALL_BYTES);
    while (atomic_load(&proxy.pass_bytes) > 0)
        clock_sleep_ms(5);
    clock_sleep_ms(HEARTBEAT_MS);
    atomic_store(&proxy.pass_bytes, -1);
    wait_for(&daemon, &digest, runs);
    daemon_stop(&daemon);
    proxy_stop(&proxy);
}

static void a_damaged_file_of_the_publisher_is_refused_until_published_again(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    char hex[DIGEST_HEX_SIZE], path[PATH_MAX];
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    struct digest digest = publish(pool, 1, SMALL_BYTES);
    digest_hex(&digest, hex);
    snprintf(path, sizeof path, "%s/publisher/objects/%.2s/%s", pool->folder, hex, hex + 2);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(truncate(path, SMALL_BYTES / 2), 0);
    daemon_init(&daemon, pool, 0);
    daemon_run(&daemon);
    wait_for(&daemon, &digest, failed);
    assert_int_equal(atomic_load(&daemon.activations), 0);
    publish(pool, 1, SMALL_BYTES);
    wait_for(&daemon, &digest, runs);
    daemon_stop(&daemon);
}

/* ---- hostile peers ---- */

static void send_garbage(const char *endpoint, struct rng *rng) {
    const char *const connect[] = {endpoint, NULL};
    struct wire_context *wire = wire_context_create(1, NULL);
    struct wire_socket_spec spec = {.kind = WIRE_DEALER, .connect = connect, .linger_ms = 500};
    struct wire_socket *socket = wire_socket_open(wire, &spec, NULL);
    for (int i = 0; i < 300; i++) {
        uint8_t bytes[512];
        struct wire_frame frames[8];
        int count = 1 + (int)rng_below(rng, 8);
        for (size_t k = 0; k < sizeof bytes; k++)
            bytes[k] = (uint8_t)rng_u32(rng);
        if (rng_below(rng, 2) == 0)
            memcpy(bytes, "\x08\x01", 2); /* the right version, then nonsense */
        for (int k = 0; k < count; k++)
            frames[k] = (struct wire_frame){bytes, rng_below(rng, sizeof bytes)};
        wire_send(socket, frames, count, 100, NULL);
    }
    wire_socket_close(socket);
    wire_context_destroy(wire);
}

static void garbage_does_not_disturb_the_publisher(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    struct rng rng;
    rng_init(&rng, 1, RNG_TEST, 0, 0);
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    send_garbage(pool->control, &rng);
    send_garbage(pool->blobs, &rng);
    struct digest digest = publish(pool, 1, SMALL_BYTES);
    daemon_init(&daemon, pool, 0);
    daemon_run(&daemon);
    wait_for(&daemon, &digest, runs);
    daemon_stop(&daemon);
}

/** Sends one request as trainctl would; the reply is owned. */
static Thorax__V1__ControlReply *converse(struct pool *pool, Thorax__V1__ControlRequest *request) {
    const char *const connect[] = {pool->control, NULL};
    struct wire_context *wire = wire_context_create(1, NULL);
    struct wire_socket_spec spec = {.kind = WIRE_DEALER, .connect = connect};
    struct wire_socket *socket = wire_socket_open(wire, &spec, NULL);
    struct packed packed = pool_pack(&request->base);
    struct wire_frame frame = {packed.data, packed.size};
    struct wire_message message = {0};
    assert_true(wire_send(socket, &frame, 1, 1000, NULL));
    assert_true(wire_receive(socket, &message, WAIT_MS, NULL));
    Thorax__V1__ControlReply *reply = pool_unpack_reply(message.frames[0].data, message.frames[0].size, NULL);
    assert_non_null(reply);
    wire_message_fini(&message);
    free(packed.data);
    wire_socket_close(socket);
    wire_context_destroy(wire);
    return reply;
}

static void another_version_of_the_protocol_is_refused_in_words(void **state) {
    struct pool *pool = *state;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    Thorax__V1__ControlRequest request;
    Thorax__V1__ModelsRequest models;
    thorax__v1__control_request__init(&request);
    thorax__v1__models_request__init(&models);
    request.protocol_version = POOL_PROTOCOL_VERSION + 1;
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_MODELS;
    request.models = &models;
    Thorax__V1__ControlReply *reply = converse(pool, &request);
    assert_int_equal(reply->body_case, THORAX__V1__CONTROL_REPLY__BODY_REFUSAL);
    assert_int_equal(reply->refusal->code, THORAX__V1__REFUSAL_CODE__REFUSAL_UNSUPPORTED_VERSION);
    pool_free(reply);
}

static void two_publishers_cannot_share_a_store(void **state) {
    struct pool *pool = *state;
    char store[128];
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    snprintf(store, sizeof store, "%s/publisher", pool->folder);
    struct publisher_spec spec = {.announce = "tcp://127.0.0.1:*",
                                  .control = "tcp://127.0.0.1:*",
                                  .blobs = "tcp://127.0.0.1:*",
                                  .store_folder = store};
    struct error err = {0};
    assert_null(publisher_create(&spec, &err));
    assert_int_equal(err.code, ERROR_BUSY);
}

static void a_damaged_record_stops_the_publisher_with_a_reason(void **state) {
    struct pool *pool = *state;
    char store[128], path[256];
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    publish(pool, 1, SMALL_BYTES);
    publisher_destroy(pool->publisher);
    pool->publisher = NULL;
    snprintf(store, sizeof store, "%s/publisher", pool->folder);
    snprintf(path, sizeof path, "%s/publisher.state", store);
    assert_int_equal(truncate(path, 30), 0);
    struct publisher_spec spec = {.announce = pool->announce,
                                  .control = pool->control,
                                  .blobs = pool->blobs,
                                  .store_folder = store};
    struct error err = {0};
    assert_null(publisher_create(&spec, &err));
    assert_non_null(strstr(err.message, "publisher.state"));
}

/* ---- trainctl ---- */

/** Uploads as `trainctl publish` does, up to the look into the file. */
static bool upload(struct pool *pool, uint32_t seed, size_t size, struct digest *digest, struct error *err) {
    struct control control;
    struct descriptor descriptor;
    void *data = model_bytes(seed, size);
    assert_true(descriptor_make(&descriptor, "chest", "1", data, size, NULL));
    *digest = descriptor.digest;
    assert_true(control_open(&control, pool->control, WAIT_MS, NULL));
    bool ok = upload_model(&control, &descriptor, data, err);
    control_close(&control);
    descriptor_fini(&descriptor);
    free(data);
    return ok;
}

static void an_uploaded_model_reaches_the_pool(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    struct digest digest;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    daemon_init(&daemon, pool, 0);
    daemon_run(&daemon);
    assert_true(upload(pool, 1, 3 * SMALL_BYTES, &digest, NULL));
    wait_for(&daemon, &digest, runs);
    assert_true(upload(pool, 1, 3 * SMALL_BYTES, &digest, NULL)); /* once more is no error */
    daemon_stop(&daemon);
    assert_int_equal(atomic_load(&daemon.activations), 1);
}

static void what_is_no_model_is_not_published(void **state) {
    struct pool *pool = *state;
    struct publisher_status status;
    struct digest digest;
    struct error err = {0};
    char path[128];
    start_inspecting_publisher(pool, PUBLISHER_ACTIVATE_AUTO, true);
    assert_false(upload(pool, 1, SMALL_BYTES, &digest, &err));
    snprintf(path, sizeof path, "%s/model", pool->folder);
    assert_true(file_write_atomic(path, "no", 2, NULL));
    assert_false(publisher_publish_file(pool->publisher, path, NULL, NULL, NULL, &err));
    assert_int_equal(err.code, ERROR_FORMAT);
    char *argv[] = {"publish", path, "--to", pool->control, NULL};
    assert_int_equal(command_publish(4, argv), 1);
    assert_true(publisher_status(pool->publisher, &status, NULL));
    assert_int_equal(status.models, 0);
    assert_int_equal(status.number, 0);
}

static void an_upload_that_lies_about_its_digest_is_refused(void **state) {
    struct pool *pool = *state;
    struct control control;
    struct descriptor descriptor;
    struct publisher_status status;
    struct error err = {0};
    uint8_t *data = model_bytes(1, SMALL_BYTES);
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    assert_true(descriptor_make(&descriptor, "chest", "1", data, SMALL_BYTES, NULL));
    data[SMALL_BYTES - 1] ^= 1; /* the bytes are not those that were described */
    assert_true(control_open(&control, pool->control, WAIT_MS, NULL));
    assert_false(upload_model(&control, &descriptor, data, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    control_close(&control);
    descriptor_fini(&descriptor);
    free(data);
    assert_true(publisher_status(pool->publisher, &status, NULL));
    assert_int_equal(status.models, 0);
}

static void models_lists_models_and_members(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    publish(pool, 1, SMALL_BYTES);
    struct digest digest = publish(pool, 2, SMALL_BYTES);
    daemon_init(&daemon, pool, 0);
    daemon_run(&daemon);
    wait_for(&daemon, &digest, runs);
    Thorax__V1__ControlRequest request;
    Thorax__V1__ModelsRequest models;
    thorax__v1__control_request__init(&request);
    thorax__v1__models_request__init(&models);
    request.protocol_version = POOL_PROTOCOL_VERSION;
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_MODELS;
    request.models = &models;
    clock_sleep_ms(2 * HEARTBEAT_MS);
    Thorax__V1__ControlReply *reply = converse(pool, &request);
    assert_int_equal(reply->models->n_models, 2);
    assert_int_equal(reply->models->models[0]->state, THORAX__V1__MODEL_STATE__MODEL_RETIRED);
    assert_int_equal(reply->models->models[1]->state, THORAX__V1__MODEL_STATE__MODEL_CURRENT);
    assert_int_equal(reply->models->n_members, 1);
    assert_memory_equal(reply->models->members[0]->report->active_digest.data, digest.bytes, 32);
    pool_free(reply);
    char *argv[] = {"models", "--at", pool->control, NULL};
    assert_int_equal(command_models(3, argv), 0);
    char *json[] = {"models", "--at", pool->control, "--json", NULL};
    assert_int_equal(command_models(4, json), 0);
    char *wrong[] = {"models", "--nonsense", NULL};
    assert_int_equal(command_models(2, wrong), 2);
    daemon_stop(&daemon);
}

int main(void) {
    log_init("publish_test", LOG_WARNING, LOG_TEXT);
    digest_start(NULL);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(members_activate_one_after_the_other),
        TEST(the_publisher_knows_what_its_members_run),
        TEST(a_member_that_starts_late_gets_the_current_model),
        TEST(a_member_that_starts_before_the_publisher_converges),
        TEST(without_a_publisher_a_restarted_member_has_its_last_model),
        TEST(a_restarted_member_does_not_activate_again_what_it_runs),
        TEST(a_restarted_publisher_goes_on),
        TEST(a_model_that_fails_is_reported_and_left_alone_for_a_while),
        TEST(a_staged_model_is_fetched_and_not_activated),
        TEST(ten_publishes_in_a_row_end_with_the_last),
        TEST(ten_publishes_one_by_one_reach_everybody),
        TEST(a_large_model_reaches_three_members),
        TEST(a_damaged_chunk_is_asked_for_again),
        TEST(damage_that_does_not_end_is_reported_and_never_loaded),
        TEST(an_interrupted_transfer_goes_on_where_it_stopped),
        TEST(lost_chunks_are_asked_for_again),
        TEST(a_damaged_file_of_the_publisher_is_refused_until_published_again),
        TEST(garbage_does_not_disturb_the_publisher),
        TEST(another_version_of_the_protocol_is_refused_in_words),
        TEST(two_publishers_cannot_share_a_store),
        TEST(a_damaged_record_stops_the_publisher_with_a_reason),
        TEST(an_uploaded_model_reaches_the_pool),
        TEST(what_is_no_model_is_not_published),
        TEST(an_upload_that_lies_about_its_digest_is_refused),
        TEST(models_lists_models_and_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
