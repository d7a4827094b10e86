#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/wire/endpoint.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

static const char *const LOOPBACK[] = {"tcp://127.0.0.1:*", NULL};

static struct wire_socket *open_or_fail(struct wire_context *context, const struct wire_socket_spec *spec) {
    struct error err = {0};
    struct wire_socket *socket = wire_socket_open(context, spec, &err);
    if (!socket) {
        fail_msg("%s", err.message);
    }
    return socket;
}

/** A ROUTER on a free port and a DEALER connected to it. */
struct pair {
    struct wire_context *context;
    struct wire_socket *router, *dealer;
};

static void pair_init(struct pair *pair, struct wire_socket_spec router) {
    char endpoint[128];
    pair->context = wire_context_create(1, NULL);
    router.kind = WIRE_ROUTER;
    router.bind = LOOPBACK;
    pair->router = open_or_fail(pair->context, &router);
    assert_non_null(wire_socket_bound(pair->router, 0, endpoint, sizeof endpoint));
    const char *const connect[] = {endpoint, NULL};
    pair->dealer = open_or_fail(
        pair->context,
        &(struct wire_socket_spec){.kind = WIRE_DEALER, .connect = connect, .identity = "member"});
}

static void pair_fini(struct pair *pair) {
    wire_socket_close(pair->dealer);
    wire_socket_close(pair->router);
    wire_context_destroy(pair->context);
}

static void frames_arrive_as_sent_behind_the_identity(void **state) {
    (void)state;
    struct pair pair;
    struct wire_message message;
    pair_init(&pair, (struct wire_socket_spec){0});
    struct wire_frame sent[] = {{"", 0}, {"payload", 7}};
    assert_true(wire_send(pair.dealer, sent, 2, 1000, NULL));
    assert_true(wire_receive(pair.router, &message, 5000, NULL));
    assert_int_equal(message.count, 3);
    assert_memory_equal(message.frames[0].data, "member", 6);
    assert_int_equal(message.frames[1].size, 0);
    assert_int_equal(message.frames[2].size, 7);
    assert_memory_equal(message.frames[2].data, "payload", 7);
    wire_message_fini(&message);
    pair_fini(&pair);
}

static void nothing_to_receive_is_a_timeout_after_the_time_asked_for(void **state) {
    (void)state;
    struct pair pair;
    struct wire_message message;
    struct error err = {0};
    pair_init(&pair, (struct wire_socket_spec){0});
    int64_t start = clock_now_ms();
    assert_false(wire_receive(pair.router, &message, 60, &err));
    assert_int_equal(err.code, ERROR_TIMEOUT);
    assert_in_range(clock_now_ms() - start, 50, 2000);
    assert_null(message.opaque);
    pair_fini(&pair);
}

static void a_message_of_too_many_frames_is_dropped_whole(void **state) {
    (void)state;
    struct pair pair;
    struct wire_message message;
    struct error err = {0};
    pair_init(&pair, (struct wire_socket_spec){0});
    struct wire_frame many[3 * WIRE_MAX_FRAMES];
    for (int i = 0; i < 3 * WIRE_MAX_FRAMES; i++) {
        many[i] = (struct wire_frame){"x", 1};
    }
    assert_true(wire_send(pair.dealer, many, 3 * WIRE_MAX_FRAMES, 1000, NULL));
    assert_true(wire_send(pair.dealer, &(struct wire_frame){"next", 4}, 1, 1000, NULL));
    assert_false(wire_receive(pair.router, &message, 5000, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
    assert_true(wire_receive(pair.router, &message, 5000, NULL));
    assert_int_equal(message.count, 2);
    assert_memory_equal(message.frames[1].data, "next", 4);
    wire_message_fini(&message);
    pair_fini(&pair);
}

static void a_frame_over_the_limit_never_arrives(void **state) {
    (void)state;
    struct pair pair;
    struct wire_message message;
    pair_init(&pair, (struct wire_socket_spec){.max_frame_bytes = 1000});
    char *large = calloc(1, 5000);
    assert_true(wire_send(pair.dealer, &(struct wire_frame){large, 5000}, 1, 1000, NULL));
    assert_false(wire_receive(pair.router, &message, 200, NULL));
    free(large);
    pair_fini(&pair);
}

static void a_mandatory_router_says_that_the_peer_is_gone(void **state) {
    (void)state;
    struct pair pair;
    struct error err = {0};
    pair_init(&pair, (struct wire_socket_spec){.router_mandatory = true});
    struct wire_frame frames[] = {{"nobody", 6}, {"hello", 5}};
    assert_false(wire_send(pair.router, frames, 2, 100, &err));
    assert_int_equal(err.code, ERROR_PEER);
    pair_fini(&pair);
}

static void only_loopback_is_bound_in_the_clear(void **state) {
    (void)state;
    static const struct {
        const char *endpoint;
        bool opens;
    } rows[] = {
        {"tcp://127.0.0.1:*", true}, {"tcp://127.8.9.1:*", true},  {"tcp://*:*", false},
        {"tcp://0.0.0.0:*", false},  {"tcp://127.evil:1", false},  {"tcp://[::]:*", false},
        {"tcp://127.0.0.1", false},  {"pgm://127.0.0.1:1", false}, {"udp://127.0.0.1:1", false},
        {"inproc://anything", true}, {"nonsense", false},          {"", false},
    };
    struct wire_context *context = wire_context_create(1, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct error err = {0};
        const char *const bind[] = {rows[i].endpoint, NULL};
        struct wire_socket *socket =
            wire_socket_open(context, &(struct wire_socket_spec){.kind = WIRE_ROUTER, .bind = bind}, &err);
        if (!!socket != rows[i].opens) {
            fail_msg("%s: %s", rows[i].endpoint, err.message);
        }
        assert_true(socket || err.code != ERROR_NONE);
        wire_socket_close(socket);
    }
    wire_context_destroy(context);
}

static void allowing_clear_text_binds_every_address(void **state) {
    (void)state;
    static const char *const bind[] = {"tcp://0.0.0.0:*", NULL};
    struct wire_context *context = wire_context_create(1, NULL);
    wire_socket_close(open_or_fail(
        context,
        &(struct wire_socket_spec){.kind = WIRE_ROUTER, .bind = bind, .insecure = true}));
    wire_context_destroy(context);
}

static void an_endpoint_in_use_is_an_error_that_names_it(void **state) {
    (void)state;
    struct error err = {0};
    char endpoint[128];
    struct wire_context *context = wire_context_create(1, NULL);
    struct wire_socket *first =
        open_or_fail(context, &(struct wire_socket_spec){.kind = WIRE_ROUTER, .bind = LOOPBACK});
    const char *const same[] = {wire_socket_bound(first, 0, endpoint, sizeof endpoint), NULL};
    assert_null(
        wire_socket_open(context, &(struct wire_socket_spec){.kind = WIRE_ROUTER, .bind = same}, &err));
    assert_non_null(strstr(err.message, endpoint));
    wire_socket_close(first);
    wire_context_destroy(context);
}

static void a_subscriber_gets_what_matches_its_prefix(void **state) {
    (void)state;
    char endpoint[128];
    struct wire_message message;
    struct wire_context *context = wire_context_create(1, NULL);
    struct wire_socket *publisher =
        open_or_fail(context, &(struct wire_socket_spec){.kind = WIRE_XPUB, .bind = LOOPBACK});
    const char *const connect[] = {wire_socket_bound(publisher, 0, endpoint, sizeof endpoint), NULL};
    struct wire_socket *subscriber =
        open_or_fail(context, &(struct wire_socket_spec){.kind = WIRE_SUB, .connect = connect});
    assert_true(wire_subscribe(subscriber, "b", NULL));
    assert_true(wire_receive(publisher, &message, 5000, NULL)); /* XPUB hands the subscription on: 1, "b" */
    wire_message_fini(&message);
    assert_true(wire_send(publisher, &(struct wire_frame){"a1", 2}, 1, 1000, NULL));
    assert_true(wire_send(publisher, &(struct wire_frame){"b1", 2}, 1, 1000, NULL));
    assert_true(wire_receive(subscriber, &message, 5000, NULL));
    assert_memory_equal(message.frames[0].data, "b1", 2);
    wire_message_fini(&message);
    wire_socket_close(subscriber);
    wire_socket_close(publisher);
    wire_context_destroy(context);
}

static void poll_sees_sockets_and_descriptors(void **state) {
    (void)state;
    struct pair pair;
    struct wire_message message;
    int ends[2];
    pair_init(&pair, (struct wire_socket_spec){0});
    assert_int_equal(pipe(ends), 0);
    struct wire_poll_item items[] = {{.socket = pair.router}, {.descriptor = ends[0]}};
    assert_int_equal(wire_poll(items, 2, 10, NULL), 0);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(wire_poll(items, 2, 1000, NULL), 1);
    assert_true(items[1].readable && !items[0].readable);
    assert_true(wire_send(pair.dealer, &(struct wire_frame){"x", 1}, 1, 1000, NULL));
    assert_true(wire_receive(pair.router, &message, 5000, NULL));
    wire_message_fini(&message);
    close(ends[0]);
    close(ends[1]);
    pair_fini(&pair);
}

/** Waits for an event of that kind. */
static void expect_event(struct wire_socket *watch, enum wire_event wanted) {
    enum wire_event event;
    struct wire_poll_item item = {.socket = watch};
    for (int64_t deadline_ms = clock_now_ms() + 10000; clock_left_ms(deadline_ms) > 0;) {
        wire_poll(&item, 1, 100, NULL);
        if (wire_watch_next(watch, &event) && event == wanted) {
            return;
        }
    }
    fail_msg("no event %d", (int)wanted);
}

static void a_watch_tells_of_connections_made_and_broken(void **state) {
    (void)state;
    char folder[] = "/tmp/thorax-watch-XXXXXX", endpoint[128];
    assert_non_null(mkdtemp(folder));
    snprintf(endpoint, sizeof endpoint, "ipc://%s/router", folder);
    const char *const address[] = {endpoint, NULL};
    struct wire_context *context = wire_context_create(1, NULL);
    struct wire_socket *watch = NULL;
    struct wire_socket *router =
        open_or_fail(context, &(struct wire_socket_spec){.kind = WIRE_ROUTER, .bind = address});
    struct wire_socket *dealer =
        open_or_fail(context, &(struct wire_socket_spec){.kind = WIRE_DEALER, .connect = address, .watch = &watch});
    assert_non_null(watch);
    expect_event(watch, WIRE_CONNECTED);
    wire_socket_close(router);
    expect_event(watch, WIRE_DISCONNECTED);
    wire_socket_close(watch);
    wire_socket_close(dealer);
    wire_context_destroy(context);
    assert_true(file_remove_tree(folder, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_arrive_as_sent_behind_the_identity),
        cmocka_unit_test(nothing_to_receive_is_a_timeout_after_the_time_asked_for),
        cmocka_unit_test(a_message_of_too_many_frames_is_dropped_whole),
        cmocka_unit_test(a_frame_over_the_limit_never_arrives),
        cmocka_unit_test(a_mandatory_router_says_that_the_peer_is_gone),
        cmocka_unit_test(only_loopback_is_bound_in_the_clear),
        cmocka_unit_test(allowing_clear_text_binds_every_address),
        cmocka_unit_test(an_endpoint_in_use_is_an_error_that_names_it),
        cmocka_unit_test(a_subscriber_gets_what_matches_its_prefix),
        cmocka_unit_test(poll_sees_sockets_and_descriptors),
        cmocka_unit_test(a_watch_tells_of_connections_made_and_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
