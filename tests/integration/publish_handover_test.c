#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "tests/integration/pool_fixture.h"
#include "tests/unit/inferd/tiny_model.h"
#include "trainerd/handover.h"
#include "trainerd/trainctl/control.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* What a training job hands to a publisher elsewhere: nothing is lost while there is none, and nothing comes twice. */

enum { ANSWER_MS = 2000, PAUSE_MS = 50 };

static struct handover *open_handover(struct pool *pool) {
    struct error err = {0};
    char folder[128];
    snprintf(folder, sizeof folder, "%s/handover", pool->folder);
    struct handover_spec spec = {
        .endpoint = pool->control, .folder = folder, .answer_ms = ANSWER_MS, .retry_ms = PAUSE_MS};
    struct handover *handover = handover_create(&spec, &err);
    assert_string_equal(err.message, "");
    return handover;
}

/** A model file, added and removed at once, as a worker does that made a better one. */
static void add_model(struct pool *pool, struct handover *handover, const char *name) {
    char path[128];
    struct error err = {0};
    struct tiny_model_spec spec = {
        .name = name, .seed = (uint64_t)name[0], .temperature = 1, .architecture = "efficientnet_lite0"};
    snprintf(path, sizeof path, "%s/%s.safetensors", pool->folder, name);
    assert_true(tiny_model_write(path, &spec, NULL));
    assert_true(handover_add(handover, path, &err));
    assert_int_equal(unlink(path), 0);
}

static void next_result(struct handover *handover, struct handover_result *result) {
    for (int64_t deadline_ms = clock_now_ms() + WAIT_MS; !handover_next_result(handover, result); clock_sleep_ms(5))
        assert_true(clock_now_ms() < deadline_ms);
}

static void models_wait_for_the_publisher(void **state) {
    struct pool *pool = *state;
    struct handover *handover = open_handover(pool);
    struct handover_result result;
    struct publisher_status status;
    add_model(pool, handover, "a");
    add_model(pool, handover, "b");
    assert_int_equal(handover_waiting(handover), 2);
    assert_false(handover_next_result(handover, &result));
    start_inspecting_publisher(pool, PUBLISHER_ACTIVATE_MANUAL, true);
    handover_hurry(handover);
    next_result(handover, &result);
    assert_int_equal(result.fate, HANDOVER_DONE);
    assert_string_equal(result.done.name, "a");
    assert_false(file_exists(result.path));
    next_result(handover, &result);
    assert_string_equal(result.done.name, "b");
    assert_int_equal(handover_waiting(handover), 0);
    assert_true(publisher_status(pool->publisher, &status, NULL));
    assert_int_equal(status.models, 2);
    handover_destroy(handover);
}

static void what_is_left_is_taken_up_by_the_next(void **state) {
    struct pool *pool = *state;
    struct handover *handover = open_handover(pool);
    struct handover_result result;
    add_model(pool, handover, "a");
    handover_stop(handover);
    assert_true(handover_next_result(handover, &result));
    assert_int_equal(result.fate, HANDOVER_WAITS);
    assert_true(file_exists(result.path));
    assert_false(handover_next_result(handover, &result)); /* each is told once */
    handover_destroy(handover);
    start_inspecting_publisher(pool, PUBLISHER_ACTIVATE_MANUAL, true);
    handover = open_handover(pool);
    add_model(pool, handover, "b");
    next_result(handover, &result);
    assert_string_equal(result.done.name, "a");
    next_result(handover, &result);
    assert_string_equal(result.done.name, "b");
    handover_destroy(handover);
}

static void one_that_is_refused_does_not_hold_up_the_others(void **state) {
    struct pool *pool = *state;
    struct handover *handover = open_handover(pool);
    struct handover_result result;
    struct error err = {0};
    char path[128];
    start_inspecting_publisher(pool, PUBLISHER_ACTIVATE_MANUAL, true);
    snprintf(path, sizeof path, "%s/no.safetensors", pool->folder);
    assert_false(handover_add(handover, path, &err)); /* not there */
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    assert_true(file_write_atomic(path, "no", 2, NULL) && handover_add(handover, path, NULL));
    add_model(pool, handover, "a");
    next_result(handover, &result);
    assert_int_equal(result.fate, HANDOVER_REFUSED);
    assert_int_equal(result.error.code, ERROR_FORMAT);
    assert_true(file_exists(result.path));
    next_result(handover, &result);
    assert_int_equal(result.fate, HANDOVER_DONE);
    handover_destroy(handover);
}

/** Whom the newest rollout is about. */
static struct digest rolled_out(struct pool *pool) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__RolloutStatusRequest body;
    struct control_options options = {.endpoint = pool->control, .timeout_ms = WAIT_MS};
    struct digest digest = {{0}};
    thorax__v1__control_request__init(&request);
    thorax__v1__rollout_status_request__init(&body);
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_ROLLOUT_STATUS;
    request.rollout_status = &body;
    Thorax__V1__ControlReply *reply =
        control_ask_once(&options, &request, THORAX__V1__CONTROL_REPLY__BODY_ROLLOUT, NULL);
    assert_true(reply && pool_digest(&reply->rollout->model->digest, &digest));
    pool_free(reply);
    return digest;
}

/** Sends model_bytes of that seed, as once more after an answer that was lost, or as a person who means it. */
static struct digest send_model(struct pool *pool, uint32_t seed, bool once) {
    struct control control;
    struct descriptor descriptor;
    char gate[REGISTRY_TEXT_SIZE];
    void *data = model_bytes(seed, SMALL_BYTES);
    struct descriptor_spec spec = {.name = "chest", .version = "1", .data = data, .size = SMALL_BYTES};
    assert_true(descriptor_make(&descriptor, &spec, NULL));
    assert_true(control_open(&control, pool->control, WAIT_MS, NULL, NULL));
    assert_true(upload_model(&control, &descriptor, data, once, gate, NULL));
    struct digest digest = descriptor.digest;
    control_close(&control);
    descriptor_fini(&descriptor);
    free(data);
    return digest;
}

static void a_lost_answer_makes_nothing_current_again(void **state) {
    struct pool *pool = *state;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    struct digest first = send_model(pool, 1, true), second = send_model(pool, 2, true), now = rolled_out(pool);
    assert_true(digest_equal(&now, &second));
    send_model(pool, 1, true);
    now = rolled_out(pool);
    assert_true(digest_equal(&now, &second));
    send_model(pool, 1, false);
    now = rolled_out(pool);
    assert_true(digest_equal(&now, &first));
}

int main(void) {
    log_init("publish_handover_test", LOG_ERROR, LOG_TEXT);
    if (!digest_start(NULL))
        return 1;
#define TEST(name) cmocka_unit_test_setup_teardown(name, pool_setup, pool_teardown)
    const struct CMUnitTest tests[] = {
        TEST(models_wait_for_the_publisher),
        TEST(what_is_left_is_taken_up_by_the_next),
        TEST(one_that_is_refused_does_not_hold_up_the_others),
        TEST(a_lost_answer_makes_nothing_current_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
