#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/pool/message.h"
#include "common/wire/endpoint.h"
#include "tests/integration/pool_fixture.h"
#include "trainerd/trainctl/models.h"
#include "trainerd/trainctl/publish.h"
#include "trainerd/upload.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The publisher's control socket: trainctl publish and models. */

/** Sends one request as trainctl would; the reply is owned. */
static Thorax__V1__ControlReply *converse(struct pool *pool, Thorax__V1__ControlRequest *request) {
    const char *const connect[] = {pool->control, NULL};
    struct wire_context *wire = wire_context_create(1, NULL);
    struct wire_socket_spec spec = {.kind = WIRE_DEALER, .connect = connect};
    struct wire_socket *socket = wire_socket_open(wire, &spec, NULL);
    struct packed packed = pool_pack(&request->base);
    struct wire_frame frame = {packed.data, packed.size};
    struct wire_message message = {0};
    assert_true(wire_send(socket, &frame, 1, 1000, NULL));
    assert_true(wire_receive(socket, &message, WAIT_MS, NULL));
    Thorax__V1__ControlReply *reply = pool_unpack_reply(message.frames[0].data, message.frames[0].size, NULL);
    assert_non_null(reply);
    wire_message_fini(&message);
    free(packed.data);
    wire_socket_close(socket);
    wire_context_destroy(wire);
    return reply;
}

static void another_version_of_the_protocol_is_refused_in_words(void **state) {
    struct pool *pool = *state;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    Thorax__V1__ControlRequest request;
    Thorax__V1__ModelsRequest models;
    thorax__v1__control_request__init(&request);
    thorax__v1__models_request__init(&models);
    request.protocol_version = POOL_PROTOCOL_VERSION + 1;
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_MODELS;
    request.models = &models;
    Thorax__V1__ControlReply *reply = converse(pool, &request);
    assert_int_equal(reply->body_case, THORAX__V1__CONTROL_REPLY__BODY_REFUSAL);
    assert_int_equal(reply->refusal->code, THORAX__V1__REFUSAL_CODE__REFUSAL_UNSUPPORTED_VERSION);
    pool_free(reply);
}

/** Uploads as `trainctl publish` does, up to the look into the file. */
static bool upload(struct pool *pool, uint32_t seed, size_t size, struct digest *digest, struct error *err) {
    struct control control;
    struct descriptor descriptor;
    char gate[REGISTRY_TEXT_SIZE];
    void *data = model_bytes(seed, size);
    assert_true(descriptor_make(
        &descriptor, &(struct descriptor_spec){.name = "chest", .version = "1", .data = data, .size = size},
        NULL));
    *digest = descriptor.digest;
    assert_true(control_open(&control, pool->control, WAIT_MS, NULL, NULL));
    bool ok = upload_model(&control, &descriptor, data, false, gate, err);
    control_close(&control);
    descriptor_fini(&descriptor);
    free(data);
    return ok;
}

static void an_uploaded_model_reaches_the_pool(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    struct digest digest;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    daemon_init(&daemon, pool, 0);
    daemon_run(&daemon);
    assert_true(upload(pool, 1, 3 * SMALL_BYTES, &digest, NULL));
    wait_for(&daemon, &digest, runs);
    assert_true(upload(pool, 1, 3 * SMALL_BYTES, &digest, NULL)); /* once more is no error */
    daemon_stop(&daemon);
    assert_int_equal(atomic_load(&daemon.activations), 1);
}

static void what_is_no_model_is_not_published(void **state) {
    struct pool *pool = *state;
    struct publisher_status status;
    struct digest digest;
    struct error err = {0};
    char path[128];
    start_inspecting_publisher(pool, PUBLISHER_ACTIVATE_AUTO, true);
    assert_false(upload(pool, 1, SMALL_BYTES, &digest, &err));
    snprintf(path, sizeof path, "%s/model", pool->folder);
    assert_true(file_write_atomic(path, "no", 2, NULL));
    assert_false(publisher_publish_file(pool->publisher, path, NULL, NULL, NULL, &err));
    assert_int_equal(err.code, ERROR_FORMAT);
    char *argv[] = {"publish", path, "--to", pool->control, NULL};
    assert_int_equal(command_publish(4, argv), 1);
    assert_true(publisher_status(pool->publisher, &status, NULL));
    assert_int_equal(status.models, 0);
    assert_int_equal(status.number, 0);
}

static void an_upload_that_lies_about_its_digest_is_refused(void **state) {
    struct pool *pool = *state;
    struct control control;
    struct descriptor descriptor;
    struct publisher_status status;
    struct error err = {0};
    char gate[REGISTRY_TEXT_SIZE];
    uint8_t *data = model_bytes(1, SMALL_BYTES);
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    assert_true(descriptor_make(
        &descriptor,
        &(struct descriptor_spec){.name = "chest", .version = "1", .data = data, .size = SMALL_BYTES}, NULL));
    data[SMALL_BYTES - 1] ^= 1; /* the bytes are not those that were described */
    assert_true(control_open(&control, pool->control, WAIT_MS, NULL, NULL));
    assert_false(upload_model(&control, &descriptor, data, false, gate, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    control_close(&control);
    descriptor_fini(&descriptor);
    free(data);
    assert_true(publisher_status(pool->publisher, &status, NULL));
    assert_int_equal(status.models, 0);
}

static void models_lists_models_and_members(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    daemon_init(&daemon, pool, 0);
    daemon_run(&daemon);
    struct digest digest = publish(pool, 1, SMALL_BYTES);
    wait_stable(pool, &digest);
    digest = publish(pool, 2, SMALL_BYTES);
    wait_stable(pool, &digest);
    Thorax__V1__ControlRequest request;
    Thorax__V1__ModelsRequest models;
    thorax__v1__control_request__init(&request);
    thorax__v1__models_request__init(&models);
    request.protocol_version = POOL_PROTOCOL_VERSION;
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_MODELS;
    request.models = &models;
    clock_sleep_ms(2 * HEARTBEAT_MS);
    Thorax__V1__ControlReply *reply = converse(pool, &request);
    assert_int_equal(reply->models->n_models, 2);
    assert_int_equal(reply->models->models[0]->state, THORAX__V1__MODEL_STATE__MODEL_RETIRED);
    assert_int_equal(reply->models->models[1]->state, THORAX__V1__MODEL_STATE__MODEL_CURRENT);
    assert_int_equal(reply->models->n_members, 1);
    assert_memory_equal(reply->models->members[0]->report->active_digest.data, digest.bytes, 32);
    pool_free(reply);
    char *argv[] = {"models", "--at", pool->control, NULL};
    assert_int_equal(command_models(3, argv), 0);
    char *json[] = {"models", "--at", pool->control, "--json", NULL};
    assert_int_equal(command_models(4, json), 0);
    char *wrong[] = {"models", "--nonsense", NULL};
    assert_int_equal(command_models(2, wrong), 2);
    daemon_stop(&daemon);
}

int main(void) {
    log_init("publish_control_test", LOG_WARNING, LOG_TEXT);
    if (!digest_start(NULL))
        return 1;
#define TEST(name) cmocka_unit_test_setup_teardown(name, pool_setup, pool_teardown)
    const struct CMUnitTest tests[] = {
        TEST(another_version_of_the_protocol_is_refused_in_words),
        TEST(an_uploaded_model_reaches_the_pool),
        TEST(what_is_no_model_is_not_published),
        TEST(an_upload_that_lies_about_its_digest_is_refused),
        TEST(models_lists_models_and_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
