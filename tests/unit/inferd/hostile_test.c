#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/wire/message.h"
#include "inferd/client/client.h"
#include "tests/unit/inferd/fake_model.h"
#include "tests/unit/inferd/fixture.h"
#include "tests/unit/inferd/router_fixture.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { TIMEOUT_MS = 15000 };

/** A server with a fake model, alone or behind a router, and a bare DEALER that says whatever it likes. */
struct attack {
    struct fixture fixture;
    struct router_fixture router;
    bool is_routed;
    const char *member, *endpoint; /* of the server, and of what is attacked */
    struct wire_context *context;
    struct wire_socket *socket;
};

static int attack_start(void **state, bool is_routed) {
    struct attack *attack = calloc(1, sizeof *attack);
    struct server_spec spec = fixture_spec();
    fixture_start(&attack->fixture, &spec,
                  fake_model(&(struct fake_model_spec){.name = "sick", .logits = {0, 3, 0}}));
    attack->member = attack->endpoint = attack->fixture.endpoint;
    attack->is_routed = is_routed;
    if (is_routed) {
        struct router_spec router = router_fixture_spec(&attack->member, 1);
        router_fixture_start(&attack->router, &router);
        attack->endpoint = attack->router.endpoint;
    }
    const char *const connect[] = {attack->endpoint, NULL};
    attack->context = wire_context_create(1, NULL);
    attack->socket = wire_socket_open(
        attack->context, &(struct wire_socket_spec){.kind = WIRE_DEALER, .connect = connect}, NULL);
    *state = attack;
    return attack->socket ? 0 : -1;
}

static int attack_init(void **state) {
    return attack_start(state, false);
}

static int attack_router_init(void **state) {
    return attack_start(state, true);
}

static int attack_fini(void **state) {
    struct attack *attack = *state;
    wire_socket_close(attack->socket);
    wire_context_destroy(attack->context);
    if (attack->is_routed) {
        router_fixture_stop(&attack->router);
    }
    fixture_stop(&attack->fixture);
    bool drained = attack->fixture.drained && (!attack->is_routed || attack->router.drained);
    free(attack);
    return drained ? 0 : -1;
}

/** Waits for the reply to a hostile message and returns its status; fails where it could be read as an
 * answer. */
static Thorax__V1__Status status_of_reply(struct attack *attack) {
    struct message_limits limits = {1 << 20, 512, 4};
    struct wire_message message;
    struct error err = {0};
    if (!wire_receive(attack->socket, &message, TIMEOUT_MS, &err)) {
        fail_msg("no reply: %s", err.message);
    }
    Thorax__V1__Envelope *envelope = (Thorax__V1__Envelope *)message_unpack(
        &thorax__v1__envelope__descriptor, message.frames[message.count - 1], &limits, &err);
    if (!envelope) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(envelope->body_case, THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REPLY);
    const Thorax__V1__DiagnosisReply *reply = envelope->diagnosis_reply;
    Thorax__V1__Status status = reply->status;
    assert_int_not_equal(status, THORAX__V1__STATUS__STATUS_UNSPECIFIED);
    assert_true(status == THORAX__V1__STATUS__STATUS_OK ||
                (reply->n_probabilities == 0 && reply->decision == 0 && strlen(reply->message) > 0));
    message_free(&envelope->base);
    wire_message_fini(&message);
    return status;
}

/** Another asker, who does all well, still gets a right answer. */
static void assert_next_request_is_answered(const struct attack *attack) {
    struct client_reply reply;
    struct error err = {0};
    struct bytes image = fixture_image(7);
    struct client *client = client_open(&(struct client_spec){.endpoint = attack->endpoint}, NULL);
    struct client_request request = {.image = image.data, .image_size = image.size, .timeout_ms = TIMEOUT_MS};
    if (!client_diagnose(client, &request, &reply, &err)) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(reply.diagnosis->status, THORAX__V1__STATUS__STATUS_OK);
    client_reply_fini(&reply);
    client_close(client);
    free(image.data);
}

static void send_payload(struct attack *attack, const void *data, size_t size) {
    struct wire_frame frames[] = {{"", 0}, {data, size}};
    assert_true(wire_send(attack->socket, frames, 2, TIMEOUT_MS, NULL));
}

static void messages_without_form_are_refused(void **state) {
    struct attack *attack = *state;
    static const struct wire_frame empty = {"", 0}, word = {"word", 4};
    static char long_frame[2000];
    const struct wire_frame long_one = {long_frame, sizeof long_frame};
    memset(long_frame, 'x', sizeof long_frame);
    const struct {
        int count;
        struct wire_frame frames[24];
        Thorax__V1__Status status;
    } rows[] = {
        {1, {empty}, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {1, {word}, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {2, {empty, empty}, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {2, {word, empty}, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {3, {empty, word, word}, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {3, {empty, empty, empty}, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {3, {long_one, empty, word}, THORAX__V1__STATUS__STATUS_TOO_LARGE},
        {20,
         {word, word, word, word, word, word, word, word, word,  word,
          word, word, word, word, word, word, word, word, empty, word},
         THORAX__V1__STATUS__STATUS_TOO_LARGE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_true(wire_send(attack->socket, rows[i].frames, rows[i].count, TIMEOUT_MS, NULL));
        assert_int_equal(status_of_reply(attack), rows[i].status);
    }
    assert_next_request_is_answered(attack);
}

static void random_bytes_are_refused(void **state) {
    struct attack *attack = *state;
    uint8_t noise[512];
    struct rng rng;
    rng_init(&rng, 1, RNG_TEST, 0, 0);
    for (int round = 0; round < 300; round++) {
        size_t size = 1 + rng_below(&rng, sizeof noise);
        for (size_t i = 0; i < size; i++) {
            noise[i] = (uint8_t)rng_u32(&rng);
        }
        send_payload(attack, noise, size);
        assert_int_not_equal(status_of_reply(attack), THORAX__V1__STATUS__STATUS_OK);
    }
    assert_next_request_is_answered(attack);
}

/** A request that is right, for tests that spoil it. Owned. */
static struct bytes good_request(uint64_t seed) {
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    Thorax__V1__DiagnosisRequest request = THORAX__V1__DIAGNOSIS_REQUEST__INIT;
    struct bytes image = fixture_image(seed), packed;
    char id[] = "good";
    request.request_id = id;
    request.image_case = THORAX__V1__DIAGNOSIS_REQUEST__IMAGE_ENCODED;
    request.encoded = (ProtobufCBinaryData){image.size, image.data};
    envelope.protocol_version = MESSAGE_PROTOCOL_VERSION;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REQUEST;
    envelope.diagnosis_request = &request;
    assert_true(message_pack(&envelope.base, &packed, NULL));
    free(image.data);
    return packed;
}

static void a_request_cut_anywhere_is_refused(void **state) {
    struct attack *attack = *state;
    struct bytes request = good_request(3);
    for (size_t size = 1; size < request.size; size += 1 + size / 6) {
        send_payload(attack, request.data, size);
        assert_int_not_equal(status_of_reply(attack), THORAX__V1__STATUS__STATUS_OK);
    }
    send_payload(attack, request.data, request.size);
    assert_int_equal(status_of_reply(attack), THORAX__V1__STATUS__STATUS_OK);
    free(request.data);
}

static void a_request_with_a_flipped_byte_gets_some_reply(void **state) {
    struct attack *attack = *state;
    struct bytes request = good_request(4);
    for (size_t at = 0; at < request.size && at < 400; at += 3) {
        request.data[at] ^= 0xff;
        send_payload(attack, request.data, request.size);
        status_of_reply(attack);
        request.data[at] ^= 0xff;
    }
    assert_next_request_is_answered(attack);
    free(request.data);
}

static void the_damaged_image_inside_a_good_request_is_refused(void **state) {
    struct attack *attack = *state;
    struct bytes request = good_request(5);
    /* The image is the request's last field: half of it becomes zeros, which no PNG check sum forgives. */
    memset(request.data + request.size / 2, 0, request.size - request.size / 2);
    send_payload(attack, request.data, request.size);
    assert_int_equal(status_of_reply(attack), THORAX__V1__STATUS__STATUS_UNSUPPORTED_MEDIA);
    free(request.data);
}

/** Packed bytes, what is wrong with them, and the status that they get. */
static void malformed_fields_are_refused(void **state) {
    struct attack *attack = *state;
    const struct {
        const char *what, *bytes;
        size_t size;
        Thorax__V1__Status status;
    } rows[] = {
        {"no version", "\x12\x00", 2, THORAX__V1__STATUS__STATUS_UNSUPPORTED_VERSION},
        {"version 2", "\x08\x02\x12\x00", 4, THORAX__V1__STATUS__STATUS_UNSUPPORTED_VERSION},
        {"huge version", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x12\x00", 13,
         THORAX__V1__STATUS__STATUS_UNSUPPORTED_VERSION},
        {"no body", "\x08\x01", 2, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {"empty request", "\x08\x01\x12\x00", 4, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {"a reply", "\x08\x01\x1a\x00", 4, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {"two bodies", "\x08\x01\x12\x03\x0a\x01x\x22\x00", 9, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {"the body twice", "\x08\x01\x12\x03\x0a\x01x\x12\x03\x0a\x01y", 12,
         THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {"no image", "\x08\x01\x12\x03\x0a\x01x", 7, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {"priority 9", "\x08\x01\x12\x05\x0a\x01x\x20\x09", 9, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {"view -1", "\x08\x01\x12\x0e\x0a\x01x\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 18,
         THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {"id not UTF-8", "\x08\x01\x12\x03\x0a\x01\xff", 7, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {"id with a NUL", "\x08\x01\x12\x05\x0a\x03x\0y", 9, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {"id of the wrong wire type", "\x08\x01\x12\x02\x08\x01", 6,
         THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {"two images", "\x08\x01\x12\x09\x0a\x01x\x4a\x01y\x4a\x01z", 13,
         THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {"image and raw", "\x08\x01\x12\x08\x0a\x01x\x4a\x01y\x52\x00", 12,
         THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {"empty raw", "\x08\x01\x12\x05\x0a\x01x\x52\x00", 9, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {"a group", "\x08\x01\x0b\x0c", 4, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {"field number 0", "\x08\x01\x00\x00", 4, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {"length past the end", "\x08\x01\x12\xff\xff\xff\xff\x0f", 8,
         THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        send_payload(attack, rows[i].bytes, rows[i].size);
        Thorax__V1__Status status = status_of_reply(attack);
        if (status != rows[i].status) {
            fail_msg("%s: %s", rows[i].what, client_status_name(status));
        }
    }
    assert_next_request_is_answered(attack);
}

static void a_bomb_of_fields_is_too_large(void **state) {
    struct attack *attack = *state;
    enum { FIELDS = 200000 };
    uint8_t *bomb = malloc(2 + 2 * FIELDS);
    memcpy(bomb, "\x08\x01", 2);
    for (int i = 0; i < FIELDS; i++) {
        memcpy(bomb + 2 + 2 * i, "\x78\x01", 2); /* unknown field 15 */
    }
    send_payload(attack, bomb, 2 + 2 * FIELDS);
    assert_int_equal(status_of_reply(attack), THORAX__V1__STATUS__STATUS_TOO_LARGE);
    assert_next_request_is_answered(attack);
    free(bomb);
}

static void a_message_over_the_limit_is_too_large(void **state) {
    struct attack *attack = *state;
    size_t size = (1 << 20) + 1;
    uint8_t *large = calloc(1, size);
    memcpy(large, "\x08\x01", 2);
    send_payload(attack, large, size);
    assert_int_equal(status_of_reply(attack), THORAX__V1__STATUS__STATUS_TOO_LARGE);
    assert_next_request_is_answered(attack);
    free(large);
}

static void a_message_over_twice_the_limit_only_costs_its_sender_the_connection(void **state) {
    struct attack *attack = *state;
    size_t size = (2 << 20) + 1;
    uint8_t *huge = calloc(1, size);
    struct wire_message message;
    send_payload(attack, huge, size);
    assert_false(wire_receive(attack->socket, &message, 300, NULL));
    assert_next_request_is_answered(attack);
    free(huge);
}

/** Raw pixels in an envelope, and the status that they get. */
static void raw_pixels_are_checked(void **state) {
    struct attack *attack = *state;
    static uint8_t pixels[64 * 64 * 2];
    const struct {
        uint32_t rows, columns, allocated, stored;
        Thorax__V1__Photometric photometric;
        size_t size;
        Thorax__V1__Status status;
    } rows[] = {
        {64, 64, 8, 8, 2, 64 * 64, THORAX__V1__STATUS__STATUS_OK},
        {64, 64, 16, 12, 1, 64 * 64 * 2, THORAX__V1__STATUS__STATUS_OK},
        {64, 64, 8, 8, 2, 64 * 64 - 1, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {64, 64, 8, 8, 2, 64 * 64 + 1, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {64, 64, 8, 8, 0, 64 * 64, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {64, 64, 12, 8, 2, 64 * 64, THORAX__V1__STATUS__STATUS_UNSUPPORTED_MEDIA},
        {64, 64, 8, 9, 2, 64 * 64, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {0, 64, 8, 8, 2, 64 * 64, THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT},
        {65536, 65536, 8, 8, 2, 64, THORAX__V1__STATUS__STATUS_TOO_LARGE},
        {0xffffffff, 0xffffffff, 16, 16, 2, 2, THORAX__V1__STATUS__STATUS_TOO_LARGE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
        Thorax__V1__DiagnosisRequest request = THORAX__V1__DIAGNOSIS_REQUEST__INIT;
        Thorax__V1__RawPixels raw = THORAX__V1__RAW_PIXELS__INIT;
        struct bytes packed;
        char id[] = "raw";
        raw.rows = rows[i].rows;
        raw.columns = rows[i].columns;
        raw.bits_allocated = rows[i].allocated;
        raw.bits_stored = rows[i].stored;
        raw.photometric = rows[i].photometric;
        raw.data = (ProtobufCBinaryData){rows[i].size, pixels};
        request.request_id = id;
        request.image_case = THORAX__V1__DIAGNOSIS_REQUEST__IMAGE_RAW;
        request.raw = &raw;
        envelope.protocol_version = MESSAGE_PROTOCOL_VERSION;
        envelope.body_case = THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REQUEST;
        envelope.diagnosis_request = &request;
        assert_true(message_pack(&envelope.base, &packed, NULL));
        send_payload(attack, packed.data, packed.size);
        free(packed.data);
        Thorax__V1__Status status = status_of_reply(attack);
        if (status != rows[i].status) {
            fail_msg("row %zu: %s", i, client_status_name(status));
        }
    }
}

static void every_frame_before_the_delimiter_comes_back(void **state) {
    struct attack *attack = *state;
    struct bytes request = good_request(6);
    struct wire_message message;
    struct wire_frame frames[] = {{"proxy\0one", 9}, {"\x01", 1}, {"", 0}, {request.data, request.size}};
    assert_true(wire_send(attack->socket, frames, 4, TIMEOUT_MS, NULL));
    assert_true(wire_receive(attack->socket, &message, TIMEOUT_MS, NULL));
    assert_int_equal(message.count, 4);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(message.frames[i].size, frames[i].size);
        assert_memory_equal(message.frames[i].data, frames[i].data, frames[i].size);
    }
    wire_message_fini(&message);
    free(request.data);
}

int main(void) {
    log_init("hostile_test", LOG_ERROR + 1, LOG_TEXT);
/* Each against a member, and against a router in front of one: askers must not see a difference. */
#define HOSTILE_TEST(name)                                                                                   \
    cmocka_unit_test_setup_teardown(name, attack_init, attack_fini),                                         \
        cmocka_unit_test_setup_teardown(name, attack_router_init, attack_fini)
    const struct CMUnitTest tests[] = {
        HOSTILE_TEST(messages_without_form_are_refused),
        HOSTILE_TEST(random_bytes_are_refused),
        HOSTILE_TEST(a_request_cut_anywhere_is_refused),
        HOSTILE_TEST(a_request_with_a_flipped_byte_gets_some_reply),
        HOSTILE_TEST(the_damaged_image_inside_a_good_request_is_refused),
        HOSTILE_TEST(malformed_fields_are_refused),
        HOSTILE_TEST(a_bomb_of_fields_is_too_large),
        HOSTILE_TEST(a_message_over_the_limit_is_too_large),
        HOSTILE_TEST(a_message_over_twice_the_limit_only_costs_its_sender_the_connection),
        HOSTILE_TEST(raw_pixels_are_checked),
        HOSTILE_TEST(every_frame_before_the_delimiter_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
