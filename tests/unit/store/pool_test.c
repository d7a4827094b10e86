#include "common/base/rng.h"
#include "common/pool/descriptor.h"
#include "common/pool/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What arrives from the network is checked before anybody acts on it (common/pool). */

enum { SIZE = 600 * 1000, LIMIT = 1 << 20 };

static struct descriptor make(void) {
    struct descriptor descriptor;
    uint8_t *data = calloc(1, SIZE);
    data[SIZE - 1] = 1;
    assert_true(descriptor_make(
        &descriptor, &(struct descriptor_spec){.name = "chest", .version = "14", .data = data, .size = SIZE},
        NULL));
    free(data);
    return descriptor;
}

static void a_descriptor_survives_the_journey(void **state) {
    (void)state;
    struct descriptor descriptor = make(), other;
    Thorax__V1__PublishedModel model;
    descriptor_message(&descriptor, &model);
    assert_true(descriptor_parse(&other, &model, LIMIT, NULL));
    assert_string_equal(other.name, "chest");
    assert_string_equal(other.version, "14");
    assert_true(digest_equal(&other.digest, &descriptor.digest));
    assert_int_equal(other.size_bytes, SIZE);
    assert_int_equal(other.cut.count, 3); /* 262144, 262144, 75712 */
    assert_int_equal(descriptor_chunk_size(&other.cut, 2 * 262144), 75712);
    assert_int_equal(descriptor_chunk_size(&other.cut, 1), 0);
    assert_int_equal(descriptor_chunk_size(&other.cut, 3 * 262144), 0);
    struct digest chunk;
    uint8_t *zeros = calloc(1, 262144);
    chunk = digest_of(zeros, 262144);
    free(zeros);
    assert_memory_equal(other.cut.digests, chunk.bytes, 32);
    descriptor_fini(&other);
    descriptor_fini(&descriptor);
}

static void a_changed_descriptor_is_refused(void **state) {
    (void)state;
    struct descriptor descriptor = make(), other;
    Thorax__V1__PublishedModel model;
    descriptor_message(&descriptor, &model);
    for (size_t i = 0; i < descriptor.packed_size; i++) {
        descriptor.packed[i] ^= 1;
        assert_false(descriptor_parse(&other, &model, LIMIT, NULL));
        descriptor.packed[i] ^= 1;
    }
    descriptor_fini(&descriptor);
}

/** Whether a descriptor with this message's fields, rightly digested, is taken. */
static bool taken(Thorax__V1__ModelDescriptor *message) {
    uint8_t *packed = malloc(thorax__v1__model_descriptor__get_packed_size(message));
    size_t size = thorax__v1__model_descriptor__pack(message, packed);
    struct digest digest = digest_of(packed, size);
    struct descriptor descriptor;
    Thorax__V1__PublishedModel model;
    thorax__v1__published_model__init(&model);
    model.descriptor = (ProtobufCBinaryData){size, packed};
    model.descriptor_digest = pool_digest_field(&digest);
    struct error err = {0};
    bool ok = descriptor_parse(&descriptor, &model, LIMIT, &err);
    assert_true(ok || err.message[0]);
    descriptor_fini(&descriptor);
    free(packed);
    return ok;
}

static void every_field_has_its_range(void **state) {
    (void)state;
    uint8_t digests[64] = {0};
    Thorax__V1__ModelDescriptor good;
    thorax__v1__model_descriptor__init(&good);
    good.name = "chest";
    good.version = "1.2_rc-3";
    good.digest = (ProtobufCBinaryData){32, digests};
    good.size_bytes = 8000;
    good.chunk_bytes = 4096;
    good.chunk_digests = (ProtobufCBinaryData){64, digests};
    assert_true(taken(&good));
    static char *const names[] = {"", "../x", "a b", "a\nb", ".a", "caf\xc3\xa9", "a/b"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        Thorax__V1__ModelDescriptor bad = good;
        bad.name = names[i];
        assert_false(taken(&bad));
        bad.name = good.name;
        bad.version = names[i];
        assert_false(taken(&bad));
    }
    Thorax__V1__ModelDescriptor bad[8] = {good, good, good, good, good, good, good, good};
    bad[0].digest.len = 31;
    bad[1].size_bytes = 0;
    bad[2].size_bytes = LIMIT + 1;
    bad[3].size_bytes = UINT64_MAX;
    bad[4].chunk_bytes = 0;
    bad[5].chunk_bytes = DESCRIPTOR_MAX_CHUNK_BYTES + 1;
    bad[6].chunk_digests.len = 32;
    bad[7].size_bytes = 4096;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(taken(&bad[i]));
}

static void member_names_and_texts_are_checked(void **state) {
    (void)state;
    static const struct {
        char *member, *error;
        int kind;
        bool good;
    } rows[] = {
        {"member-1", "", 1, true},
        {"member-1", "no room left on disk", 5, true},
        {"", "", 1, false},
        {"../../etc", "", 1, false},
        {"member-1", "\x1b[2J", 5, false},
        {"member-1", "\xff\xfe", 5, false},
        {"member-1", "", 0, false},
        {"member-1", "", 6, false},
        {"member-1", "", -1, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Thorax__V1__ControlRequest request;
        Thorax__V1__MemberReport report;
        thorax__v1__control_request__init(&request);
        thorax__v1__member_report__init(&report);
        request.protocol_version = POOL_PROTOCOL_VERSION;
        request.report = &report;
        report.member = rows[i].member;
        report.error = rows[i].error;
        report.state = (Thorax__V1__MemberState)rows[i].kind;
        struct packed packed = pool_pack(&request.base);
        Thorax__V1__ControlRequest *read = pool_unpack_request(packed.data, packed.size, NULL);
        assert_int_equal(read != NULL, rows[i].good);
        pool_free(read);
        free(packed.data);
    }
}

static void what_a_member_says_is_always_heard(void **state) {
    (void)state;
    char out[16];
    assert_string_equal(pool_text(out, sizeof out, "fine"), "fine");
    assert_string_equal(pool_text(out, sizeof out, "a\nb\xc3\x7f\x1b"), "a?b???");
    assert_string_equal(pool_text(out, sizeof out, "0123456789abcdefgh"), "0123456789abcde");
}

static void a_frame_is_limited_before_it_is_parsed(void **state) {
    (void)state;
    struct error err = {0};
    uint8_t *large = calloc(1, POOL_MAX_MESSAGE_BYTES + 1);
    assert_null(pool_unpack_request(large, POOL_MAX_MESSAGE_BYTES + 1, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
    assert_null(pool_unpack_request(large, 0, &err));
    /* Two bytes each on the wire (field 3, length 0), a struct and a pointer each in memory. */
    for (size_t i = 0; i + 1 < POOL_MAX_MESSAGE_BYTES; i += 2)
        memcpy(large + i, "\x1a\x00", 2);
    assert_null(pool_unpack_state(large, POOL_MAX_MESSAGE_BYTES, &err));
    free(large);
}

static void noise_is_never_a_message(void **state) {
    (void)state;
    struct rng rng;
    rng_init(&rng, 7, RNG_TEST, 0, 0);
    for (int i = 0; i < 20000; i++) {
        uint8_t bytes[64];
        size_t size = 1 + rng_below(&rng, sizeof bytes);
        for (size_t k = 0; k < size; k++)
            bytes[k] = (uint8_t)rng_u32(&rng);
        if (size > 2)
            memcpy(bytes, "\x08\x01", 2); /* the right version: the rest gets its chance */
        pool_free(pool_unpack_announcement(bytes, size, NULL));
        pool_free(pool_unpack_request(bytes, size, NULL));
        pool_free(pool_unpack_reply(bytes, size, NULL));
        pool_free(pool_unpack_blob_request(bytes, size, NULL));
        pool_free(pool_unpack_blob_chunk(bytes, size, NULL));
        pool_free(pool_unpack_state(bytes, size, NULL));
    }
}

int main(void) {
    if (!digest_start(NULL))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_descriptor_survives_the_journey),
        cmocka_unit_test(a_changed_descriptor_is_refused),
        cmocka_unit_test(every_field_has_its_range),
        cmocka_unit_test(member_names_and_texts_are_checked),
        cmocka_unit_test(what_a_member_says_is_always_heard),
        cmocka_unit_test(a_frame_is_limited_before_it_is_parsed),
        cmocka_unit_test(noise_is_never_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
