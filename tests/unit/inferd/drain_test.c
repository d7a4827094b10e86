#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/wire/endpoint.h"
#include "common/wire/message.h"
#include "inferd/client/client.h"
#include "tests/unit/inferd/fake_model.h"
#include "tests/unit/inferd/fixture.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { TIMEOUT_MS = 15000, REQUESTS = 6 };

static const struct fake_model_spec SLOW = {
    .name = "slow", .logits = {0, 3, 0}, .compute_ms = 100, .max_batch = 1};

/** A bare asker with any number of requests outstanding. */
struct asker {
    struct wire_context *context;
    struct wire_socket *socket;
};

static void open_asker(struct asker *asker, const char *endpoint) {
    const char *const connect[] = {endpoint, NULL};
    struct wire_socket_spec spec = {.kind = WIRE_DEALER, .connect = connect};
    asker->context = wire_context_create(1, NULL);
    asker->socket = wire_socket_open(asker->context, &spec, NULL);
    assert_non_null(asker->socket);
}

static void close_asker(struct asker *asker) {
    wire_socket_close(asker->socket);
    wire_context_destroy(asker->context);
}

static void send_envelope(struct asker *asker, const Thorax__V1__Envelope *envelope) {
    struct bytes packed;
    assert_true(message_pack(&envelope->base, &packed, NULL));
    struct wire_frame frames[] = {{"", 0}, {packed.data, packed.size}};
    assert_true(wire_send(asker->socket, frames, 2, TIMEOUT_MS, NULL));
    free(packed.data);
}

static void send_drain(struct asker *asker) {
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    Thorax__V1__DrainRequest request = THORAX__V1__DRAIN_REQUEST__INIT;
    envelope.protocol_version = MESSAGE_PROTOCOL_VERSION;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_DRAIN_REQUEST;
    envelope.drain_request = &request;
    send_envelope(asker, &envelope);
}

static void send_question(struct asker *asker, const struct bytes *image) {
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    Thorax__V1__DiagnosisRequest request = THORAX__V1__DIAGNOSIS_REQUEST__INIT;
    request.request_id = "some";
    request.image_case = THORAX__V1__DIAGNOSIS_REQUEST__IMAGE_ENCODED;
    request.encoded = (ProtobufCBinaryData){image->size, image->data};
    envelope.protocol_version = MESSAGE_PROTOCOL_VERSION;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REQUEST;
    envelope.diagnosis_request = &request;
    send_envelope(asker, &envelope);
}

/** Owned (message_free); fails the test where nothing comes. */
static Thorax__V1__Envelope *receive(struct asker *asker) {
    struct wire_message message;
    struct error err = {0};
    struct message_limits limits = {.max_bytes = 1 << 20, .max_fields = 512, .max_depth = 4};
    if (!wire_receive(asker->socket, &message, TIMEOUT_MS, &err))
        fail_msg("%s", err.message);
    Thorax__V1__Envelope *envelope = (Thorax__V1__Envelope *)message_unpack(
        &thorax__v1__envelope__descriptor, message.frames[message.count - 1], &limits, &err);
    if (!envelope)
        fail_msg("%s", err.message);
    wire_message_fini(&message);
    return envelope;
}

/** All was sent on one socket, so it arrives in this order: questions, drain, one question more. */
static void what_came_before_is_answered_and_what_comes_after_is_not_ready(void **state) {
    (void)state;
    struct fixture fixture;
    struct asker asker;
    struct server_spec spec = fixture_spec();
    struct bytes image = fixture_image(1);
    int answered = 0, refused = 0, drained = 0;
    fixture_start(&fixture, &spec, fake_model(&SLOW));
    open_asker(&asker, fixture.endpoint);
    for (int i = 0; i < REQUESTS; i++)
        send_question(&asker, &image);
    send_drain(&asker);
    send_question(&asker, &image);
    for (int i = 0; i < REQUESTS + 2; i++) {
        Thorax__V1__Envelope *envelope = receive(&asker);
        if (envelope->body_case == THORAX__V1__ENVELOPE__BODY_DRAIN_REPLY) {
            drained++;
            assert_int_equal(envelope->drain_reply->status, THORAX__V1__STATUS__STATUS_OK);
            assert_in_range(envelope->drain_reply->in_flight, 1, REQUESTS);
            assert_int_equal(envelope->drain_reply->timeout_ms, spec.drain_timeout_ms);
        } else {
            answered += envelope->diagnosis_reply->status == THORAX__V1__STATUS__STATUS_OK;
            refused += envelope->diagnosis_reply->status == THORAX__V1__STATUS__STATUS_NOT_READY;
        }
        message_free(&envelope->base);
    }
    assert_int_equal(answered, REQUESTS);
    assert_int_equal(refused, 1);
    assert_int_equal(drained, 1);
    fixture_stop(&fixture);
    assert_true(fixture.drained);
    close_asker(&asker);
    free(image.data);
}

static void where_it_is_not_allowed_the_member_serves_on(void **state) {
    (void)state;
    struct fixture fixture;
    struct asker asker;
    struct server_spec spec = fixture_spec();
    struct bytes image = fixture_image(1);
    spec.allow_drain = false;
    fixture_start(&fixture, &spec, fake_model(&SLOW));
    open_asker(&asker, fixture.endpoint);
    send_drain(&asker);
    Thorax__V1__Envelope *envelope = receive(&asker);
    assert_int_equal(envelope->body_case, THORAX__V1__ENVELOPE__BODY_DRAIN_REPLY);
    assert_int_not_equal(envelope->drain_reply->status, THORAX__V1__STATUS__STATUS_OK);
    assert_true(*envelope->drain_reply->message);
    message_free(&envelope->base);
    assert_false(server_draining(fixture.server));
    send_question(&asker, &image);
    envelope = receive(&asker);
    assert_int_equal(envelope->diagnosis_reply->status, THORAX__V1__STATUS__STATUS_OK);
    message_free(&envelope->base);
    fixture_stop(&fixture);
    close_asker(&asker);
    free(image.data);
}

int main(void) {
    log_init("drain_test", LOG_ERROR + 1, LOG_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_came_before_is_answered_and_what_comes_after_is_not_ready),
        cmocka_unit_test(where_it_is_not_allowed_the_member_serves_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
