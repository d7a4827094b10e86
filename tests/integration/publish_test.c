#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "tests/integration/pool_fixture.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* Models find their way: to early, late and restarted members, past a restart of the publisher, one
 * activation at a time. */

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
    assert_true(status.number >= 3); /* staged, told to run it, stable */
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
    wait_stable(pool, &digest);
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
    wait_stable(pool, &good);
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

int main(void) {
    log_init("publish_test", LOG_WARNING, LOG_TEXT);
    if (!digest_start(NULL))
        return 1;
#define TEST(name) cmocka_unit_test_setup_teardown(name, pool_setup, pool_teardown)
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
