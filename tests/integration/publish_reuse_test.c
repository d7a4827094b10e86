#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "tests/integration/pool_fixture.h"
#include "tests/unit/inferd/tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* What a member has already does not travel again. */

enum { MOVED_LIMIT_BYTES = 100 * 1000 };

static struct digest publish_model(struct pool *pool, const char *name, uint64_t seed) {
    char path[128];
    struct error err = {0};
    struct publisher_published published;
    struct tiny_model_spec spec = {.name = name, .seed = seed, .temperature = 1};
    snprintf(path, sizeof path, "%s/file", pool->folder);
    assert_true(tiny_model_write(path, &spec, &err));
    publisher_publish_file(pool->publisher, path, NULL, NULL, &published, &err);
    assert_string_equal(err.message, "");
    return published.digest;
}

static struct subscriber_status status_of(struct daemon *daemon) {
    struct subscriber_status status;
    subscriber_status(daemon->subscriber, &status);
    return status;
}

/** The same weights under a header of another length, which is where thresholds, names and figures stand. */
static void a_model_that_differs_in_its_header_moves_its_header(void **state) {
    struct pool *pool = *state;
    struct daemon daemons[MEMBERS];
    struct publisher_status published;
    start_inspecting_publisher(pool, PUBLISHER_ACTIVATE_AUTO, true);
    struct digest first = publish_model(pool, "chest", 1);
    run_all(pool, daemons, MEMBERS);
    wait_all(daemons, MEMBERS, &first);
    assert_true(publisher_status(pool->publisher, &published, NULL));
    uint64_t sent = published.sent_bytes, before[MEMBERS];
    for (int i = 0; i < MEMBERS; i++)
        before[i] = status_of(&daemons[i]).transferred_bytes;
    struct digest second = publish_model(pool, "chest-with-other-thresholds", 1);
    wait_all(daemons, MEMBERS, &second); /* the fixture digests every file that it is handed */
    for (int i = 0; i < MEMBERS; i++) {
        struct subscriber_status status = status_of(&daemons[i]);
        assert_in_range(status.transferred_bytes - before[i], 1, MOVED_LIMIT_BYTES);
        assert_true(status.reused_bytes > 40 * 1000 * 1000);
    }
    assert_true(publisher_status(pool->publisher, &published, NULL));
    assert_in_range(published.sent_bytes - sent, 1, MEMBERS * MOVED_LIMIT_BYTES);
    stop_all(daemons, MEMBERS);
}

/** A copy here that is damaged is not used: the chunk is fetched. */
static void a_damaged_copy_is_fetched_instead(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    char path[256], hex[DIGEST_HEX_SIZE];
    start_inspecting_publisher(pool, PUBLISHER_ACTIVATE_AUTO, true);
    struct digest first = publish_model(pool, "chest", 1);
    run_all(pool, &daemon, 1);
    wait_all(&daemon, 1, &first);
    digest_hex(&first, hex);
    snprintf(path, sizeof path, "%s/objects/%.2s/%s", daemon.store, hex, hex + 2);
    assert_int_equal(truncate(path, 20 * 1000 * 1000), 0);
    struct digest second = publish_model(pool, "another-name", 1);
    wait_all(&daemon, 1, &second);
    struct subscriber_status status = status_of(&daemon);
    assert_true(status.reused_bytes > 10 * 1000 * 1000);
    assert_true(status.reused_bytes < 21 * 1000 * 1000);
    stop_all(&daemon, 1);
}

/** A transfer that is cut while chunks are taken from here goes on. */
static void a_restart_in_between_harms_nothing(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    start_inspecting_publisher(pool, PUBLISHER_ACTIVATE_AUTO, true);
    struct digest first = publish_model(pool, "chest", 1);
    run_all(pool, &daemon, 1);
    wait_all(&daemon, 1, &first);
    struct digest last = first;
    for (uint64_t seed = 2; seed < 6; seed++) {
        last = publish_model(pool, "chest", seed / 2);
        clock_sleep_ms(10 * (int64_t)seed);
        daemon_stop(&daemon);
        daemon_run(&daemon);
    }
    wait_all(&daemon, 1, &last);
    stop_all(&daemon, 1);
}

int main(void) {
    log_init("publish_reuse_test", LOG_WARNING, LOG_TEXT);
    if (!digest_start(NULL))
        return 1;
#define TEST(name) cmocka_unit_test_setup_teardown(name, pool_setup, pool_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_model_that_differs_in_its_header_moves_its_header),
        TEST(a_damaged_copy_is_fetched_instead),
        TEST(a_restart_in_between_harms_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
