#include "tests/unit/inferd/router_fixture.h"
#include "common/base/clock.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

enum { DRAIN_MS = 20000, WAIT_MS = 20000 };

struct router_spec router_fixture_spec(const char *const *members, int count) {
    static const char *const bind[] = {"tcp://127.0.0.1:*", NULL};
    return (struct router_spec){.bind = bind,
                                .members = members,
                                .member_count = count,
                                .name = "test-router",
                                .version = "test",
                                .max_message_bytes = 1 << 20,
                                .default_timeout_ms = 20000,
                                .max_timeout_ms = 60000,
                                .max_requests = 64,
                                .max_request_bytes = 8 << 20,
                                .heartbeat_ms = 100,
                                .pin_ms = 60000};
}

static void *run(void *argument) {
    struct router_fixture *fixture = argument;
    while (!atomic_load(&fixture->stop) && router_step(fixture->router, 5, NULL)) {
    }
    fixture->drained = router_drain(fixture->router, DRAIN_MS, NULL);
    return NULL;
}

void router_fixture_start(struct router_fixture *fixture, const struct router_spec *spec) {
    struct error err = {0};
    memset(fixture, 0, sizeof *fixture);
    assert_true(digest_start(NULL));
    fixture->router = router_create(spec, &err);
    if (!fixture->router) {
        fail_msg("%s", err.message);
    }
    assert_non_null(router_bound(fixture->router, 0, fixture->endpoint, sizeof fixture->endpoint));
    assert_int_equal(pthread_create(&fixture->thread, NULL, run, fixture), 0);
}

void router_fixture_stop(struct router_fixture *fixture) {
    atomic_store(&fixture->stop, true);
    pthread_join(fixture->thread, NULL);
    router_destroy(fixture->router);
}

void router_fixture_wait(struct router_fixture *fixture, int members) {
    struct router_health health = {0};
    int64_t deadline_ms = clock_now_ms() + WAIT_MS;
    do {
        assert_true(clock_now_ms() < deadline_ms);
        clock_sleep_ms(2);
        router_health(fixture->router, &health);
    } while (health.members_ready != members);
}
