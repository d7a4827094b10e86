#include "inferd/inferctl/bench_load.h"
#include "common/base/log.h"
#include "common/wire/message.h"
#include "proto/envelope.pb-c.h"
#include "tests/unit/inferd/fake_model.h"
#include "tests/unit/inferd/fixture.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { IMAGES = 3, TIMEOUT_MS = 20000 };

static const struct fake_model_spec SICK = {.name = "sick", .logits = {0, 3, 0}};

static struct bench_image images[IMAGES];

static int draw_images(void **state) {
    (void)state;
    for (int i = 0; i < IMAGES; i++) {
        images[i].file = fixture_image((uint64_t)i + 1);
        images[i].digest = digest_of(images[i].file.data, images[i].file.size);
    }
    return 0;
}

static int free_images(void **state) {
    (void)state;
    for (int i = 0; i < IMAGES; i++)
        free(images[i].file.data);
    return 0;
}

static struct bench_result *run(const char *const *endpoints, int count, struct bench_pacer_spec pace,
                                int64_t timeout_ms) {
    struct error err = {0};
    struct bench_result *result = calloc(1, sizeof *result);
    struct bench_load_spec spec = {.endpoints = endpoints,
                                   .endpoint_count = count,
                                   .images = images,
                                   .image_count = IMAGES,
                                   .pace = pace,
                                   .timeout_ms = timeout_ms};
    if (!bench_load_run(&spec, result, &err))
        fail_msg("%s", err.message);
    return result;
}

static void a_closed_loop_is_answered_and_counted_by_model(void **state) {
    (void)state;
    struct fixture fixture;
    struct server_spec spec = fixture_spec();
    fixture_start(&fixture, &spec, fake_model(&SICK));
    const char *const endpoints[] = {fixture.endpoint};
    struct bench_result *result =
        run(endpoints, 1, (struct bench_pacer_spec){.outstanding = 4, .requests = 60}, TIMEOUT_MS);
    assert_int_equal(result->sent, 60);
    assert_int_equal(result->latency.total, 60);
    assert_int_equal(bench_refused(result) + result->lost + result->wrong + result->stray, 0);
    assert_int_equal(result->model_count, 1);
    assert_int_equal(strncmp(result->models[0].name, "sick:", 5), 0);
    assert_int_equal(result->models[0].answers, 60);
    free(result);
    fixture_stop(&fixture);
}

static void an_open_loop_shares_its_requests_among_endpoints(void **state) {
    (void)state;
    struct fixture fixtures[2];
    struct server_spec spec = fixture_spec();
    for (int i = 0; i < 2; i++)
        fixture_start(&fixtures[i], &spec, fake_model(&SICK));
    const char *const endpoints[] = {fixtures[0].endpoint, fixtures[1].endpoint};
    struct bench_result *result = run(
        endpoints, 2, (struct bench_pacer_spec){.rate = 400, .outstanding = 100, .requests = 100, .seed = 1},
        TIMEOUT_MS);
    assert_int_equal(result->latency.total + bench_refused(result), 100);
    assert_int_equal(result->lost + result->wrong, 0);
    for (int i = 0; i < 2; i++) {
        assert_true(server_counters(fixtures[i].server)->images > 0);
        fixture_stop(&fixtures[i]);
    }
    free(result);
}

/** One request at a time, COMPUTE_MS each: the k-th answer cannot come before k x COMPUTE_MS, so its latency
 * is at least that less its intended time, even where the load could not have sent it any earlier. */
static void latencies_count_from_the_intended_time(void **state) {
    (void)state;
    enum { REQUESTS = 20, COMPUTE_MS = 30, OUTSTANDING = 2 };
    struct fixture fixture;
    struct server_spec server = fixture_spec();
    struct fake_model_spec slow = {
        .name = "slow", .logits = {0, 3, 0}, .compute_ms = COMPUTE_MS, .max_batch = 1};
    struct bench_pacer_spec pace = {
        .rate = 1000, .outstanding = OUTSTANDING, .requests = REQUESTS, .seed = 8};
    struct bench_pacer pacer;
    int64_t intended, least_us = 0;
    fixture_start(&fixture, &server, fake_model(&slow));
    const char *const endpoints[] = {fixture.endpoint};
    struct bench_result *result = run(endpoints, 1, pace, TIMEOUT_MS);
    bench_pacer_start(&pacer, &pace, 0);
    for (int k = 1; bench_pacer_take(&pacer, INT64_MAX / 2, 0, &intended); k++)
        least_us += (k * COMPUTE_MS - 1) * 1000 - intended / 1000;
    assert_int_equal(result->latency.total, REQUESTS);
    assert_true((int64_t)result->latency.sum_us >= least_us);
    assert_true(result->held > 0);
    free(result);
    fixture_stop(&fixture);
}

static void refusals_are_counted_by_status_and_are_no_failure(void **state) {
    (void)state;
    struct fixture fixture;
    struct server_spec server = fixture_spec();
    struct fake_model_spec slow = {.name = "slow", .logits = {0, 3, 0}, .compute_ms = 100, .max_batch = 1};
    server.max_jobs = 1;
    fixture_start(&fixture, &server, fake_model(&slow));
    const char *const endpoints[] = {fixture.endpoint};
    struct bench_result *result = run(
        endpoints, 1, (struct bench_pacer_spec){.rate = 2000, .outstanding = 50, .requests = 30, .seed = 1},
        TIMEOUT_MS);
    assert_true(result->by_status[THORAX__V1__STATUS__STATUS_BUSY] > 0);
    assert_int_equal(result->by_status[THORAX__V1__STATUS__STATUS_BUSY] + result->latency.total, 30);
    assert_int_equal(result->failure.code, ERROR_NONE);
    free(result);
    fixture_stop(&fixture);
}

/* ---- members that misbehave ---- */

/** A ROUTER that answers every request with what make says, from its own thread. */
struct impostor {
    char endpoint[128];
    struct wire_context *context;
    struct wire_socket *socket;
    pthread_t thread;
    atomic_bool stop;
    bool silent, other_id;
};

static void answer_wrongly(struct impostor *impostor, const struct wire_message *message) {
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    Thorax__V1__DiagnosisReply reply = THORAX__V1__DIAGNOSIS_REPLY__INIT;
    struct bytes packed;
    reply.status = impostor->other_id ? THORAX__V1__STATUS__STATUS_BUSY : THORAX__V1__STATUS__STATUS_OK;
    reply.request_id = impostor->other_id ? "another" : "";
    envelope.protocol_version = MESSAGE_PROTOCOL_VERSION;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REPLY;
    envelope.diagnosis_reply = &reply;
    assert_true(message_pack(&envelope.base, &packed, NULL));
    struct wire_frame frames[] = {
        message->frames[0], message->frames[1], {"", 0}, {packed.data, packed.size}};
    wire_send(impostor->socket, frames, 4, 0, NULL);
    free(packed.data);
}

static void *pretend(void *argument) {
    struct impostor *impostor = argument;
    while (!atomic_load(&impostor->stop)) {
        struct wire_message message;
        if (wire_receive(impostor->socket, &message, 20, NULL)) {
            if (!impostor->silent)
                answer_wrongly(impostor, &message);
            wire_message_fini(&message);
        }
    }
    return NULL;
}

static void start_impostor(struct impostor *impostor) {
    const char *const bind[] = {"tcp://127.0.0.1:*", NULL};
    struct wire_socket_spec spec = {.kind = WIRE_ROUTER, .bind = bind};
    impostor->context = wire_context_create(1, NULL);
    impostor->socket = wire_socket_open(impostor->context, &spec, NULL);
    assert_non_null(wire_socket_bound(impostor->socket, 0, impostor->endpoint, sizeof impostor->endpoint));
    assert_int_equal(pthread_create(&impostor->thread, NULL, pretend, impostor), 0);
}

static void stop_impostor(struct impostor *impostor) {
    atomic_store(&impostor->stop, true);
    pthread_join(impostor->thread, NULL);
    wire_socket_close(impostor->socket);
    wire_context_destroy(impostor->context);
}

static void a_reply_that_fails_its_check_is_wrong(void **state) {
    (void)state;
    for (int other_id = 0; other_id < 2; other_id++) {
        struct impostor impostor = {.other_id = other_id};
        start_impostor(&impostor);
        const char *const endpoints[] = {impostor.endpoint};
        struct bench_result *result =
            run(endpoints, 1, (struct bench_pacer_spec){.outstanding = 2, .requests = 10}, TIMEOUT_MS);
        assert_int_equal(result->wrong, 10);
        assert_int_equal(result->latency.total + bench_refused(result) + result->lost, 0);
        assert_int_equal(result->failure.code, ERROR_PEER);
        free(result);
        stop_impostor(&impostor);
    }
}

static void what_gets_no_reply_is_lost(void **state) {
    (void)state;
    struct impostor impostor = {.silent = true};
    start_impostor(&impostor);
    const char *const endpoints[] = {impostor.endpoint};
    struct bench_result *result =
        run(endpoints, 1, (struct bench_pacer_spec){.rate = 100, .outstanding = 10, .requests = 5, .seed = 1},
            150);
    assert_int_equal(result->sent, 5);
    assert_int_equal(result->lost, 5);
    assert_int_equal(result->failure.code, ERROR_TIMEOUT);
    free(result);
    stop_impostor(&impostor);
}

/* ---- the report ---- */

/** Two runs' buckets, added up, are the buckets of all values. */
static void buckets_in_json_add_up(void **state) {
    (void)state;
    static struct bench_result result;
    char *text = NULL;
    size_t size = 0;
    uint64_t values = 0;
    result.seconds = 2;
    result.pace.rate = 10;
    result.by_status[THORAX__V1__STATUS__STATUS_BUSY] = 4;
    for (uint64_t value = 1; value < 1000000; value *= 3, values++)
        histogram_record(&result.latency, value);
    FILE *out = open_memstream(&text, &size);
    bench_report(&result, true, out);
    fclose(out);
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    static struct histogram sum;
    json_t *buckets = json_object_get(json_object_get(root, "latency_histogram"), "buckets");
    for (int run_count = 0; run_count < 2; run_count++) {
        for (size_t i = 0; i < json_array_size(buckets); i++) {
            json_t *pair = json_array_get(buckets, i);
            histogram_add_bucket(&sum, (uint32_t)json_integer_value(json_array_get(pair, 0)),
                                 (uint64_t)json_integer_value(json_array_get(pair, 1)));
        }
    }
    assert_int_equal(sum.total, 2 * values);
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
        assert_int_equal(sum.counts[i], 2 * result.latency.counts[i]);
    assert_int_equal(json_integer_value(json_object_get(root, "answered")), values);
    assert_int_equal(json_integer_value(json_object_get(root, "refused")), 4);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(root, "refused_by_status"), "BUSY")),
                     4);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(root, "latency_us"), "p99")),
                     histogram_quantile_us(&result.latency, .99));
    json_decref(root);
    free(text);
}

static void saturation_is_the_best_step(void **state) {
    (void)state;
    static struct bench_result steps[3];
    static const int answers[] = {100, 300, 250};
    char *text = NULL;
    size_t size = 0;
    for (int i = 0; i < 3; i++) {
        steps[i].seconds = 2;
        steps[i].pace.outstanding = 1 << i;
        for (int k = 0; k < answers[i]; k++)
            histogram_record(&steps[i].latency, 1000);
    }
    FILE *out = open_memstream(&text, &size);
    bench_report_saturation(steps, 3, true, out);
    fclose(out);
    json_t *root = json_loads(text, 0, NULL);
    assert_true(json_real_value(json_object_get(root, "saturation_per_second")) == 150);
    assert_int_equal(json_integer_value(json_object_get(root, "askers")), 2);
    assert_int_equal(json_array_size(json_object_get(root, "steps")), 3);
    json_decref(root);
    free(text);
}

int main(void) {
    log_init("bench_load_test", LOG_ERROR + 1, LOG_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_closed_loop_is_answered_and_counted_by_model),
        cmocka_unit_test(an_open_loop_shares_its_requests_among_endpoints),
        cmocka_unit_test(latencies_count_from_the_intended_time),
        cmocka_unit_test(refusals_are_counted_by_status_and_are_no_failure),
        cmocka_unit_test(a_reply_that_fails_its_check_is_wrong),
        cmocka_unit_test(what_gets_no_reply_is_lost),
        cmocka_unit_test(buckets_in_json_add_up),
        cmocka_unit_test(saturation_is_the_best_step),
    };
    return cmocka_run_group_tests(tests, draw_images, free_images);
}
