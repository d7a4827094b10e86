#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/wire/endpoint.h"
#include "tests/integration/pool_fixture.h"

#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* What goes wrong between publisher and member: bad lines, damaged files, hostile peers. */

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
        atomic_store(&proxy->pass_bytes,
                     left > (int)chunk->frames[1].size ? left - (int)chunk->frames[1].size : 0);
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
    snprintf(path, sizeof path, "%s/registry.sqlite", store);
    assert_int_equal(truncate(path, 30), 0);
    struct publisher_spec spec = {
        .announce = pool->announce, .control = pool->control, .blobs = pool->blobs, .store_folder = store};
    struct error err = {0};
    assert_null(publisher_create(&spec, &err));
    assert_non_null(strstr(err.message, "registry.sqlite"));
}

int main(void) {
    log_init("publish_faults_test", LOG_WARNING, LOG_TEXT);
    if (!digest_start(NULL))
        return 1;
#define TEST(name) cmocka_unit_test_setup_teardown(name, pool_setup, pool_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_damaged_chunk_is_asked_for_again),
        TEST(damage_that_does_not_end_is_reported_and_never_loaded),
        TEST(an_interrupted_transfer_goes_on_where_it_stopped),
        TEST(lost_chunks_are_asked_for_again),
        TEST(a_damaged_file_of_the_publisher_is_refused_until_published_again),
        TEST(garbage_does_not_disturb_the_publisher),
        TEST(two_publishers_cannot_share_a_store),
        TEST(a_damaged_record_stops_the_publisher_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
