#include "common/wire/message.h"
#include "proto/envelope.pb-c.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const struct message_limits LIMITS = {.max_bytes = 1000, .max_fields = 8, .max_depth = 3};

static enum error_code check(const char *bytes, size_t size) {
    struct error err = {0};
    bool ok =
        message_check(&thorax__v1__envelope__descriptor, (struct wire_frame){bytes, size}, &LIMITS, &err);
    assert_int_equal(ok, err.code == ERROR_NONE);
    return err.code;
}

/* Packed by hand from protobuf.dev's "Encoding": tag = number << 3 | wire type. */
static void each_rule_has_its_error(void **state) {
    (void)state;
    static const struct {
        const char *what, *bytes;
        size_t size;
        enum error_code code;
    } rows[] = {
        {"a version", "\x08\x01", 2, ERROR_NONE},
        {"an unknown field", "\x08\x01\x78\x05", 4, ERROR_NONE},
        {"unknown fixed fields",
         "\x79"
         "12345678"
         "\x7d"
         "1234",
         14, ERROR_NONE},
        {"nothing", "", 0, ERROR_FORMAT},
        {"a tag without its value", "\x08", 1, ERROR_FORMAT},
        {"a varint that does not end", "\x08\xff", 2, ERROR_FORMAT},
        {"a varint of 11 bytes", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, ERROR_FORMAT},
        {"field number 0", "\x00\x01", 2, ERROR_FORMAT},
        {"field number 2^29", "\x80\x80\x80\x80\x10\x01", 6, ERROR_FORMAT},
        {"wire type 3", "\x0b", 1, ERROR_FORMAT},
        {"wire type 6", "\x0e\x01", 2, ERROR_FORMAT},
        {"a short fixed64", "\x79\x01", 2, ERROR_FORMAT},
        {"a length past the end", "\x12\x05\x0a", 3, ERROR_FORMAT},
        {"a length of 2^63", "\x12\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11, ERROR_FORMAT},
        {"damage inside a nested message", "\x12\x01\x0a", 3, ERROR_FORMAT},
        {"a nested message as a number", "\x10\x01", 2, ERROR_FORMAT},
        {"the same field twice", "\x08\x01\x08\x01", 4, ERROR_INVALID},
        {"two members of a oneof", "\x12\x00\x22\x00", 4, ERROR_INVALID},
        {"an enum out of range", "\x12\x02\x20\x03", 4, ERROR_INVALID},
        {"an enum over 32 bits", "\x12\x07\x20\x81\x80\x80\x80\x80\x01", 9, ERROR_INVALID},
        {"an enum as bytes", "\x12\x03\x22\x01\x01", 5, ERROR_INVALID},
        {"an overlong UTF-8 NUL", "\x12\x04\x0a\x02\xc0\x80", 6, ERROR_INVALID},
        {"a lone surrogate", "\x12\x05\x0a\x03\xed\xa0\x80", 7, ERROR_INVALID},
        {"a NUL in a string", "\x12\x03\x0a\x01\x00", 5, ERROR_INVALID},
        {"nine fields", "\x78\x01\x78\x01\x78\x01\x78\x01\x78\x01\x78\x01\x78\x01\x78\x01\x78\x01", 18,
         ERROR_TOO_LARGE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum error_code code = check(rows[i].bytes, rows[i].size);
        if (code != rows[i].code) {
            fail_msg("%s: %s", rows[i].what, error_code_name(code));
        }
    }
}

static void more_bytes_than_the_limit_are_not_looked_at(void **state) {
    (void)state;
    char bytes[1001] = {0};
    assert_int_equal(check(bytes, sizeof bytes), ERROR_TOO_LARGE);
}

static void messages_deeper_than_the_limit_are_refused(void **state) {
    (void)state;
    struct message_limits shallow = {.max_bytes = 1000, .max_fields = 8, .max_depth = 2};
    struct wire_frame frame = {"\x12\x02\x3a\x00", 4}; /* Envelope { DiagnosisRequest { Age {} } } */
    struct error err = {0};
    assert_true(message_check(&thorax__v1__envelope__descriptor, frame, &LIMITS, &err));
    assert_false(message_check(&thorax__v1__envelope__descriptor, frame, &shallow, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
}

static void what_is_packed_unpacks_to_the_same(void **state) {
    (void)state;
    char id[] = "id-\xc3\xa4";
    uint8_t image[] = {1, 2, 3};
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    Thorax__V1__DiagnosisRequest request = THORAX__V1__DIAGNOSIS_REQUEST__INIT;
    struct bytes packed;
    request.request_id = id;
    request.priority = THORAX__V1__PRIORITY__PRIORITY_STAT;
    request.image_case = THORAX__V1__DIAGNOSIS_REQUEST__IMAGE_ENCODED;
    request.encoded = (ProtobufCBinaryData){sizeof image, image};
    envelope.protocol_version = MESSAGE_PROTOCOL_VERSION;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REQUEST;
    envelope.diagnosis_request = &request;
    assert_true(message_pack(&envelope.base, &packed, NULL));
    Thorax__V1__Envelope *back = (Thorax__V1__Envelope *)message_unpack(
        &thorax__v1__envelope__descriptor, (struct wire_frame){packed.data, packed.size}, &LIMITS, NULL);
    assert_non_null(back);
    assert_string_equal(back->diagnosis_request->request_id, id);
    assert_int_equal(back->diagnosis_request->priority, THORAX__V1__PRIORITY__PRIORITY_STAT);
    assert_memory_equal(back->diagnosis_request->encoded.data, image, sizeof image);
    message_free(&back->base);
    free(packed.data);
}

static void a_version_can_be_read_from_a_message_that_is_unknown_otherwise(void **state) {
    (void)state;
    uint64_t version;
    assert_true(message_peek((struct wire_frame){"\x08\x07\x12\x02\xff\xff", 6}, 1, &version));
    assert_int_equal(version, 7);
    assert_true(message_peek((struct wire_frame){"\x12\x00", 2}, 1, &version));
    assert_int_equal(version, 0);
    assert_false(message_peek((struct wire_frame){"\x12\x05", 2}, 1, &version));
}

static void fields_are_found_left_out_and_put_in_their_place(void **state) {
    (void)state;
    /* 1: 5, 2: "ab", 3: fixed64, 2000: 300 */
    static const char bytes[] = "\x08\x05\x12\x02"
                                "ab\x19"
                                "12345678\x80\x7d\xac\x02";
    struct wire_frame frame = {bytes, sizeof bytes - 1}, found;
    uint8_t out[sizeof bytes], put[2 * MESSAGE_FIELD_HEAD_MAX];
    assert_true(message_find(frame, 2, &found));
    assert_true(found.size == 2 && memcmp(found.data, "ab", 2) == 0);
    assert_false(message_find(frame, 1, &found)); /* a number */
    assert_false(message_find((struct wire_frame){"\x12\x05", 2}, 2, &found));
    assert_int_equal(message_copy_without(frame, (const uint32_t[]){1, 3}, 2, out), 8);
    assert_memory_equal(out, "\x12\x02"
                             "ab\x80\x7d\xac\x02",
                        8);
    assert_int_equal(message_copy_without((struct wire_frame){bytes, 5}, NULL, 0, out), 2); /* cut off */
    assert_int_equal(message_put_varint(2000, 300, put), 4);
    assert_memory_equal(put, "\x80\x7d\xac\x02", 4);
    assert_int_equal(message_put_head(2, 2, put), 2);
    assert_memory_equal(put, "\x12\x02", 2);
    assert_true(message_put_varint((1u << 29) - 1, UINT64_MAX, put) <= MESSAGE_FIELD_HEAD_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_rule_has_its_error),
        cmocka_unit_test(more_bytes_than_the_limit_are_not_looked_at),
        cmocka_unit_test(messages_deeper_than_the_limit_are_refused),
        cmocka_unit_test(what_is_packed_unpacks_to_the_same),
        cmocka_unit_test(fields_are_found_left_out_and_put_in_their_place),
        cmocka_unit_test(a_version_can_be_read_from_a_message_that_is_unknown_otherwise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
