#include "inferd/client/question.h"
#include "common/wire/message.h"
#include "proto/envelope.pb-c.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const struct message_limits LIMITS = {1 << 20, 64, 3};
static char PICTURE[] = "a picture", KEY[] = "study";

static ProtobufCBinaryData bytes_of(char *text) {
    return (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
}

static Thorax__V1__DiagnosisRequest request_of(char *id) {
    Thorax__V1__DiagnosisRequest request = THORAX__V1__DIAGNOSIS_REQUEST__INIT;
    request.request_id = id;
    request.routing_key = bytes_of(KEY);
    request.priority = THORAX__V1__PRIORITY__PRIORITY_STAT;
    request.timeout_ms = 77;
    request.image_case = THORAX__V1__DIAGNOSIS_REQUEST__IMAGE_ENCODED;
    request.encoded = bytes_of(PICTURE);
    return request;
}

/** The envelope as a member would read it, by the strict rules. */
static Thorax__V1__Envelope *read_back(struct question *question, uint32_t timeout_ms) {
    struct error err = {0};
    Thorax__V1__Envelope *envelope = (Thorax__V1__Envelope *)message_unpack(
        &thorax__v1__envelope__descriptor, question_envelope(question, timeout_ms), &LIMITS, &err);
    if (!envelope) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(envelope->protocol_version, MESSAGE_PROTOCOL_VERSION);
    assert_int_equal(envelope->body_case, THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REQUEST);
    return envelope;
}

static void check_sending(struct question *question, uint32_t timeout_ms) {
    Thorax__V1__Envelope *envelope = read_back(question, timeout_ms);
    const Thorax__V1__DiagnosisRequest *request = envelope->diagnosis_request;
    assert_string_equal(request->request_id, "id");
    assert_int_equal(request->timeout_ms, timeout_ms);
    assert_int_equal(request->priority, THORAX__V1__PRIORITY__PRIORITY_STAT);
    assert_int_equal(request->routing_key.len, strlen(KEY));
    assert_int_equal(request->encoded.len, strlen(PICTURE));
    assert_memory_equal(request->encoded.data, PICTURE, strlen(PICTURE));
    assert_int_equal(request->pinned_model.len, question->has_pin ? 32 : 0);
    if (question->has_pin) {
        assert_memory_equal(request->pinned_model.data, question->pin.bytes, 32);
    }
    message_free(&envelope->base);
}

static void each_sending_has_its_own_time_and_pin_and_all_else_as_it_was(void **state) {
    (void)state;
    Thorax__V1__DiagnosisRequest request = request_of("id");
    struct question *question = question_pack(&request, NULL);
    assert_non_null(question);
    check_sending(question, 1);
    question->has_pin = true;
    memset(question->pin.bytes, 0xab, sizeof question->pin.bytes);
    check_sending(question, UINT32_MAX);
    question->has_pin = false;
    check_sending(question, 30000);
    question_destroy(question);
}

static void bytes_of_another_packer_are_kept_but_for_the_two_fields(void **state) {
    (void)state;
    static const uint8_t unknown[] = {0xba, 0x06, 0x02, 'h', 'i'}; /* field 103 */
    uint8_t packed[256], copy[256];
    Thorax__V1__DiagnosisRequest request = request_of("id");
    struct digest pin = {{7}};
    request.pinned_model = (ProtobufCBinaryData){sizeof pin, pin.bytes};
    size_t size = thorax__v1__diagnosis_request__pack(&request, packed);
    memcpy(packed + size, unknown, sizeof unknown);
    struct wire_frame frame = {packed, size + sizeof unknown};
    struct question *question = question_take(frame, &request, NULL);
    assert_non_null(question);
    assert_true(question->has_pin && digest_equal(&question->pin, &pin));
    check_sending(question, 5);
    struct wire_frame envelope = question_envelope(question, 5), found;
    assert_true(message_find(envelope, 2, &found));
    size = message_copy_without(found, (const uint32_t[]){1}, 1, copy);
    assert_memory_equal(copy + size - sizeof unknown, unknown, sizeof unknown);
    question_destroy(question);
}

static void what_a_reply_must_echo_is_taken_from_the_request(void **state) {
    (void)state;
    Thorax__V1__DiagnosisRequest request = request_of("id");
    struct digest image = digest_of(PICTURE, strlen(PICTURE));
    struct question *question = question_pack(&request, NULL);
    assert_string_equal(question->request_id, "id");
    assert_true(digest_equal(&question->image, &image));
    assert_true(question->urgent && !question->particular);
    question_destroy(question);
    request.model = "chest:3";
    question = question_pack(&request, NULL);
    assert_true(question->particular);
    question_destroy(question);
    request.model = "stable";
    question = question_pack(&request, NULL);
    assert_false(question->particular);
    question_destroy(question);
}

static void what_cannot_be_checked_later_is_refused(void **state) {
    (void)state;
    char long_id[130] = {0}, long_key[130] = {0};
    memset(long_id, 'x', 129);
    memset(long_key, 'x', 129);
    Thorax__V1__DiagnosisRequest rows[5];
    for (int i = 0; i < 5; i++) {
        rows[i] = request_of("id");
    }
    rows[0].request_id = "";
    rows[1].request_id = long_id;
    rows[2].routing_key = bytes_of(long_key);
    rows[3].encoded = (ProtobufCBinaryData){0, NULL};
    rows[4].pinned_model = bytes_of(KEY);
    for (int i = 0; i < 5; i++) {
        struct error err = {0};
        assert_null(question_pack(&rows[i], &err));
        assert_int_equal(err.code, ERROR_INVALID);
    }
}

int main(void) {
    assert_true(digest_start(NULL));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_sending_has_its_own_time_and_pin_and_all_else_as_it_was),
        cmocka_unit_test(bytes_of_another_packer_are_kept_but_for_the_two_fields),
        cmocka_unit_test(what_a_reply_must_echo_is_taken_from_the_request),
        cmocka_unit_test(what_cannot_be_checked_later_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
