#include "common/base/clock.h"
#include "common/wire/endpoint.h"
#include "tests/integration/pool_fixture.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Announcements in the clear that somebody recorded and says again: no member moves, and all follow on. */

enum { RECORDED_MAX = 4096, QUIET_MS = 6 * HEARTBEAT_MS };

/** Stands between publisher and member on the announcing socket: passes on, records, and says again. */
struct relay {
    const char *from;
    char to[128];
    struct wire_context *context;
    struct wire_socket *in, *out;
    pthread_t thread;
    atomic_bool stop;
    atomic_int recorded;      /* so many so far */
    atomic_int replay_end;    /* says the first so many again; 0: nothing to do */
    struct {
        size_t size;
        void *data;
    } events[RECORDED_MAX]; /* the thread's */
};

static void say(struct relay *relay, const void *data, size_t size) {
    struct wire_frame frame = {data, size};
    wire_send(relay->out, &frame, 1, 0, NULL);
}

static void *run_relay(void *context) {
    struct relay *relay = context;
    while (!atomic_load(&relay->stop)) {
        struct wire_message message;
        if (wire_receive(relay->in, &message, 10, NULL)) {
            int i = atomic_load(&relay->recorded);
            say(relay, message.frames[0].data, message.frames[0].size);
            if (i < RECORDED_MAX) {
                relay->events[i].size = message.frames[0].size;
                relay->events[i].data = malloc(message.frames[0].size + 1);
                memcpy(relay->events[i].data, message.frames[0].data, message.frames[0].size);
                atomic_store(&relay->recorded, i + 1);
            }
            wire_message_fini(&message);
        }
        int end = atomic_exchange(&relay->replay_end, 0);
        for (int i = 0; i < end; i++)
            say(relay, relay->events[i].data, relay->events[i].size);
    }
    return NULL;
}

static void relay_start(struct relay *relay, struct pool *pool) {
    *relay = (struct relay){.from = pool->announce, .context = wire_context_create(1, NULL)};
    snprintf(relay->to, sizeof relay->to, "ipc://%s/relay", pool->folder);
    const char *const connect[] = {relay->from, NULL}, *const bind[] = {relay->to, NULL};
    relay->in = wire_socket_open(relay->context, &(struct wire_socket_spec){.kind = WIRE_SUB, .connect = connect}, NULL);
    relay->out = wire_socket_open(relay->context, &(struct wire_socket_spec){.kind = WIRE_XPUB, .bind = bind}, NULL);
    assert_true(wire_subscribe(relay->in, "", NULL));
    assert_int_equal(pthread_create(&relay->thread, NULL, run_relay, relay), 0);
}

static void relay_stop(struct relay *relay) {
    atomic_store(&relay->stop, true);
    pthread_join(relay->thread, NULL);
    wire_socket_close(relay->in);
    wire_socket_close(relay->out);
    wire_context_destroy(relay->context);
    for (int i = 0; i < atomic_load(&relay->recorded); i++)
        free(relay->events[i].data);
    free(relay);
}

/** Says the first `count` events again, all at once and some times, and waits until they would have shown. */
static void replay(struct relay *relay, int count) {
    for (int i = 0; i < 3; i++) {
        atomic_store(&relay->replay_end, count);
        clock_sleep_ms(QUIET_MS);
    }
}

static struct relay *start(struct pool *pool, struct daemon *daemon) {
    struct relay *relay = malloc(sizeof *relay);
    assert_non_null(relay);
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    relay_start(relay, pool);
    daemon_init(daemon, pool, 0);
    daemon->spec.announce = relay->to;
    daemon_run(daemon);
    return relay;
}

/** Plays the first `count` announcements again: the daemon goes on with what it runs, and hears of the next model. Ends both. */
static void check_replay(struct pool *pool, struct daemon *daemon, struct relay *relay, int count,
                         const struct digest *running) {
    int before = atomic_load(&daemon->activations);
    assert_true(count > 0);
    replay(relay, count);
    assert_true(runs(daemon, running));
    assert_int_equal(atomic_load(&daemon->activations), before);

    struct digest next = publish(pool, 3, SMALL_BYTES);
    wait_for(daemon, &next, runs);
    daemon_stop(daemon);
    relay_stop(relay);
}

static void what_was_announced_before_moves_nobody_when_it_is_said_again(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    struct relay *relay = start(pool, &daemon);
    struct digest first = publish(pool, 1, SMALL_BYTES);
    wait_for(&daemon, &first, runs);
    struct digest second = publish(pool, 2, SMALL_BYTES);
    wait_for(&daemon, &second, runs);
    wait_stable(pool, &second);
    check_replay(pool, &daemon, relay, atomic_load(&relay->recorded), &second);
}

static void an_earlier_publishers_words_move_nobody(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    struct relay *relay = start(pool, &daemon);
    struct digest first = publish(pool, 1, SMALL_BYTES);
    wait_for(&daemon, &first, runs);
    wait_stable(pool, &first);
    publisher_destroy(pool->publisher);
    int of_before = atomic_load(&relay->recorded);

    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO); /* another incarnation, which goes on where that one was */
    struct digest second = publish(pool, 2, SMALL_BYTES);
    wait_for(&daemon, &second, runs);
    wait_stable(pool, &second);
    check_replay(pool, &daemon, relay, of_before, &second);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_announced_before_moves_nobody_when_it_is_said_again, pool_setup,
                                        pool_teardown),
        cmocka_unit_test_setup_teardown(an_earlier_publishers_words_move_nobody, pool_setup, pool_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
