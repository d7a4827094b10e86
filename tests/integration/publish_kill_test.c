#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "tests/integration/publisher_process.h"
#include "trainerd/upload.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A publisher that is killed in mid-transfer: members go on where they were, and nothing half is ever loaded. */

enum { MODEL_BYTES = 45 * 1000 * 1000, KILLS = 4, WINDOW_CHUNKS = 16 };

/** As `trainctl publish` does. */
static struct digest hand_over(struct pool *pool, size_t size, int64_t *chunk_bytes) {
    struct control control;
    struct descriptor descriptor;
    struct error err = {0};
    char gate[REGISTRY_TEXT_SIZE];
    void *data = model_bytes(1, size);
    struct descriptor_spec spec = {.name = "chest", .version = "1", .data = data, .size = size};
    assert_true(descriptor_make(&descriptor, &spec, NULL));
    assert_true(control_open(&control, pool->control, WAIT_MS, NULL, NULL));
    upload_model(&control, &descriptor, data, false, gate, &err);
    assert_string_equal(err.message, "");
    struct digest digest = descriptor.digest;
    *chunk_bytes = descriptor.cut.chunk_bytes;
    control_close(&control);
    descriptor_fini(&descriptor);
    free(data);
    return digest;
}

static int64_t fetched(struct daemon *daemon) {
    struct subscriber_status status;
    subscriber_status(daemon->subscriber, &status);
    return status.fetched_bytes;
}

/** Waits until that many bytes are there; false: the transfer was over before anybody looked. */
static bool wait_fetched(struct daemon *daemon, const struct digest *digest, int64_t bytes) {
    for (int64_t deadline_ms = clock_now_ms() + WAIT_MS; fetched(daemon) < bytes;) {
        assert_true(clock_now_ms() < deadline_ms);
        if (runs(daemon, digest))
            return false;
    }
    return true;
}

/** Until nothing more arrives from a publisher that is gone. */
static int64_t settled(struct daemon *daemon) {
    int64_t before = -1, now = fetched(daemon);
    while (now != before) {
        clock_sleep_ms(2 * HEARTBEAT_MS);
        before = now;
        now = fetched(daemon);
    }
    return now;
}

/** Whether the model is there to be loaded, and then whole: the kill came too late. */
static bool is_here(struct daemon *daemon, const struct digest *digest) {
    char hex[DIGEST_HEX_SIZE], path[256];
    struct digest found;
    digest_hex(digest, hex);
    snprintf(path, sizeof path, "%s/objects/%.2s/%s", daemon->store, hex, hex + 2);
    if (!file_exists(path))
        return false;
    assert_true(digest_file(path, &found, NULL));
    assert_true(digest_equal(&found, digest));
    return true;
}

static void a_killed_publisher_sends_its_window_again_and_no_more(void **state) {
    struct pool *pool = *state;
    struct publisher_process publisher = {0};
    struct daemon daemon;
    struct subscriber_status status;
    int64_t chunk_bytes, had = 0;
    int kills = 0;
    publisher_process_start(&publisher, pool, PUBLISHER_ACTIVATE_AUTO);
    struct digest digest = hand_over(pool, MODEL_BYTES, &chunk_bytes);
    daemon_init(&daemon, pool, 0);
    daemon.spec.window_chunks = WINDOW_CHUNKS;
    daemon_run(&daemon);
    while (kills < KILLS && wait_fetched(&daemon, &digest, MODEL_BYTES / (KILLS + 1) * (kills + 1))) {
        publisher_process_kill(&publisher);
        kills++;
        had = settled(&daemon);
        if (is_here(&daemon, &digest))
            had = MODEL_BYTES;
        else
            assert_int_equal(atomic_load(&daemon.activations), 0);
        publisher_process_start(&publisher, pool, PUBLISHER_ACTIVATE_AUTO);
    }
    wait_for(&daemon, &digest, runs);
    subscriber_status(daemon.subscriber, &status);
    clock_sleep_ms(HEARTBEAT_MS); /* the last publisher has told what it sent */
    uint64_t sent = atomic_load(&publisher.counters->sent_bytes), window = (uint64_t)(WINDOW_CHUNKS * chunk_bytes);
    print_message("killed %d times; %llu bytes arrived of a model of %d; the last publisher sent %llu for the %lld that lacked\n",
                  kills, (unsigned long long)status.transferred_bytes, MODEL_BYTES, (unsigned long long)sent,
                  (long long)(MODEL_BYTES - had));
    assert_true(kills > 0);
    assert_true(status.transferred_bytes <= MODEL_BYTES + window);
    assert_true(sent <= (uint64_t)(MODEL_BYTES - had) + window);
    assert_int_equal(status.bad_chunks, 0);
    assert_int_equal(atomic_load(&daemon.activations), 1);
    daemon_stop(&daemon);
    publisher_process_fini(&publisher);
}

/** The whole transfer in the dark: the member is stopped with what it has, and both start again. */
static void a_transfer_outlives_both_ends(void **state) {
    struct pool *pool = *state;
    struct publisher_process publisher = {0};
    struct daemon daemon;
    struct subscriber_status status;
    int64_t chunk_bytes;
    publisher_process_start(&publisher, pool, PUBLISHER_ACTIVATE_AUTO);
    struct digest digest = hand_over(pool, MODEL_BYTES, &chunk_bytes);
    daemon_init(&daemon, pool, 0);
    daemon_run(&daemon);
    bool half = wait_fetched(&daemon, &digest, MODEL_BYTES / 2);
    publisher_process_kill(&publisher);
    int64_t had = half ? settled(&daemon) : MODEL_BYTES;
    daemon_stop(&daemon);
    assert_true(half);
    if (is_here(&daemon, &digest))
        had = MODEL_BYTES;
    publisher_process_start(&publisher, pool, PUBLISHER_ACTIVATE_AUTO);
    daemon_run(&daemon);
    wait_for(&daemon, &digest, runs);
    subscriber_status(daemon.subscriber, &status);
    assert_true(status.transferred_bytes <= (uint64_t)(MODEL_BYTES - had + WINDOW_CHUNKS * chunk_bytes));
    daemon_stop(&daemon);
    publisher_process_fini(&publisher);
}

int main(int argc, char **argv) {
    int code;
    if (publisher_process_main(argc, argv, &code))
        return code;
    log_init("publish_kill_test", LOG_ERROR, LOG_TEXT);
    if (!digest_start(NULL))
        return 1;
#define TEST(name) cmocka_unit_test_setup_teardown(name, pool_setup, pool_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_killed_publisher_sends_its_window_again_and_no_more),
        TEST(a_transfer_outlives_both_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
