#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/pool/descriptor.h"
#include "common/pool/message.h"
#include "common/store/store.h"
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

/*
 * What a member does with the shadow that a snapshot names, and what its reports say: against a publisher
 * that the test plays, so that it can say anything. The models' bytes are in the member's store already.
 */

enum { MODELS = 2, BYTES = 5000 };

struct play {
    struct pool *pool;
    struct daemon member;
    struct descriptor models[MODELS];
    pthread_t thread;
    atomic_bool stop;

    pthread_mutex_t lock;             /* guards all below */
    uint64_t incarnation;             /* another one: the member asks again */
    int current, shadow, permille;    /* -1: none; else an index into models */
    Thorax__V1__MemberReport *report; /* the newest; owned */
    int loads, ends, last_permille;
    bool refuses, activating_seen;
    struct digest loaded;
};

static struct play *play_of(struct daemon *daemon) {
    return (struct play *)((char *)daemon - offsetof(struct play, member));
}

/* ---- the publisher ---- */

static void answer(struct play *play, struct wire_socket *socket, const struct wire_message *message) {
    Thorax__V1__ControlRequest *request =
        pool_unpack_request(message->frames[1].data, message->frames[1].size, NULL);
    assert_non_null(request);
    Thorax__V1__ControlReply reply = THORAX__V1__CONTROL_REPLY__INIT;
    Thorax__V1__Snapshot snapshot = THORAX__V1__SNAPSHOT__INIT;
    Thorax__V1__Shadow shadow = THORAX__V1__SHADOW__INIT;
    Thorax__V1__Turn turn = THORAX__V1__TURN__INIT;
    Thorax__V1__PublishedModel current, compared, staged, *staged_list[] = {&staged};
    pthread_mutex_lock(&play->lock);
    reply.protocol_version = POOL_PROTOCOL_VERSION;
    reply.incarnation = play->incarnation;
    reply.number = 1;
    if (request->body_case == THORAX__V1__CONTROL_REQUEST__BODY_SNAPSHOT) {
        reply.body_case = THORAX__V1__CONTROL_REPLY__BODY_SNAPSHOT;
        reply.snapshot = &snapshot;
        if (play->current >= 0) {
            descriptor_message(&play->models[play->current], &current);
            snapshot.current = &current;
        }
        descriptor_message(&play->models[1], &staged); /* or its file would be tidied away */
        snapshot.n_staged = 1;
        snapshot.staged = staged_list;
        if (play->shadow >= 0) {
            descriptor_message(&play->models[play->shadow], &compared);
            shadow.model = &compared;
            shadow.permille = (uint32_t)play->permille;
            snapshot.shadow = &shadow;
        }
    } else if (request->body_case == THORAX__V1__CONTROL_REQUEST__BODY_TURN) {
        reply.body_case = THORAX__V1__CONTROL_REPLY__BODY_TURN;
        reply.turn = &turn;
        turn.turn = 1;
        turn.digest = request->turn->digest;
        turn.lease_ms = 60000;
    }
    struct packed packed = pool_pack(&reply.base);
    if (play->report) {
        thorax__v1__member_report__free_unpacked(play->report, NULL);
    }
    play->report = request->report;
    request->report = NULL;
    pthread_mutex_unlock(&play->lock);
    struct wire_frame frames[] = {message->frames[0], {packed.data, packed.size}};
    wire_send(socket, frames, 2, 0, NULL);
    free(packed.data);
    pool_free(request);
}

static void *serve(void *context) {
    struct play *play = context;
    const char *const bind[] = {play->pool->control, NULL};
    struct wire_context *wire = wire_context_create(1, NULL);
    struct wire_socket *socket =
        wire_socket_open(wire, &(struct wire_socket_spec){.kind = WIRE_ROUTER, .bind = bind}, NULL);
    assert_non_null(socket);
    while (!atomic_load(&play->stop)) {
        struct wire_message message = {0};
        if (wire_receive(socket, &message, 20, NULL)) {
            answer(play, socket, &message);
            wire_message_fini(&message);
        }
    }
    wire_socket_close(socket);
    wire_context_destroy(wire);
    return NULL;
}

static void tell(struct play *play, int current, int shadow, int permille) {
    pthread_mutex_lock(&play->lock);
    play->current = current;
    play->shadow = shadow;
    play->permille = permille;
    play->incarnation++;
    pthread_mutex_unlock(&play->lock);
}

/* ---- the member's daemon ---- */

static bool load_shadow(void *context, const char *path, const struct digest *digest, int permille,
                        struct error *err) {
    struct play *play = play_of(context);
    pthread_mutex_lock(&play->lock);
    bool ok = !path || !play->refuses || error_set(err, ERROR_INVALID, "golden image 1 differs");
    if (path && ok) {
        play->loads++;
        play->last_permille = permille;
        play->loaded = *digest;
    } else if (!path) {
        play->ends++;
    }
    pthread_mutex_unlock(&play->lock);
    return ok;
}

static void describe(void *context, struct subscriber_facts *facts) {
    struct play *play = play_of(context);
    memset(facts, 0, sizeof *facts);
    facts->resident_count = 1;
    facts->residents[0] = play->models[1].digest;
    facts->stats_count = 1;
    facts->stats[0].digest = play->models[0].digest;
    facts->stats[0].answered = 3;
    facts->stats[0].compared = 2;
    facts->stats[0].agreed = 1;
    facts->stats[0].drift_sum = -0.25;
    histogram_record(&facts->stats[0].latency, 40);
    histogram_record(&facts->stats[0].latency, 40);
    histogram_record(&facts->stats[0].latency, 70000);
}

static void fill_store(struct play *play) {
    struct store *store = store_open(play->member.store, 1 << 30, NULL);
    assert_non_null(store);
    for (uint32_t i = 0; i < MODELS; i++) {
        void *bytes = model_bytes(i + 1, BYTES);
        struct digest digest;
        assert_true(store_put(store, bytes, BYTES, &digest, NULL));
        struct descriptor_spec spec = {
            .name = "chest", .version = i ? "2" : "1", .data = bytes, .size = BYTES};
        assert_true(descriptor_make(&play->models[i], &spec, NULL));
        assert_true(digest_equal(&digest, &play->models[i].digest));
        free(bytes);
    }
    store_close(store);
}

static int start(void **state) {
    struct play *play = calloc(1, sizeof *play);
    void *pool;
    pool_setup(&pool);
    play->pool = pool;
    play->incarnation = 1;
    play->current = play->shadow = -1;
    pthread_mutex_init(&play->lock, NULL);
    daemon_init(&play->member, pool, 1);
    play->member.spec.shadow = load_shadow;
    play->member.spec.describe = describe;
    play->member.spec.incarnation = 99;
    fill_store(play);
    tell(play, 0, -1, 0);
    assert_int_equal(pthread_create(&play->thread, NULL, serve, play), 0);
    daemon_run(&play->member);
    wait_for(&play->member, &play->models[0].digest, runs);
    *state = play;
    return 0;
}

static int end(void **state) {
    struct play *play = *state;
    daemon_stop(&play->member);
    atomic_store(&play->stop, true);
    pthread_join(play->thread, NULL);
    if (play->report) {
        thorax__v1__member_report__free_unpacked(play->report, NULL);
    }
    for (int i = 0; i < MODELS; i++) {
        descriptor_fini(&play->models[i]);
    }
    pthread_mutex_destroy(&play->lock);
    void *pool = play->pool;
    free(play);
    return pool_teardown(&pool);
}

/** Waits until a condition on the play holds; it is looked at under the lock. */
static void await(struct play *play, bool (*holds)(const struct play *)) {
    int64_t deadline = clock_now_ms() + WAIT_MS;
    for (bool reached = false; !reached; clock_sleep_ms(2)) {
        pthread_mutex_lock(&play->lock);
        reached = holds(play);
        pthread_mutex_unlock(&play->lock);
        assert_true(clock_now_ms() < deadline);
    }
}

static bool is_digest(const ProtobufCBinaryData *field, const struct digest *digest) {
    return field->len == sizeof digest->bytes && memcmp(field->data, digest->bytes, field->len) == 0;
}

static bool is_loaded(const struct play *play) {
    return play->loads == 1 && play->last_permille == 100 &&
           digest_equal(&play->loaded, &play->models[1].digest);
}

static bool has_another_share(const struct play *play) {
    return play->loads == 2 && play->last_permille == 500;
}

static bool has_ended(const struct play *play) {
    return play->ends == 1;
}

static bool is_refused(const struct play *play) {
    return play->report && is_digest(&play->report->refused_digest, &play->models[1].digest) &&
           strstr(play->report->refused_reason, "golden image 1");
}

static bool is_settled(const struct play *play) {
    return play->report && play->report->refused_digest.len == 0 && play->report->n_stats == 1 &&
           play->report->state == THORAX__V1__MEMBER_STATE__MEMBER_IDLE &&
           play->report->n_staged_digests == 2;
}

static bool runs_the_shadow(const struct play *play) {
    return play->report && is_digest(&play->report->active_digest, &play->models[1].digest);
}

static void a_shadow_is_loaded_shared_anew_and_ended(void **state) {
    struct play *play = *state;
    tell(play, 0, 1, 100);
    await(play, is_loaded);
    tell(play, 0, 1, 500);
    await(play, has_another_share);
    tell(play, 0, -1, 0);
    await(play, has_ended);
    assert_int_equal(atomic_load(&play->member.activations), 1); /* what serves was left alone */
}

static void a_shadow_that_becomes_the_target_ends(void **state) {
    struct play *play = *state;
    tell(play, 0, 1, 100);
    await(play, is_loaded);
    tell(play, 1, 1, 100);
    await(play, runs_the_shadow);
    await(play, has_ended);
    assert_int_equal(play->loads, 1);
}

static void a_shadow_that_cannot_be_loaded_is_reported_and_tried_again(void **state) {
    struct play *play = *state;
    pthread_mutex_lock(&play->lock);
    play->refuses = true;
    pthread_mutex_unlock(&play->lock);
    tell(play, 0, 1, 100);
    await(play, is_refused);
    assert_true(runs(&play->member, &play->models[0].digest));
    assert_int_equal(play->report->error[0], 0); /* the member itself is well */
    pthread_mutex_lock(&play->lock);
    play->refuses = false;
    pthread_mutex_unlock(&play->lock);
    await(play, is_loaded);
    await(play, is_settled);
}

static void a_report_tells_how_models_fare_and_what_is_ready(void **state) {
    struct play *play = *state;
    tell(play, 0, 1, 100);
    await(play, is_settled);
    pthread_mutex_lock(&play->lock);
    const Thorax__V1__MemberReport *report = play->report;
    const Thorax__V1__ModelStats *stats = report->stats[0];
    assert_int_equal(report->incarnation, 99);
    assert_int_equal(report->n_resident_digests, 1);
    assert_true(is_digest(&report->resident_digests[0], &play->models[1].digest));
    assert_true(is_digest(&stats->digest, &play->models[0].digest));
    assert_int_equal(stats->answered, 3);
    assert_int_equal(stats->compared, 2);
    assert_int_equal(stats->agreed, 1);
    assert_true(stats->drift_sum == -0.25);
    assert_int_equal(stats->n_latency_bucket, 2);
    assert_int_equal(stats->latency_bucket[0], histogram_bucket(40));
    assert_int_equal(stats->latency_count[0], 2);
    assert_int_equal(stats->latency_bucket[1], histogram_bucket(70000));
    assert_int_equal(stats->latency_count[1], 1);
    pthread_mutex_unlock(&play->lock);
}

int main(void) {
    log_init("subscriber_shadow_test", LOG_ERROR + 1, LOG_TEXT);
    if (!digest_start(NULL))
        return 1;
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, end)
    const struct CMUnitTest tests[] = {
        TEST(a_shadow_is_loaded_shared_anew_and_ended),
        TEST(a_shadow_that_becomes_the_target_ends),
        TEST(a_shadow_that_cannot_be_loaded_is_reported_and_tried_again),
        TEST(a_report_tells_how_models_fare_and_what_is_ready),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
