#include "common/base/clock.h"
#include "common/base/log.h"
#include "inferd/client/client.h"
#include "tests/unit/inferd/fake_model.h"
#include "tests/unit/inferd/fixture.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { TIMEOUT_MS = 15000 };

static const struct fake_model_spec SICK = {.name = "sick", .logits = {0, 3, 0}};

static struct client *connect_or_fail(const struct fixture *fixture) {
    struct error err = {0};
    struct client *client = client_open(&(struct client_spec){.endpoint = fixture->endpoint}, &err);
    if (!client) {
        fail_msg("%s", err.message);
    }
    return client;
}

/** One question of a new client; reply is empty where it failed. */
static void ask(const struct fixture *fixture, struct client_request request, struct client_reply *reply) {
    struct error err = {0};
    struct bytes image = fixture_image(1);
    struct client *client = connect_or_fail(fixture);
    if (!request.image) {
        request.image = image.data;
        request.image_size = image.size;
    }
    request.timeout_ms = request.timeout_ms ? request.timeout_ms : TIMEOUT_MS;
    if (!client_diagnose(client, &request, reply, &err)) {
        fail_msg("%s", err.message);
    }
    client_close(client);
    free(image.data);
}

static void an_answer_has_probabilities_decision_and_model(void **state) {
    (void)state;
    struct fixture fixture;
    struct client_reply reply;
    struct server_spec spec = fixture_spec();
    fixture_start(&fixture, &spec, fake_model(&SICK));
    ask(&fixture, (struct client_request){.request_id = "r-1"}, &reply);
    const Thorax__V1__DiagnosisReply *answer = reply.diagnosis;
    assert_int_equal(answer->status, THORAX__V1__STATUS__STATUS_OK);
    assert_string_equal(answer->request_id, "r-1");
    assert_int_equal(answer->n_probabilities, 3);
    assert_string_equal(answer->probabilities[1]->label, "PNEUMONIA");
    assert_true(fabs(answer->probabilities[1]->probability - exp(3) / (exp(3) + 2)) < 1e-6);
    assert_int_equal(answer->decision, THORAX__V1__DECISION__DECISION_RULE_IN);
    assert_string_equal(answer->operating_point->name, "balanced");
    assert_string_equal(answer->model->name, "sick");
    assert_string_equal(answer->member, "test-member");
    assert_int_equal(answer->n_warnings, 0);
    client_reply_fini(&reply);
    fixture_stop(&fixture);
    assert_true(fixture.drained);
}

static void age_and_view_outside_the_intended_use_are_warned_of(void **state) {
    (void)state;
    struct fixture fixture;
    struct client_reply reply;
    struct server_spec spec = fixture_spec();
    float age = 44;
    fixture_start(&fixture, &spec, fake_model(&SICK));
    ask(&fixture, (struct client_request){.age_years = &age, .view = THORAX__V1__VIEW__VIEW_LATERAL}, &reply);
    assert_int_equal(reply.diagnosis->n_warnings, 2);
    assert_int_equal(reply.diagnosis->warnings[0]->code,
                     THORAX__V1__WARNING_CODE__WARNING_AGE_OUTSIDE_INTENDED_USE);
    assert_int_equal(reply.diagnosis->warnings[1]->code,
                     THORAX__V1__WARNING_CODE__WARNING_VIEW_OUTSIDE_INTENDED_USE);
    client_reply_fini(&reply);
    fixture_stop(&fixture);
}

/** Every way a request's fields can be wrong: the status, and a word of the message. */
static void wrong_fields_are_refused_without_an_answer(void **state) {
    (void)state;
    static const float old = 151, unborn = -1, no_number = NAN;
    static char long_id[130];
    memset(long_id, 'x', sizeof long_id - 1);
    const struct {
        struct client_request request;
        Thorax__V1__Status status;
        const char *word;
    } rows[] = {
        {{.request_id = ""}, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT, "request_id"},
        {{.request_id = long_id}, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT, "request_id"},
        {{.image = "", .image_size = 0}, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT, "image"},
        {{.image = "GIF89a..........", .image_size = 16},
         THORAX__V1__STATUS__STATUS_UNSUPPORTED_MEDIA,
         "GIF"},
        {{.image = "no image at all", .image_size = 15}, THORAX__V1__STATUS__STATUS_UNSUPPORTED_MEDIA, ""},
        {{.model = "canary"}, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT, "model"},
        {{.model = "0000000000000000000000000000000000000000000000000000000000000000"},
         THORAX__V1__STATUS__STATUS_NOT_READY,
         "model"},
        {{.operating_point = "daring"}, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT, "balanced"},
        {{.age_years = &old}, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT, "age"},
        {{.age_years = &unborn}, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT, "age"},
        {{.age_years = &no_number}, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT, "age"},
    };
    struct fixture fixture;
    struct server_spec spec = fixture_spec();
    fixture_start(&fixture, &spec, fake_model(&SICK));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct client_reply reply;
        ask(&fixture, rows[i].request, &reply);
        const Thorax__V1__DiagnosisReply *answer = reply.diagnosis;
        if (answer->status != rows[i].status || !strstr(answer->message, rows[i].word)) {
            fail_msg("row %zu: %s: %s", i, client_status_name(answer->status), answer->message);
        }
        assert_int_equal(answer->n_probabilities, 0);
        assert_int_equal(answer->decision, THORAX__V1__DECISION__DECISION_UNSPECIFIED);
        client_reply_fini(&reply);
    }
    fixture_stop(&fixture);
}

static void without_a_model_it_is_not_ready_and_then_it_is(void **state) {
    (void)state;
    struct fixture fixture;
    struct client_reply reply;
    struct server_spec spec = fixture_spec();
    fixture_start(&fixture, &spec, NULL);
    ask(&fixture, (struct client_request){0}, &reply);
    assert_int_equal(reply.diagnosis->status, THORAX__V1__STATUS__STATUS_NOT_READY);
    assert_true(reply.diagnosis->retryable);
    client_reply_fini(&reply);
    slot_swap(fixture.slot, fake_model(&SICK));
    ask(&fixture, (struct client_request){0}, &reply);
    assert_int_equal(reply.diagnosis->status, THORAX__V1__STATUS__STATUS_OK);
    client_reply_fini(&reply);
    fixture_stop(&fixture);
}

static void a_failing_network_is_internal_and_never_an_answer(void **state) {
    (void)state;
    const struct fake_model_spec rows[] = {{.name = "fails", .logits = {0, 9, 0}, .fails = true},
                                           {.name = "nan", .logits = {0, NAN, 0}},
                                           {.name = "infinite", .logits = {0, INFINITY, 0}}};
    for (int i = 0; i < 3; i++) {
        struct fixture fixture;
        struct client_reply reply;
        struct server_spec spec = fixture_spec();
        fixture_start(&fixture, &spec, fake_model(&rows[i]));
        ask(&fixture, (struct client_request){0}, &reply);
        assert_int_equal(reply.diagnosis->status, THORAX__V1__STATUS__STATUS_INTERNAL);
        assert_int_equal(reply.diagnosis->n_probabilities, 0);
        client_reply_fini(&reply);
        fixture_stop(&fixture);
    }
}

/** One of several who ask at the same time. */
struct asker {
    const struct fixture *fixture;
    struct client_request request;
    pthread_t thread;
    Thorax__V1__Status status;
    uint32_t retry_after_ms;
};

static void *ask_in_thread(void *argument) {
    struct asker *asker = argument;
    struct client_reply reply;
    ask(asker->fixture, asker->request, &reply);
    asker->status = reply.diagnosis->status;
    asker->retry_after_ms = reply.diagnosis->retry_after_ms;
    client_reply_fini(&reply);
    return NULL;
}

static int count_status(const struct asker *askers, int count, Thorax__V1__Status status) {
    int found = 0;
    for (int i = 0; i < count; i++) {
        found += askers[i].status == status;
    }
    return found;
}

static void what_is_over_the_queue_limit_is_busy_and_all_else_is_answered(void **state) {
    (void)state;
    enum { ASKERS = 8 };
    struct fixture fixture;
    struct asker askers[ASKERS];
    struct server_spec spec = fixture_spec();
    struct fake_model_spec slow = {.name = "slow", .logits = {0, 3, 0}, .compute_ms = 600, .max_batch = 1};
    spec.max_jobs = 3;
    fixture_start(&fixture, &spec, fake_model(&slow));
    for (int i = 0; i < ASKERS; i++) {
        askers[i] = (struct asker){.fixture = &fixture};
        pthread_create(&askers[i].thread, NULL, ask_in_thread, &askers[i]);
    }
    for (int i = 0; i < ASKERS; i++) {
        pthread_join(askers[i].thread, NULL);
        assert_true(askers[i].status != THORAX__V1__STATUS__STATUS_BUSY || askers[i].retry_after_ms > 0);
    }
    int busy = count_status(askers, ASKERS, THORAX__V1__STATUS__STATUS_BUSY);
    int answered = count_status(askers, ASKERS, THORAX__V1__STATUS__STATUS_OK);
    assert_int_equal(busy + answered, ASKERS);
    assert_in_range(answered, 3, ASKERS - 1);
    fixture_stop(&fixture);
}

static void past_its_deadline_nothing_is_computed(void **state) {
    (void)state;
    enum { ASKERS = 3 };
    struct fixture fixture;
    struct asker askers[ASKERS];
    atomic_int computed = 0;
    struct server_spec spec = fixture_spec();
    struct fake_model_spec slow = {
        .name = "slow", .logits = {0, 3, 0}, .compute_ms = 1500, .max_batch = 1, .computed = &computed};
    spec.max_timeout_ms = 400; /* the server's, shorter than what the client waits */
    fixture_start(&fixture, &spec, fake_model(&slow));
    for (int i = 0; i < ASKERS; i++) {
        askers[i] = (struct asker){.fixture = &fixture};
        pthread_create(&askers[i].thread, NULL, ask_in_thread, &askers[i]);
    }
    for (int i = 0; i < ASKERS; i++) {
        pthread_join(askers[i].thread, NULL);
    }
    assert_int_equal(count_status(askers, ASKERS, THORAX__V1__STATUS__STATUS_OK), 1);
    assert_int_equal(count_status(askers, ASKERS, THORAX__V1__STATUS__STATUS_DEADLINE_EXCEEDED), ASKERS - 1);
    assert_int_equal(atomic_load(&computed), 1);
    fixture_stop(&fixture);
}

static void draining_answers_what_was_accepted(void **state) {
    (void)state;
    enum { ASKERS = 4 };
    struct fixture fixture;
    struct asker askers[ASKERS];
    struct server_spec spec = fixture_spec();
    struct fake_model_spec slow = {.name = "slow", .logits = {0, 3, 0}, .compute_ms = 300, .max_batch = 1};
    fixture_start(&fixture, &spec, fake_model(&slow));
    for (int i = 0; i < ASKERS; i++) {
        askers[i] = (struct asker){.fixture = &fixture};
        pthread_create(&askers[i].thread, NULL, ask_in_thread, &askers[i]);
    }
    clock_sleep_ms(250); /* all are accepted, at most one is answered */
    fixture_stop(&fixture);
    assert_true(fixture.drained);
    assert_in_range(fixture.drain_ms, 500, 20000);
    for (int i = 0; i < ASKERS; i++) {
        pthread_join(askers[i].thread, NULL);
    }
    assert_int_equal(count_status(askers, ASKERS, THORAX__V1__STATUS__STATUS_OK), ASKERS);
}

static void status_tells_model_counts_and_condition(void **state) {
    (void)state;
    struct fixture fixture;
    struct client_reply reply;
    struct server_spec spec = fixture_spec();
    fixture_start(&fixture, &spec, fake_model(&SICK));
    ask(&fixture, (struct client_request){0}, &reply);
    client_reply_fini(&reply);
    struct client *client = connect_or_fail(&fixture);
    assert_true(client_status(client, TIMEOUT_MS, &reply, NULL));
    const Thorax__V1__StatusReply *status = reply.status;
    assert_int_equal(status->condition, THORAX__V1__MEMBER_CONDITION__CONDITION_READY);
    assert_string_equal(status->model->name, "sick");
    assert_int_equal(status->n_counts, 1);
    assert_int_equal(status->counts[0]->status, THORAX__V1__STATUS__STATUS_OK);
    assert_int_equal(status->counts[0]->count, 1);
    assert_int_equal(status->images, 1);
    assert_int_equal(status->in_flight, 0);
    assert_int_equal(status->n_operating_points, 2);
    client_reply_fini(&reply);
    client_close(client);
    fixture_stop(&fixture);
}

int main(void) {
    log_init("server_test", LOG_ERROR + 1, LOG_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_has_probabilities_decision_and_model),
        cmocka_unit_test(age_and_view_outside_the_intended_use_are_warned_of),
        cmocka_unit_test(wrong_fields_are_refused_without_an_answer),
        cmocka_unit_test(without_a_model_it_is_not_ready_and_then_it_is),
        cmocka_unit_test(a_failing_network_is_internal_and_never_an_answer),
        cmocka_unit_test(what_is_over_the_queue_limit_is_busy_and_all_else_is_answered),
        cmocka_unit_test(past_its_deadline_nothing_is_computed),
        cmocka_unit_test(draining_answers_what_was_accepted),
        cmocka_unit_test(status_tells_model_counts_and_condition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
