#include "common/base/clock.h"
#include "trainerd/rendezvous.h"
#include "trainerd/rendezvous_message.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* The supervisor's side runs in a thread of its own, workers in others, over ipc:// in a private folder. */
enum { WORLD = 3, TIMEOUT_MS = 10000 };

struct site {
    char folder[64], endpoint[128];
    struct wire_context *wire;
    struct wire_socket *socket;
    struct rendezvous_server *server;
    pthread_t thread;
    bool serving;
    atomic_bool stop;
    bool ok;          /* what serve returned in the end */
    struct error err; /* and why */
    char reports[512];
};

static bool on_report(void *context, int rank, const char *kind, const void *data, size_t size,
                      struct error *err) {
    struct site *site = context;
    size_t used = strlen(site->reports);
    snprintf(site->reports + used, sizeof site->reports - used, "%d:%s:%.*s;", rank, kind, (int)size,
             (const char *)data);
    return strcmp(kind, "poison") != 0 || error_set(err, ERROR_FORMAT, "poisoned by rank %d", rank);
}

static void *serve(void *context) {
    struct site *site = context;
    site->ok = true;
    while (site->ok && !atomic_load(&site->stop)) {
        struct wire_message received = {0};
        if (wire_receive(site->socket, &received, 10, NULL))
            site->ok = rendezvous_server_take(site->server, &received, &site->err);
        wire_message_fini(&received);
    }
    return NULL;
}

static void open_site(struct site *site, int world_size) {
    memset(site, 0, sizeof *site);
    snprintf(site->folder, sizeof site->folder, "/tmp/thorax-test-XXXXXX");
    assert_non_null(mkdtemp(site->folder));
    snprintf(site->endpoint, sizeof site->endpoint, "ipc://%s/socket", site->folder);
    site->wire = wire_context_create(1, NULL);
    assert_non_null(site->wire);
    const char *const endpoints[] = {site->endpoint, NULL};
    struct wire_socket_spec socket = {
        .kind = WIRE_ROUTER, .bind = endpoints, .max_frame_bytes = RENDEZVOUS_VALUE_MAX, .linger_ms = 200};
    site->socket = wire_socket_open(site->wire, &socket, NULL);
    assert_non_null(site->socket);
    struct rendezvous_server_spec spec = {.socket = site->socket,
                                          .world_size = world_size,
                                          .generation = 7,
                                          .context = site,
                                          .on_report = on_report};
    site->server = rendezvous_server_open(&spec, NULL);
    assert_non_null(site->server);
    assert_int_equal(pthread_create(&site->thread, NULL, serve, site), 0);
    site->serving = true;
}

/** From here on the server is the calling thread's to look at. */
static void stop_serving(struct site *site) {
    atomic_store(&site->stop, true);
    if (site->serving)
        pthread_join(site->thread, NULL);
    site->serving = false;
}

static void close_site(struct site *site) {
    stop_serving(site);
    rendezvous_server_close(site->server);
    wire_socket_close(site->socket);
    wire_context_destroy(site->wire);
    assert_true(file_remove_tree(site->folder, NULL));
}

/** A worker in a thread: joins, runs its body, leaves. */
struct worker {
    struct rendezvous_spec spec;
    void (*body)(struct worker *worker, struct rendezvous *rendezvous);
    bool joined, passed;
    struct error err;
    pthread_t thread;
};

static void *work(void *context) {
    struct worker *worker = context;
    struct rendezvous *rendezvous = rendezvous_join(&worker->spec, &worker->err);
    worker->joined = rendezvous != NULL;
    if (rendezvous && worker->body)
        worker->body(worker, rendezvous);
    rendezvous_leave(rendezvous);
    return NULL;
}

static void prepare(struct site *site, struct worker workers[WORLD],
                    void (*body)(struct worker *worker, struct rendezvous *rendezvous)) {
    for (int i = 0; i < WORLD; i++) {
        workers[i] = (struct worker){.spec = {.wire = site->wire,
                                              .endpoint = site->endpoint,
                                              .rank = i,
                                              .world_size = WORLD,
                                              .generation = 7,
                                              .fingerprint = "lr=0.1\nbatch=32\n",
                                              .timeout_ms = TIMEOUT_MS},
                                     .body = body};
    }
}

static void run_workers(struct worker *workers, int count) {
    for (int i = 0; i < count; i++)
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    for (int i = 0; i < count; i++)
        pthread_join(workers[i].thread, NULL);
}

static void body_exchange(struct worker *worker, struct rendezvous *rendezvous) {
    char key[32], value[32];
    int rank = worker->spec.rank, next = (rank + 1) % WORLD;
    clock_sleep_ms(rank * 50); /* some gets come before their sets, some after */
    snprintf(key, sizeof key, "rank/%d", rank);
    snprintf(value, sizeof value, "value %d", rank);
    bool ok = rendezvous_set(rendezvous, key, value, strlen(value), &worker->err);
    struct bytes got = {0};
    snprintf(key, sizeof key, "rank/%d", next);
    snprintf(value, sizeof value, "value %d", next);
    ok = ok && rendezvous_get(rendezvous, key, clock_now_ms() + TIMEOUT_MS, &got, &worker->err);
    worker->passed = ok && strcmp((char *)got.data, value) == 0 && got.size == strlen(value);
    free(got.data);
}

static void test_values_reach_those_who_wait_for_them(void **state) {
    (void)state;
    struct site site;
    struct worker workers[WORLD];
    open_site(&site, WORLD);
    prepare(&site, workers, body_exchange);
    run_workers(workers, WORLD);
    for (int i = 0; i < WORLD; i++)
        assert_true(workers[i].joined && workers[i].passed);
    close_site(&site);
    assert_true(site.ok);
}

static void test_different_fingerprints_are_shown_to_all(void **state) {
    (void)state;
    struct site site;
    struct worker workers[WORLD];
    open_site(&site, WORLD);
    prepare(&site, workers, NULL);
    workers[2].spec.fingerprint = "lr=0.1\nbatch=64\n";
    run_workers(workers, WORLD);
    for (int i = 0; i < WORLD; i++) {
        assert_false(workers[i].joined);
        assert_int_equal(workers[i].err.code, ERROR_INVALID);
        assert_non_null(strstr(workers[i].err.message, "rank 0 has \"batch=32\", rank 2 has \"batch=64\""));
    }
    close_site(&site);
    assert_false(site.ok);
    assert_non_null(strstr(site.err.message, "rank 2 has \"batch=64\""));
}

static void test_a_missing_rank_is_a_timeout(void **state) {
    (void)state;
    struct site site;
    struct worker workers[WORLD];
    open_site(&site, WORLD);
    prepare(&site, workers, NULL);
    for (int i = 0; i < WORLD - 1; i++)
        workers[i].spec.timeout_ms = 300;
    run_workers(workers, WORLD - 1);
    for (int i = 0; i < WORLD - 1; i++)
        assert_int_equal(workers[i].err.code, ERROR_TIMEOUT);
    stop_serving(&site);
    assert_int_equal(rendezvous_server_missing(site.server), WORLD - 1);
    close_site(&site);
}

static void body_timeout(struct worker *worker, struct rendezvous *rendezvous) {
    struct bytes got;
    struct error first = {0};
    bool early = rendezvous_get(rendezvous, "never", clock_now_ms() + 100, &got, &first);
    /* The answer to the question that was given up must not be taken for the answer to the next one. */
    bool set = rendezvous_set(rendezvous, "never", "late", 4, &worker->err);
    bool other = rendezvous_set(rendezvous, "other", "right", 5, &worker->err);
    bool late = rendezvous_get(rendezvous, "other", clock_now_ms() + TIMEOUT_MS, &got, &worker->err);
    worker->passed = !early && first.code == ERROR_TIMEOUT && strstr(first.message, "never") && set &&
                     other && late && strcmp((char *)got.data, "right") == 0;
    free(got.data);
}

static void test_a_get_has_a_deadline(void **state) {
    (void)state;
    struct site site;
    struct worker workers[WORLD];
    open_site(&site, 1);
    prepare(&site, workers, body_timeout);
    workers[0].spec.world_size = 1;
    run_workers(workers, 1);
    assert_true(workers[0].passed);
    close_site(&site);
}

static void body_limits(struct worker *worker, struct rendezvous *rendezvous) {
    struct error again = {0}, big = {0};
    char *value = calloc(1, RENDEZVOUS_VALUE_MAX + 1);
    worker->passed = rendezvous_set(rendezvous, "key", value, RENDEZVOUS_VALUE_MAX, NULL) &&
                     !rendezvous_set(rendezvous, "key", "b", 1, &again) &&
                     strstr(again.message, "set already") &&
                     !rendezvous_set(rendezvous, "big", value, RENDEZVOUS_VALUE_MAX + 1, &big) &&
                     big.code == ERROR_TOO_LARGE;
    free(value);
}

static void test_a_key_is_set_once_and_values_have_a_limit(void **state) {
    (void)state;
    struct site site;
    struct worker workers[WORLD];
    open_site(&site, 1);
    prepare(&site, workers, body_limits);
    workers[0].spec.world_size = 1;
    run_workers(workers, 1);
    assert_true(workers[0].passed);
    close_site(&site);
}

static void body_reports(struct worker *worker, struct rendezvous *rendezvous) {
    worker->passed = rendezvous_report(rendezvous, "loss", "0.5", 3, NULL) &&
                     rendezvous_report(rendezvous, "loss", "0.4", 3, NULL) &&
                     rendezvous_report(rendezvous, "poison", "", 0, NULL);
}

static void test_reports_arrive_in_order_and_may_end_the_job(void **state) {
    (void)state;
    struct site site;
    struct worker workers[WORLD];
    open_site(&site, 1);
    prepare(&site, workers, body_reports);
    workers[0].spec.world_size = 1;
    run_workers(workers, 1);
    pthread_join(site.thread, NULL); /* the poison ends it, unasked */
    site.serving = false;
    assert_string_equal(site.reports, "0:loss:0.5;0:loss:0.4;0:poison:;");
    assert_string_equal(site.err.message, "poisoned by rank 0");
    close_site(&site);
}

static void body_heartbeat(struct worker *worker, struct rendezvous *rendezvous) {
    clock_sleep_ms(600);
    rendezvous_heartbeat(rendezvous);
    worker->passed = true;
}

static void test_heartbeats_are_heard(void **state) {
    (void)state;
    struct site site;
    struct worker workers[WORLD];
    open_site(&site, 1);
    prepare(&site, workers, body_heartbeat);
    workers[0].spec.world_size = 1;
    int64_t start_ms = clock_now_ms();
    run_workers(workers, 1);
    clock_sleep_ms(100);
    stop_serving(&site);
    assert_true(rendezvous_server_heard_ms(site.server, 0) >= start_ms + 600);
    close_site(&site);
}

static void test_strangers_are_turned_away(void **state) {
    (void)state;
    struct site site;
    struct worker workers[WORLD];
    open_site(&site, WORLD);
    prepare(&site, workers, NULL);
    workers[0].spec.generation = 6;
    workers[1].spec.world_size = 4;
    workers[2].spec.rank = 3;
    run_workers(workers, WORLD);
    assert_non_null(strstr(workers[0].err.message, "generation"));
    assert_non_null(strstr(workers[1].err.message, "number of ranks"));
    assert_non_null(strstr(workers[2].err.message, "no such rank"));
    stop_serving(&site);
    assert_int_equal(rendezvous_server_missing(site.server), 0);
    close_site(&site);
}

/** Frames that no worker sends: wrong lengths, verbs, ranks, keys, and somebody who speaks for rank 0. */
static void send_garbage(struct wire_context *wire, const char *endpoint) {
    const char *const endpoints[] = {endpoint, NULL};
    struct wire_socket_spec spec = {.kind = WIRE_DEALER, .connect = endpoints, .linger_ms = 1000};
    struct wire_socket *socket = wire_socket_open(wire, &spec, NULL);
    assert_non_null(socket);
    struct rendezvous_message message = {.verb = RENDEZVOUS_REPORT, .world_size = 1, .generation = 7};
    message.key = (struct wire_frame){"stolen", 6};
    uint8_t head[RENDEZVOUS_HEAD_SIZE];
    struct wire_frame frames[4];
    rendezvous_pack(&message, head, frames);
    assert_true(wire_send(socket, frames, 3, 1000, NULL));
    assert_true(wire_send(socket, frames, 2, 1000, NULL));
    assert_true(wire_send(socket, frames, 1, 1000, NULL));
    frames[3] = frames[2];
    assert_true(wire_send(socket, frames, 4, 1000, NULL));
    for (int at = 0; at < RENDEZVOUS_HEAD_SIZE; at++) {
        uint8_t saved = head[at];
        head[at] = 0xff;
        assert_true(wire_send(socket, frames, 3, 1000, NULL));
        head[at] = saved;
    }
    char key[RENDEZVOUS_KEY_MAX + 1] = {0};
    frames[1] = (struct wire_frame){key, sizeof key};
    assert_true(wire_send(socket, frames, 3, 1000, NULL));
    frames[1] = (struct wire_frame){key, 4}; /* NUL bytes */
    assert_true(wire_send(socket, frames, 3, 1000, NULL));
    frames[0] = (struct wire_frame){head, 5};
    assert_true(wire_send(socket, frames, 3, 1000, NULL));
    wire_socket_close(socket);
}

static void body_garbage(struct worker *worker, struct rendezvous *rendezvous) {
    send_garbage(worker->spec.wire, worker->spec.endpoint);
    struct bytes got = {0};
    worker->passed = rendezvous_set(rendezvous, "still", "alive", 5, NULL) &&
                     rendezvous_get(rendezvous, "still", clock_now_ms() + TIMEOUT_MS, &got, NULL) &&
                     strcmp((char *)got.data, "alive") == 0;
    free(got.data);
}

static void test_garbage_is_dropped(void **state) {
    (void)state;
    struct site site;
    struct worker workers[WORLD];
    open_site(&site, 1);
    prepare(&site, workers, body_garbage);
    workers[0].spec.world_size = 1;
    run_workers(workers, 1);
    assert_true(workers[0].passed);
    close_site(&site);
    assert_true(site.ok);
    assert_string_equal(site.reports, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_reach_those_who_wait_for_them),
        cmocka_unit_test(test_different_fingerprints_are_shown_to_all),
        cmocka_unit_test(test_a_missing_rank_is_a_timeout),
        cmocka_unit_test(test_a_get_has_a_deadline),
        cmocka_unit_test(test_a_key_is_set_once_and_values_have_a_limit),
        cmocka_unit_test(test_reports_arrive_in_order_and_may_end_the_job),
        cmocka_unit_test(test_heartbeats_are_heard),
        cmocka_unit_test(test_strangers_are_turned_away),
        cmocka_unit_test(test_garbage_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
