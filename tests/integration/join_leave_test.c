#include "common/base/clock.h"
#include "common/base/log.h"
#include "tests/integration/pool_fixture.h"
#include "tests/unit/process_size.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/*
 * Members come and go, and nothing of them stays: neither at the publisher nor in a process that makes and
 * ends members. All in one process, so that one look shows both sides.
 */

enum { NAMES = 5, WARM_UP = 50, CYCLES = 200 };

/* What 200 leaks of the smallest part would exceed: a subscriber's own structure alone has more than 100 KiB.
 */
static const int64_t SLACK_BYTES = 8 << 20;

static void join_and_leave(struct pool *pool, int cycle, const struct digest *digest) {
    struct daemon daemon;
    daemon_init(&daemon, pool, 1 + cycle % NAMES);
    daemon_run(&daemon);
    wait_for(&daemon, digest, runs);
    daemon_stop(&daemon);
}

/** ZeroMQ closes what a peer left behind some time later. */
static void wait_descriptors(int most) {
    int64_t deadline = clock_now_ms() + WAIT_MS;
    while (process_size_of(0).descriptors > most) {
        assert_true(clock_now_ms() < deadline);
        clock_sleep_ms(20);
    }
}

static void members_that_come_and_go_leave_nothing_behind(void **state) {
    struct pool *pool = *state;
    struct daemon stays;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    struct digest digest = publish(pool, 1, SMALL_BYTES);
    daemon_init(&stays, pool, 0);
    daemon_run(&stays);
    wait_for(&stays, &digest, runs);
    struct process_size alone = process_size_of(0);
    for (int i = 0; i < WARM_UP; i++) {
        join_and_leave(pool, i, &digest);
    }
    wait_descriptors(alone.descriptors);
    struct process_size before = process_size_of(0);
    for (int i = 0; i < CYCLES; i++) {
        join_and_leave(pool, i, &digest);
    }
    wait_descriptors(alone.descriptors);
    struct process_size after = process_size_of(0);
    print_message("resident %lld KiB, then %lld KiB; descriptors %d, then %d\n",
                  (long long)before.resident_bytes / 1024, (long long)after.resident_bytes / 1024,
                  before.descriptors, after.descriptors);
    assert_true(after.resident_bytes <= before.resident_bytes + SLACK_BYTES);
    assert_true(runs(&stays, &digest));
    daemon_stop(&stays);
}

int main(void) {
    log_init("join_leave_test", LOG_ERROR + 1, LOG_TEXT);
    if (!digest_start(NULL))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(members_that_come_and_go_leave_nothing_behind, pool_setup,
                                        pool_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
