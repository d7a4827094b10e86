#include "inferd/client/thorax.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "tests/unit/inferd/fake_model.h"
#include "tests/unit/inferd/fixture.h"
#include "tests/unit/inferd/liar.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { TIMEOUT_MS = 20000, HEARTBEAT_MS = 100, MEMBERS = 3, THREADS = 6 };

static const struct fake_model_spec SICK = {.name = "sick", .logits = {0, 3, 0}};
static const struct fake_model_spec WELL = {.name = "well", .logits = {3, 0, 0}};

static struct thorax_client *open_or_fail(const char *const *endpoints, int count) {
    struct thorax_error error = {0};
    struct thorax_options options = {
        .endpoints = endpoints, .endpoint_count = count, .heartbeat_ms = HEARTBEAT_MS};
    struct thorax_client *client = thorax_open(&options, &error);
    if (!client) {
        fail_msg("%s", error.message);
    }
    return client;
}

static struct thorax_client *open_one(const char *endpoint) {
    return open_or_fail(&endpoint, 1);
}

/** Asks about a picture drawn from seed; answer is the caller's. */
static bool ask(struct thorax_client *client, uint64_t seed, struct thorax_request request,
                struct thorax_answer *answer, struct thorax_error *error) {
    struct bytes image = fixture_image(seed);
    if (!request.image) {
        request.image = image.data;
        request.image_size = image.size;
    }
    request.timeout_ms = request.timeout_ms ? request.timeout_ms : TIMEOUT_MS;
    bool ok = thorax_diagnose(client, &request, answer, error);
    if (ok && !request.pixels) {
        struct digest digest = digest_of(request.image, request.image_size);
        assert_memory_equal(answer->image_sha256, digest.bytes, sizeof digest.bytes);
    }
    free(image.data);
    return ok;
}

static void ask_ok(struct thorax_client *client, uint64_t seed, struct thorax_request request,
                   struct thorax_answer *answer) {
    struct thorax_error error = {0};
    if (!ask(client, seed, request, answer, &error)) {
        fail_msg("%s", error.message);
    }
    if (answer->status != THORAX_OK) {
        fail_msg("%s: %s", thorax_status_name(answer->status), answer->message);
    }
}

static void an_answer_holds_all_that_the_member_said(void **state) {
    (void)state;
    struct fixture fixture;
    struct thorax_answer answer;
    struct server_spec spec = fixture_spec();
    float age = 44;
    fixture_start(&fixture, &spec, fake_model(&SICK));
    struct thorax_client *client = open_one(fixture.endpoint);
    ask_ok(client, 1, (struct thorax_request){.request_id = "r-1", .age_years = &age}, &answer);
    assert_string_equal(answer.request_id, "r-1");
    assert_int_equal(answer.probability_count, 3);
    assert_string_equal(answer.probabilities[1].label, "PNEUMONIA");
    assert_true(fabs(answer.probabilities[1].probability - exp(3) / (exp(3) + 2)) < 1e-6);
    assert_int_equal(answer.decision, THORAX_RULE_IN);
    assert_string_equal(answer.operating_point, "balanced");
    assert_string_equal(answer.model_name, "sick");
    assert_string_equal(answer.member, "test-member");
    assert_int_equal(answer.warning_count, 1);
    assert_int_equal(answer.warnings[0].code, THORAX_WARNING_AGE);
    assert_int_equal(answer.attempts, 1);
    assert_false(answer.model_changed);
    thorax_answer_free(&answer);
    thorax_answer_free(&answer);
    thorax_close(client);
    fixture_stop(&fixture);
}

static void pixels_without_a_file_are_asked_about(void **state) {
    (void)state;
    struct fixture fixture;
    struct thorax_answer answer;
    struct server_spec spec = fixture_spec();
    uint8_t values[64 * 48] = {0};
    struct thorax_pixels pixels = {.rows = 48, .columns = 64, .bits_allocated = 8, .bits_stored = 8};
    fixture_start(&fixture, &spec, fake_model(&SICK));
    struct thorax_client *client = open_one(fixture.endpoint);
    struct thorax_request request = {.image = values, .image_size = sizeof values, .pixels = &pixels};
    assert_true(ask(client, 1, request, &answer, NULL));
    assert_int_equal(answer.status, THORAX_INVALID_ARGUMENT); /* photometric is required */
    thorax_answer_free(&answer);
    pixels.photometric = THORAX_MONOCHROME2;
    ask_ok(client, 1, request, &answer);
    thorax_answer_free(&answer);
    thorax_close(client);
    fixture_stop(&fixture);
}

static void wrong_arguments_are_errors_and_wrong_fields_refusals(void **state) {
    (void)state;
    struct fixture fixture;
    struct thorax_answer answer;
    struct thorax_error error = {0};
    struct server_spec spec = fixture_spec();
    fixture_start(&fixture, &spec, fake_model(&SICK));
    struct thorax_client *client = open_one(fixture.endpoint);
    static const struct thorax_request wrong[] = {
        {.request_id = ""}, {.request_id = "\xff"}, {.timeout_ms = -1}, {.image = "x", .image_size = 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_false(ask(client, 1, wrong[i], &answer, &error));
        assert_int_equal(error.code, THORAX_ERROR_INVALID);
        assert_null(answer.owned);
    }
    assert_true(ask(client, 1, (struct thorax_request){.operating_point = "daring"}, &answer, &error));
    assert_int_equal(answer.status, THORAX_INVALID_ARGUMENT);
    assert_int_equal(answer.decision, THORAX_DECISION_NONE);
    assert_int_equal(answer.probability_count, 0);
    thorax_answer_free(&answer);
    thorax_close(client);
    fixture_stop(&fixture);
    assert_null(thorax_open(&(struct thorax_options){0}, &error));
    assert_int_equal(error.code, THORAX_ERROR_INVALID);
    assert_null(thorax_open(
        &(struct thorax_options){.endpoints = (const char *[]){"nonsense"}, .endpoint_count = 1}, &error));
    assert_int_equal(error.code, THORAX_ERROR_INVALID);
}

static void the_deadline_is_kept_where_nobody_is(void **state) {
    (void)state;
    struct thorax_answer answer;
    struct thorax_error error = {0};
    struct thorax_client *client = open_one("ipc:///tmp/thorax-nobody-is-here");
    int64_t start_ms = clock_now_ms();
    assert_false(ask(client, 1, (struct thorax_request){.timeout_ms = 300}, &answer, &error));
    assert_true(clock_now_ms() - start_ms >= 299);
    assert_int_equal(error.code, THORAX_ERROR_TIMEOUT);
    assert_non_null(strstr(error.message, "0 of 1 endpoints"));
    thorax_close(client);
}

static void bad_members_are_never_believed_and_a_good_one_answers(void **state) {
    (void)state;
    struct fixture good;
    struct server_spec spec = fixture_spec();
    fixture_start(&good, &spec, fake_model(&SICK));
    for (enum liar_habit habit = LIAR_GARBAGE; habit <= LIAR_EMPTY; habit++) {
        struct liar liar;
        liar_start(&liar, habit);
        const char *endpoints[] = {liar.endpoint, good.endpoint};
        struct thorax_client *client = open_or_fail(endpoints, 2);
        for (uint64_t i = 0; i < 6 || (atomic_load(&liar.asked) == 0 && i < 1000); i++) {
            struct thorax_answer answer;
            ask_ok(client, i, (struct thorax_request){0}, &answer);
            assert_string_equal(answer.model_name, "sick");
            thorax_answer_free(&answer);
        }
        assert_true(atomic_load(&liar.asked) > 0);
        thorax_close(client);
        liar_stop(&liar);
    }
    fixture_stop(&good);
}

static void an_answer_that_comes_twice_is_taken_once(void **state) {
    (void)state;
    struct liar twice;
    liar_start(&twice, LIAR_TWICE);
    struct thorax_client *client = open_one(twice.endpoint);
    for (uint64_t i = 0; i < 20; i++) {
        struct thorax_answer answer;
        ask_ok(client, i, (struct thorax_request){0}, &answer);
        assert_int_equal(answer.attempts, 1);
        thorax_answer_free(&answer);
    }
    assert_int_equal(atomic_load(&twice.asked), 20);
    thorax_close(client);
    liar_stop(&twice);
}

static void a_silent_member_costs_half_of_the_time_and_no_answer(void **state) {
    (void)state;
    struct liar silent;
    struct fixture good;
    struct server_spec spec = fixture_spec();
    fixture_start(&good, &spec, fake_model(&SICK));
    liar_start(&silent, LIAR_SILENT);
    const char *endpoints[] = {silent.endpoint, good.endpoint};
    struct thorax_client *client = open_or_fail(endpoints, 2);
    int again = 0;
    for (uint64_t i = 0; i < 4 || (again == 0 && i < 100); i++) {
        struct thorax_answer answer;
        ask_ok(client, i, (struct thorax_request){.timeout_ms = 3000}, &answer);
        assert_string_equal(answer.model_name, "sick");
        again += answer.attempts == 2;
        thorax_answer_free(&answer);
    }
    assert_true(again > 0);
    thorax_close(client);
    liar_stop(&silent);
    fixture_stop(&good);
}

static void a_member_without_a_model_is_passed_over(void **state) {
    (void)state;
    struct fixture empty, good;
    struct server_spec spec = fixture_spec();
    fixture_start(&empty, &spec, NULL);
    fixture_start(&good, &spec, fake_model(&WELL));
    const char *endpoints[] = {empty.endpoint, good.endpoint};
    struct thorax_client *client = open_or_fail(endpoints, 2);
    for (uint64_t i = 0; i < 6; i++) {
        struct thorax_answer answer;
        ask_ok(client, i, (struct thorax_request){0}, &answer);
        assert_string_equal(answer.model_name, "well");
        thorax_answer_free(&answer);
    }
    thorax_close(client);
    fixture_stop(&empty);
    fixture_stop(&good);
}

static void a_model_that_nobody_has_is_refused_at_once(void **state) {
    (void)state;
    struct fixture fixture;
    struct thorax_answer answer;
    struct server_spec spec = fixture_spec();
    fixture_start(&fixture, &spec, fake_model(&SICK));
    struct thorax_client *client = open_one(fixture.endpoint);
    static const char nobodys[] = "0000000000000000000000000000000000000000000000000000000000000000";
    assert_true(ask(client, 1, (struct thorax_request){.model = nobodys}, &answer, NULL));
    assert_int_equal(answer.status, THORAX_NOT_READY);
    assert_true(answer.retryable);
    thorax_answer_free(&answer);
    thorax_close(client);
    fixture_stop(&fixture);
}

/** Threads that ask through one client until told to stop. */
struct load {
    struct thorax_client *client;
    atomic_bool stop;
    atomic_int answered, wrong, failed;
    struct thorax_error first; /* written by whoever makes failed 1 */
};

static void *ask_on(void *argument) {
    struct load *load = argument;
    for (uint64_t i = 0; !atomic_load(&load->stop); i++) {
        struct thorax_answer answer;
        struct thorax_error error = {0};
        if (!ask(load->client, i % 5, (struct thorax_request){.stat = i % 3 == 0}, &answer, &error)) {
            if (atomic_fetch_add(&load->failed, 1) == 0) {
                load->first = error;
            }
            continue;
        }
        bool sick = answer.status == THORAX_OK && strcmp(answer.model_name, "sick") == 0;
        bool right = answer.status == THORAX_OK && answer.probabilities[sick ? 1 : 0].probability >
                                                       0.9; /* as the model that it names says */
        atomic_fetch_add(right ? &load->answered : &load->wrong, 1);
        thorax_answer_free(&answer);
    }
    return NULL;
}

static void start_load(struct load *load, pthread_t *threads) {
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, ask_on, load), 0);
    }
}

static void stop_load(struct load *load, pthread_t *threads) {
    atomic_store(&load->stop, true);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    if (atomic_load(&load->failed)) {
        fail_msg("%d got no answer; the first: %s", atomic_load(&load->failed), load->first.message);
    }
    assert_int_equal(atomic_load(&load->wrong), 0);
    assert_true(atomic_load(&load->answered) > 0);
}

static void wait_for_answers(struct load *load, int more) {
    int64_t deadline_ms = clock_now_ms() + 3 * TIMEOUT_MS;
    for (int until = atomic_load(&load->answered) + more; atomic_load(&load->answered) < until;) {
        assert_true(clock_now_ms() < deadline_ms);
        clock_sleep_ms(2);
    }
}

static void members_that_leave_and_come_back_lose_nothing(void **state) {
    (void)state;
    struct fixture members[MEMBERS];
    const char *endpoints[MEMBERS];
    struct load load = {0};
    pthread_t threads[THREADS];
    struct server_spec spec = fixture_spec();
    for (int i = 0; i < MEMBERS; i++) {
        fixture_start(&members[i], &spec, fake_model(i % 2 ? &WELL : &SICK));
        endpoints[i] = members[i].endpoint;
    }
    load.client = open_or_fail(endpoints, MEMBERS);
    start_load(&load, threads);
    for (int i = 0; i < MEMBERS; i++) {
        char endpoint[128];
        const char *bind[] = {endpoint, NULL};
        wait_for_answers(&load, 20);
        memcpy(endpoint, members[i].endpoint, sizeof endpoint);
        fixture_stop(&members[i]);
        wait_for_answers(&load, 20);
        struct server_spec again = spec;
        again.bind = bind;
        fixture_start(&members[i], &again, fake_model(i % 2 ? &WELL : &SICK));
    }
    wait_for_answers(&load, 20);
    stop_load(&load, threads);
    thorax_close(load.client);
    for (int i = 0; i < MEMBERS; i++) {
        fixture_stop(&members[i]);
    }
}

static void where_all_members_are_gone_requests_wait_until_one_is_back(void **state) {
    (void)state;
    struct fixture fixture;
    struct thorax_answer answer;
    struct load load = {0};
    pthread_t threads[THREADS];
    struct server_spec spec = fixture_spec();
    char endpoint[128];
    const char *bind[] = {endpoint, NULL};
    fixture_start(&fixture, &spec, fake_model(&SICK));
    memcpy(endpoint, fixture.endpoint, sizeof endpoint);
    load.client = open_one(endpoint);
    ask_ok(load.client, 1, (struct thorax_request){0}, &answer);
    thorax_answer_free(&answer);
    fixture_stop(&fixture);
    start_load(&load, threads);
    clock_sleep_ms(600);
    assert_int_equal(atomic_load(&load.answered), 0);
    spec.bind = bind;
    fixture_start(&fixture, &spec, fake_model(&SICK));
    wait_for_answers(&load, 20);
    stop_load(&load, threads);
    thorax_close(load.client);
    fixture_stop(&fixture);
}

static void a_full_pool_is_waited_for(void **state) {
    (void)state;
    struct fixture members[2];
    struct load load = {0};
    pthread_t threads[THREADS];
    struct server_spec spec = fixture_spec();
    struct fake_model_spec slow = {.name = "sick", .logits = {0, 3, 0}, .compute_ms = 20, .max_batch = 1};
    spec.max_jobs = 1;
    const char *endpoints[2];
    for (int i = 0; i < 2; i++) {
        fixture_start(&members[i], &spec, fake_model(&slow));
        endpoints[i] = members[i].endpoint;
    }
    load.client = open_or_fail(endpoints, 2);
    struct load other = {
        .client = open_or_fail(endpoints, 2)}; /* so that members are busy for reasons of their own */
    pthread_t others[THREADS];
    start_load(&load, threads);
    start_load(&other, others);
    wait_for_answers(&load, 30);
    stop_load(&load, threads);
    stop_load(&other, others);
    thorax_close(load.client);
    thorax_close(other.client);
    fixture_stop(&members[0]);
    fixture_stop(&members[1]);
}

static void a_slow_member_gets_less_to_do(void **state) {
    (void)state;
    struct fixture slow, fast;
    struct load load = {0};
    pthread_t threads[THREADS];
    struct server_spec spec = fixture_spec();
    atomic_int by_slow = 0, by_fast = 0;
    struct fake_model_spec slow_model = {
        .name = "sick", .logits = {0, 3, 0}, .compute_ms = 100, .max_batch = 1, .computed = &by_slow};
    struct fake_model_spec fast_model = {.name = "well", .logits = {3, 0, 0}, .computed = &by_fast};
    fixture_start(&slow, &spec, fake_model(&slow_model));
    fixture_start(&fast, &spec, fake_model(&fast_model));
    const char *endpoints[] = {slow.endpoint, fast.endpoint};
    load.client = open_or_fail(endpoints, 2);
    start_load(&load, threads);
    wait_for_answers(&load, 100);
    stop_load(&load, threads);
    assert_true(atomic_load(&by_fast) > 2 * atomic_load(&by_slow));
    thorax_close(load.client);
    fixture_stop(&slow);
    fixture_stop(&fast);
}

static void assert_digest_of(const uint8_t *found, const char *name) {
    struct digest wanted = digest_of(name, strlen(name)); /* as fake_model makes it */
    assert_memory_equal(found, wanted.bytes, sizeof wanted.bytes);
}

static void a_study_sees_one_model_and_hears_of_it_where_that_is_gone(void **state) {
    (void)state;
    struct fixture members[2];
    const char *endpoints[2];
    struct thorax_answer answer;
    struct server_spec spec = fixture_spec();
    struct thorax_request request = {.routing_key = "study", .routing_key_size = 5};
    for (int i = 0; i < 2; i++) {
        fixture_start(&members[i], &spec, fake_model(i ? &WELL : &SICK));
        endpoints[i] = members[i].endpoint;
    }
    struct thorax_client *client = open_or_fail(endpoints, 2);
    ask_ok(client, 0, request, &answer);
    int first = strcmp(answer.model_name, "well") == 0;
    thorax_answer_free(&answer);
    bool other = false;
    for (uint64_t i = 0; i < 8 || (!other && i < 500); i++) {
        ask_ok(client, i, request, &answer);
        assert_string_equal(answer.model_name, first ? "well" : "sick");
        assert_false(answer.model_changed);
        thorax_answer_free(&answer);
        ask_ok(client, i, (struct thorax_request){0}, &answer); /* what has no key is free to go elsewhere */
        other = other || (strcmp(answer.model_name, "well") == 0) != first;
        thorax_answer_free(&answer);
    }
    assert_true(other);
    fixture_stop(&members[first]);
    ask_ok(client, 1, request, &answer);
    assert_string_equal(answer.model_name, first ? "sick" : "well");
    assert_true(answer.model_changed);
    assert_digest_of(answer.pinned_digest, first ? "well" : "sick");
    assert_digest_of(answer.model_digest, first ? "sick" : "well");
    thorax_answer_free(&answer);
    thorax_close(client);
    fixture_stop(&members[1 - first]);
}

/** What call-backs were told. */
struct told {
    atomic_int answers, errors;
    atomic_int last_code;
};

static void on_done(void *context, struct thorax_answer *answer, const struct thorax_error *error) {
    struct told *told = context;
    if (answer) {
        thorax_answer_free(answer);
        atomic_fetch_add(&told->answers, 1);
    } else {
        atomic_store(&told->last_code, error->code);
        atomic_fetch_add(&told->errors, 1);
    }
}

static void submitted_requests_are_called_back_once_each(void **state) {
    (void)state;
    enum { COUNT = 12 };
    struct fixture fixture;
    struct told told = {0};
    struct server_spec spec = fixture_spec();
    struct bytes image = fixture_image(3);
    fixture_start(&fixture, &spec, fake_model(&SICK));
    struct thorax_client *client = open_one(fixture.endpoint);
    struct thorax_request request = {.image = image.data, .image_size = image.size, .timeout_ms = TIMEOUT_MS};
    for (int i = 0; i < COUNT; i++) {
        assert_true(thorax_submit(client, &request, on_done, &told, NULL));
    }
    free(image.data); /* it was copied */
    int64_t deadline_ms = clock_now_ms() + TIMEOUT_MS;
    while (atomic_load(&told.answers) < COUNT && clock_now_ms() < deadline_ms) {
        clock_sleep_ms(5);
    }
    assert_int_equal(atomic_load(&told.answers), COUNT);
    thorax_close(client);
    assert_int_equal(atomic_load(&told.answers) + atomic_load(&told.errors), COUNT);
    fixture_stop(&fixture);
}

static void closing_ends_what_waits_and_too_many_are_busy(void **state) {
    (void)state;
    struct told told = {0};
    struct thorax_error error = {0};
    const char *endpoint = "ipc:///tmp/thorax-nobody-is-here";
    struct thorax_options options = {.endpoints = &endpoint, .endpoint_count = 1, .max_outstanding = 2};
    struct thorax_client *client = thorax_open(&options, &error);
    struct thorax_request request = {.image = "x", .image_size = 1, .timeout_ms = TIMEOUT_MS};
    assert_non_null(client);
    assert_true(thorax_submit(client, &request, on_done, &told, &error));
    assert_true(thorax_submit(client, &request, on_done, &told, &error));
    assert_false(thorax_submit(client, &request, on_done, &told, &error));
    assert_int_equal(error.code, THORAX_ERROR_BUSY);
    thorax_close(client);
    assert_int_equal(atomic_load(&told.errors), 2);
    assert_int_equal(atomic_load(&told.last_code), THORAX_ERROR_CLOSED);
}

static void members_are_told(void **state) {
    (void)state;
    struct fixture fixture;
    struct thorax_member members[2] = {{0}};
    struct server_spec spec = fixture_spec();
    fixture_start(&fixture, &spec, fake_model(&SICK));
    const char *endpoints[] = {fixture.endpoint, "ipc:///tmp/thorax-nobody-is-here"};
    struct thorax_client *client = open_or_fail(endpoints, 2);
    int64_t deadline_ms = clock_now_ms() + TIMEOUT_MS;
    while (!members[0].ready && clock_now_ms() < deadline_ms) {
        assert_int_equal(thorax_members(client, members, 2), 2);
        clock_sleep_ms(5);
    }
    assert_true(members[0].reachable && members[0].ready);
    assert_false(members[1].reachable || members[1].ready);
    thorax_close(client);
    fixture_stop(&fixture);
}

int main(void) {
    log_init("thorax_test", LOG_ERROR + 1, LOG_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_holds_all_that_the_member_said),
        cmocka_unit_test(pixels_without_a_file_are_asked_about),
        cmocka_unit_test(wrong_arguments_are_errors_and_wrong_fields_refusals),
        cmocka_unit_test(the_deadline_is_kept_where_nobody_is),
        cmocka_unit_test(bad_members_are_never_believed_and_a_good_one_answers),
        cmocka_unit_test(an_answer_that_comes_twice_is_taken_once),
        cmocka_unit_test(a_silent_member_costs_half_of_the_time_and_no_answer),
        cmocka_unit_test(a_member_without_a_model_is_passed_over),
        cmocka_unit_test(a_model_that_nobody_has_is_refused_at_once),
        cmocka_unit_test(members_that_leave_and_come_back_lose_nothing),
        cmocka_unit_test(where_all_members_are_gone_requests_wait_until_one_is_back),
        cmocka_unit_test(a_full_pool_is_waited_for),
        cmocka_unit_test(a_slow_member_gets_less_to_do),
        cmocka_unit_test(a_study_sees_one_model_and_hears_of_it_where_that_is_gone),
        cmocka_unit_test(submitted_requests_are_called_back_once_each),
        cmocka_unit_test(closing_ends_what_waits_and_too_many_are_busy),
        cmocka_unit_test(members_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
