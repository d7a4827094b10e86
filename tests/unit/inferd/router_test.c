#include "inferd/router.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "inferd/client/client.h"
#include "tests/unit/inferd/fake_model.h"
#include "tests/unit/inferd/fixture.h"
#include "tests/unit/inferd/liar.h"
#include "tests/unit/inferd/router_fixture.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { TIMEOUT_MS = 20000, POOL = 2 };

static const struct fake_model_spec SICK = {.name = "sick", .logits = {0, 3, 0}};
static const struct fake_model_spec WELL = {.name = "well", .logits = {3, 0, 0}};

/** Members with a router in front. */
struct pool {
    struct fixture members[POOL];
    bool stopped[POOL];
    const char *endpoints[POOL];
    struct router_fixture router;
};

static void pool_start(struct pool *pool, const struct fake_model_spec *first,
                       const struct fake_model_spec *second) {
    struct server_spec member = fixture_spec();
    const struct fake_model_spec *models[POOL] = {first, second};
    memset(pool, 0, sizeof *pool);
    for (int i = 0; i < POOL; i++) {
        fixture_start(&pool->members[i], &member, models[i] ? fake_model(models[i]) : NULL);
        pool->endpoints[i] = pool->members[i].endpoint;
    }
    struct router_spec spec = router_fixture_spec(pool->endpoints, POOL);
    router_fixture_start(&pool->router, &spec);
}

static void stop_member(struct pool *pool, int i) {
    if (!pool->stopped[i]) {
        fixture_stop(&pool->members[i]);
        pool->stopped[i] = true;
    }
}

static void pool_stop(struct pool *pool) {
    router_fixture_stop(&pool->router);
    assert_true(pool->router.drained);
    for (int i = 0; i < POOL; i++) {
        stop_member(pool, i);
    }
}

/** One question of a bare socket, so that any field can be set; the reply is owned. */
static Thorax__V1__Envelope *ask(const char *endpoint, Thorax__V1__DiagnosisRequest request, uint64_t seed) {
    const char *const connect[] = {endpoint, NULL};
    struct bytes image = fixture_image(seed), packed;
    struct wire_message message = {0};
    struct error err = {0};
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    struct wire_context *context = wire_context_create(1, NULL);
    struct wire_socket *socket =
        wire_socket_open(context, &(struct wire_socket_spec){.kind = WIRE_REQ, .connect = connect}, NULL);
    request.image_case = THORAX__V1__DIAGNOSIS_REQUEST__IMAGE_ENCODED;
    request.encoded = (ProtobufCBinaryData){image.size, image.data};
    request.request_id = *request.request_id ? request.request_id : "r";
    envelope.protocol_version = MESSAGE_PROTOCOL_VERSION;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REQUEST;
    envelope.diagnosis_request = &request;
    assert_true(message_pack(&envelope.base, &packed, NULL));
    assert_true(wire_send(socket, &(struct wire_frame){packed.data, packed.size}, 1, TIMEOUT_MS, NULL));
    if (!wire_receive(socket, &message, TIMEOUT_MS, &err)) {
        fail_msg("%s", err.message);
    }
    Thorax__V1__Envelope *reply = client_unpack(message.frames[0], &err);
    struct digest digest = digest_of(image.data, image.size);
    if (!reply || !client_check(reply->diagnosis_reply, request.request_id, &digest, &err)) {
        fail_msg("%s", err.message);
    }
    wire_message_fini(&message);
    wire_socket_close(socket);
    wire_context_destroy(context);
    free(packed.data);
    free(image.data);
    return reply;
}

static void status_of(struct pool *pool, struct client_reply *out) {
    struct client *client = client_open(&(struct client_spec){.endpoint = pool->router.endpoint}, NULL);
    assert_true(client_status(client, TIMEOUT_MS, out, NULL));
    client_close(client);
}

static void an_answer_comes_through_as_the_member_gave_it(void **state) {
    (void)state;
    struct pool pool;
    pool_start(&pool, &SICK, &SICK);
    Thorax__V1__DiagnosisRequest request = THORAX__V1__DIAGNOSIS_REQUEST__INIT;
    request.request_id = "r-7";
    request.view = THORAX__V1__VIEW__VIEW_LATERAL;
    Thorax__V1__Envelope *reply = ask(pool.router.endpoint, request, 1);
    const Thorax__V1__DiagnosisReply *answer = reply->diagnosis_reply;
    assert_int_equal(answer->status, THORAX__V1__STATUS__STATUS_OK);
    assert_string_equal(answer->request_id, "r-7");
    assert_string_equal(answer->member, "test-member");
    assert_string_equal(answer->model->name, "sick");
    assert_int_equal(answer->n_warnings, 1);
    message_free(&reply->base);
    pool_stop(&pool);
}

static void a_refusal_that_holds_everywhere_comes_through(void **state) {
    (void)state;
    struct pool pool;
    pool_start(&pool, &SICK, &SICK);
    Thorax__V1__DiagnosisRequest request = THORAX__V1__DIAGNOSIS_REQUEST__INIT;
    request.operating_point = "daring";
    Thorax__V1__Envelope *reply = ask(pool.router.endpoint, request, 1);
    assert_int_equal(reply->diagnosis_reply->status, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT);
    message_free(&reply->base);
    pool_stop(&pool);
}

static void its_status_tells_of_the_pool(void **state) {
    (void)state;
    struct pool pool;
    struct client_reply reply;
    Thorax__V1__DiagnosisRequest request = THORAX__V1__DIAGNOSIS_REQUEST__INIT;
    pool_start(&pool, &SICK, &WELL);
    router_fixture_wait(&pool.router, POOL);
    message_free(&ask(pool.router.endpoint, request, 1)->base);
    status_of(&pool, &reply);
    assert_string_equal(reply.status->member, "test-router");
    assert_int_equal(reply.status->condition, THORAX__V1__MEMBER_CONDITION__CONDITION_READY);
    assert_int_equal(reply.status->members_ready, POOL);
    assert_int_equal(reply.status->n_resident, 2);
    assert_int_equal(reply.status->n_operating_points, 2);
    assert_true(reply.status->incarnation != 0);
    assert_int_equal(reply.status->n_counts, 1);
    assert_int_equal(reply.status->counts[0]->status, THORAX__V1__STATUS__STATUS_OK);
    client_reply_fini(&reply);
    pool_stop(&pool);
}

static void without_a_ready_member_it_says_so_and_requests_end_at_their_deadline(void **state) {
    (void)state;
    struct pool pool;
    struct client_reply status;
    Thorax__V1__DiagnosisRequest request = THORAX__V1__DIAGNOSIS_REQUEST__INIT;
    pool_start(&pool, NULL, NULL);
    status_of(&pool, &status);
    assert_int_equal(status.status->condition, THORAX__V1__MEMBER_CONDITION__CONDITION_NO_MODEL);
    client_reply_fini(&status);
    request.timeout_ms = 300;
    int64_t start_ms = clock_now_ms();
    Thorax__V1__Envelope *reply = ask(pool.router.endpoint, request, 1);
    assert_true(clock_now_ms() - start_ms >= 299);
    assert_int_equal(reply->diagnosis_reply->status, THORAX__V1__STATUS__STATUS_DEADLINE_EXCEEDED);
    assert_true(reply->diagnosis_reply->retryable);
    assert_non_null(strstr(reply->diagnosis_reply->message, "0 of 2"));
    message_free(&reply->base);
    pool_stop(&pool);
}

static void members_that_lie_are_not_passed_on(void **state) {
    (void)state;
    struct fixture good;
    struct server_spec member = fixture_spec();
    fixture_start(&good, &member, fake_model(&SICK));
    for (enum liar_habit habit = LIAR_GARBAGE; habit <= LIAR_EMPTY; habit++) {
        struct liar liar;
        struct router_fixture router;
        liar_start(&liar, habit);
        const char *endpoints[] = {liar.endpoint, good.endpoint};
        struct router_spec spec = router_fixture_spec(endpoints, 2);
        router_fixture_start(&router, &spec);
        router_fixture_wait(&router, 2);
        for (uint64_t i = 0; i < 4 || (atomic_load(&liar.asked) == 0 && i < 200); i++) {
            Thorax__V1__DiagnosisRequest request = THORAX__V1__DIAGNOSIS_REQUEST__INIT;
            Thorax__V1__Envelope *reply = ask(router.endpoint, request, i);
            assert_int_equal(reply->diagnosis_reply->status, THORAX__V1__STATUS__STATUS_OK);
            assert_string_equal(reply->diagnosis_reply->model->name, "sick");
            message_free(&reply->base);
        }
        assert_true(atomic_load(&liar.asked) > 0);
        router_fixture_stop(&router);
        liar_stop(&liar);
    }
    fixture_stop(&good);
}

static void a_study_sees_one_model_and_is_told_where_that_is_gone(void **state) {
    (void)state;
    struct pool pool;
    char key[] = "study";
    Thorax__V1__DiagnosisRequest request = THORAX__V1__DIAGNOSIS_REQUEST__INIT;
    request.routing_key = (ProtobufCBinaryData){sizeof key - 1, (uint8_t *)key};
    pool_start(&pool, &SICK, &WELL);
    router_fixture_wait(&pool.router, POOL);
    Thorax__V1__Envelope *reply = ask(pool.router.endpoint, request, 0);
    int first = strcmp(reply->diagnosis_reply->model->name, "well") == 0;
    struct digest pinned;
    memcpy(pinned.bytes, reply->diagnosis_reply->model->digest.data, sizeof pinned.bytes);
    message_free(&reply->base);
    for (uint64_t i = 1; i < 6; i++) {
        reply = ask(pool.router.endpoint, request, i);
        assert_string_equal(reply->diagnosis_reply->model->name, first ? "well" : "sick");
        assert_int_equal(reply->diagnosis_reply->n_warnings, 0);
        message_free(&reply->base);
    }
    stop_member(&pool, first);
    reply = ask(pool.router.endpoint, request, 9);
    const Thorax__V1__DiagnosisReply *answer = reply->diagnosis_reply;
    assert_int_equal(answer->status, THORAX__V1__STATUS__STATUS_OK);
    assert_string_equal(answer->model->name, first ? "sick" : "well");
    assert_int_equal(answer->n_warnings, 1);
    assert_int_equal(answer->warnings[0]->code, THORAX__V1__WARNING_CODE__WARNING_MODEL_CHANGED);
    assert_int_equal(answer->pinned_model.len, sizeof pinned.bytes);
    assert_memory_equal(answer->pinned_model.data, pinned.bytes, sizeof pinned.bytes);
    message_free(&reply->base);
    pool_stop(&pool);
}

static void more_bytes_than_its_limit_are_busy(void **state) {
    (void)state;
    const char *endpoints[] = {"ipc:///tmp/thorax-nobody-is-here"};
    Thorax__V1__DiagnosisRequest request = THORAX__V1__DIAGNOSIS_REQUEST__INIT;
    struct router_spec spec = router_fixture_spec(endpoints, 1);
    struct router_fixture router;
    spec.max_request_bytes = 100; /* less than a picture takes */
    router_fixture_start(&router, &spec);
    Thorax__V1__Envelope *reply = ask(router.endpoint, request, 1);
    assert_int_equal(reply->diagnosis_reply->status, THORAX__V1__STATUS__STATUS_BUSY);
    assert_true(reply->diagnosis_reply->retryable && reply->diagnosis_reply->retry_after_ms > 0);
    message_free(&reply->base);
    router_fixture_stop(&router);
}

/** One who asks in a thread of its own. */
struct asker {
    const char *endpoint;
    pthread_t thread;
    Thorax__V1__Status status;
};

static void *ask_in_thread(void *argument) {
    struct asker *asker = argument;
    Thorax__V1__DiagnosisRequest request = THORAX__V1__DIAGNOSIS_REQUEST__INIT;
    Thorax__V1__Envelope *reply = ask(asker->endpoint, request, 1);
    asker->status = reply->diagnosis_reply->status;
    message_free(&reply->base);
    return NULL;
}

static void more_than_its_queue_are_busy_and_all_else_is_answered(void **state) {
    (void)state;
    enum { ASKERS = 8, QUEUE = 2 };
    struct fixture member;
    struct asker askers[ASKERS];
    struct router_fixture router;
    struct server_spec server = fixture_spec();
    struct fake_model_spec slow = {.name = "slow", .logits = {0, 3, 0}, .compute_ms = 500, .max_batch = 1};
    int answered = 0, busy = 0;
    fixture_start(&member, &server, fake_model(&slow));
    const char *endpoints[] = {member.endpoint};
    struct router_spec spec = router_fixture_spec(endpoints, 1);
    spec.max_requests = QUEUE;
    router_fixture_start(&router, &spec);
    router_fixture_wait(&router, 1);
    for (int i = 0; i < ASKERS; i++) {
        askers[i] = (struct asker){.endpoint = router.endpoint};
        pthread_create(&askers[i].thread, NULL, ask_in_thread, &askers[i]);
    }
    for (int i = 0; i < ASKERS; i++) {
        pthread_join(askers[i].thread, NULL);
        answered += askers[i].status == THORAX__V1__STATUS__STATUS_OK;
        busy += askers[i].status == THORAX__V1__STATUS__STATUS_BUSY;
    }
    assert_int_equal(answered + busy, ASKERS);
    assert_true(answered >= QUEUE && busy > 0);
    router_fixture_stop(&router);
    fixture_stop(&member);
}

static void draining_answers_what_was_accepted_and_refuses_what_is_new(void **state) {
    (void)state;
    enum { ASKERS = 4 };
    struct fixture member;
    struct asker askers[ASKERS];
    struct router_fixture router;
    struct server_spec server = fixture_spec();
    struct fake_model_spec slow = {.name = "slow", .logits = {0, 3, 0}, .compute_ms = 300, .max_batch = 1};
    struct router_health health = {0};
    fixture_start(&member, &server, fake_model(&slow));
    const char *endpoints[] = {member.endpoint};
    struct router_spec spec = router_fixture_spec(endpoints, 1);
    router_fixture_start(&router, &spec);
    router_fixture_wait(&router, 1);
    for (int i = 0; i < ASKERS; i++) {
        askers[i] = (struct asker){.endpoint = router.endpoint};
        pthread_create(&askers[i].thread, NULL, ask_in_thread, &askers[i]);
    }
    while (health.in_flight < ASKERS) {
        clock_sleep_ms(1);
        router_health(router.router, &health);
    }
    atomic_store(&router.stop, true);
    while (!health.draining) {
        clock_sleep_ms(1);
        router_health(router.router, &health);
    }
    struct asker late = {.endpoint = router.endpoint};
    ask_in_thread(&late);
    assert_int_equal(late.status, THORAX__V1__STATUS__STATUS_NOT_READY);
    router_fixture_stop(&router);
    assert_true(router.drained);
    for (int i = 0; i < ASKERS; i++) {
        pthread_join(askers[i].thread, NULL);
        assert_int_equal(askers[i].status, THORAX__V1__STATUS__STATUS_OK);
    }
    fixture_stop(&member);
}

int main(void) {
    log_init("router_test", LOG_ERROR + 1, LOG_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_comes_through_as_the_member_gave_it),
        cmocka_unit_test(a_refusal_that_holds_everywhere_comes_through),
        cmocka_unit_test(its_status_tells_of_the_pool),
        cmocka_unit_test(without_a_ready_member_it_says_so_and_requests_end_at_their_deadline),
        cmocka_unit_test(members_that_lie_are_not_passed_on),
        cmocka_unit_test(a_study_sees_one_model_and_is_told_where_that_is_gone),
        cmocka_unit_test(more_bytes_than_its_limit_are_busy),
        cmocka_unit_test(more_than_its_queue_are_busy_and_all_else_is_answered),
        cmocka_unit_test(draining_answers_what_was_accepted_and_refuses_what_is_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
