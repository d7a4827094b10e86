#include "inferd/trust.h"

#include "common/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static const char bytes[] = "a model's file";

static struct descriptor describe(const char *architecture, const char *precision, uint64_t memory) {
    struct descriptor descriptor;
    struct descriptor_spec spec = {.name = "chest",
                                   .version = "1",
                                   .data = bytes,
                                   .size = sizeof bytes,
                                   .architecture = architecture,
                                   .precision = precision,
                                   .memory_bytes = memory};
    assert_true(descriptor_make(&descriptor, &spec, NULL));
    return descriptor;
}

static struct descriptor signed_by(const struct signature_key *key) {
    struct descriptor descriptor = describe("resnet18", "f32", 1 << 20);
    assert_true(descriptor_sign(&descriptor, key, NULL));
    return descriptor;
}

static struct signature_key make_key(char hex[2 * SIGNATURE_PUBLIC_SIZE + 1]) {
    struct signature_key key;
    assert_true(signature_key_generate(&key, NULL));
    for (int i = 0; i < SIGNATURE_PUBLIC_SIZE; i++)
        snprintf(hex + 2 * i, 3, "%02x", key.public_key[i]);
    return key;
}

static struct trust *make_trust(const struct trust_spec *spec) {
    struct error err = {0};
    struct trust *trust = trust_create(spec, &err);
    if (!trust)
        fail_msg("%s", err.message);
    return trust;
}

/** Refused, with these words in the reason; NULL: accepted. Finishes descriptor. */
static void expect(struct trust *trust, struct descriptor descriptor, const char *reason) {
    struct error err = {0};
    bool ok = trust_check(trust, &descriptor, &err);
    descriptor_fini(&descriptor);
    if (!reason) {
        assert_string_equal(err.message, "");
        assert_true(ok);
        return;
    }
    assert_false(ok);
    if (!strstr(err.message, reason))
        fail_msg("\"%s\" is not in \"%s\"", reason, err.message);
}

static void without_keys_unsigned_models_are_taken(void **state) {
    (void)state;
    struct trust *trust = make_trust(&(struct trust_spec){0});
    expect(trust, describe("resnet18", "f32", 1), NULL);
    expect(trust, describe(NULL, NULL, 0), NULL);
    assert_true(trust_check(trust, NULL, NULL));
    trust_destroy(trust);
}

static void with_keys_one_of_them_must_have_signed(void **state) {
    (void)state;
    char hex[2][2 * SIGNATURE_PUBLIC_SIZE + 1];
    struct signature_key ours = make_key(hex[0]), theirs = make_key(hex[1]);
    const char *keys[] = {hex[0]};
    struct trust *trust = make_trust(&(struct trust_spec){.keys = keys, .key_count = 1});
    expect(trust, signed_by(&ours), NULL);
    expect(trust, describe("resnet18", "f32", 1), "not signed");
    expect(trust, signed_by(&theirs), "not trusted");
    struct descriptor both = signed_by(&theirs);
    assert_true(descriptor_sign(&both, &ours, NULL));
    expect(trust, both, NULL);
    struct error err = {0};
    assert_false(trust_check(trust, NULL, &err));
    trust_destroy(trust);
}

/** A signature of another descriptor, moved over: every bit of what is signed counts. */
static void a_signature_of_something_else_is_wrong(void **state) {
    (void)state;
    char hex[2 * SIGNATURE_PUBLIC_SIZE + 1];
    struct signature_key key = make_key(hex);
    const char *keys[] = {hex};
    struct trust *trust = make_trust(&(struct trust_spec){.keys = keys, .key_count = 1});
    struct descriptor good = signed_by(&key), other = describe("resnet34", "f32", 1), moved;
    Thorax__V1__PublishedModel from, to;
    descriptor_message(&good, &from);
    descriptor_message(&other, &to);
    to.signatures = from.signatures;
    to.n_signatures = from.n_signatures;
    assert_true(descriptor_parse(&moved, &to, 1 << 20, NULL));
    expect(trust, moved, "signature is wrong");
    descriptor_fini(&good);
    descriptor_fini(&other);
    trust_destroy(trust);
}

static void signatures_survive_the_journey(void **state) {
    (void)state;
    char hex[2 * SIGNATURE_PUBLIC_SIZE + 1];
    struct signature_key key = make_key(hex);
    struct descriptor descriptor = signed_by(&key), parsed, copy;
    Thorax__V1__PublishedModel message;
    descriptor_message(&descriptor, &message);
    assert_true(descriptor_parse(&parsed, &message, 1 << 20, NULL));
    assert_true(descriptor_copy(&copy, &parsed, NULL));
    descriptor_fini(&descriptor);
    descriptor_fini(&parsed);
    assert_int_equal(descriptor_signature_count(&copy), 1);
    assert_true(descriptor_signature_good(&copy, 0));
    assert_memory_equal(descriptor_signer(&copy, 0), key.public_key, SIGNATURE_PUBLIC_SIZE);
    for (int i = 1; i < DESCRIPTOR_MAX_SIGNATURES; i++)
        assert_true(descriptor_sign(&copy, &key, NULL));
    assert_false(descriptor_sign(&copy, &key, NULL));
    descriptor_fini(&copy);
}

static void what_is_older_than_the_floor_is_refused(void **state) {
    (void)state;
    char before[32], after[32];
    time_t now = time(NULL), earlier = now - 3600, later = now + 3600;
    struct tm utc;
    strftime(before, sizeof before, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&earlier, &utc));
    strftime(after, sizeof after, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&later, &utc));
    struct trust *trust = make_trust(&(struct trust_spec){.oldest = before});
    expect(trust, describe("resnet18", "f32", 1), NULL);
    trust_destroy(trust);
    trust = make_trust(&(struct trust_spec){.oldest = after});
    expect(trust, describe("resnet18", "f32", 1), after);
    trust_destroy(trust);
    struct error err = {0};
    assert_null(trust_create(&(struct trust_spec){.oldest = "yesterday"}, &err));
    assert_non_null(strstr(err.message, "yesterday"));
}

static void what_cannot_run_here_is_refused(void **state) {
    (void)state;
    struct trust *trust = make_trust(&(struct trust_spec){.max_memory_bytes = 1 << 20});
    expect(trust, describe("resnet18", "f32", 1 << 20), NULL);
    expect(trust, describe("resnet18", "f32", (1 << 20) + 1), "memory");
    expect(trust, describe("transformer9", "f32", 1), "transformer9");
    expect(trust, describe("resnet18", "fp4", 1), "fp4");
    trust_destroy(trust);
    trust = make_trust(&(struct trust_spec){0}); /* what the machine has */
    expect(trust, describe("resnet18", "f32", UINT64_C(1) << 60), "memory");
    expect(trust, describe("resnet18", "f32", 1 << 20), NULL);
    trust_destroy(trust);
}

static void write_list(const char *path, const char *text) {
    assert_true(file_write_atomic(path, text, strlen(text), NULL));
}

static void the_list_of_revocations_is_read_again_when_it_changes(void **state) {
    (void)state;
    char path[] = "/tmp/thorax-revoked-XXXXXX", hex[2 * SIGNATURE_PUBLIC_SIZE + 1], line[256],
         model[DIGEST_HEX_SIZE];
    int file = mkstemp(path);
    assert_true(file >= 0);
    struct signature_key key = make_key(hex);
    const char *keys[] = {hex};
    struct trust *trust = make_trust(&(struct trust_spec){.keys = keys, .key_count = 1, .revoked = path});
    struct digest digest = digest_of(bytes, sizeof bytes);
    expect(trust, signed_by(&key), NULL);
    snprintf(line, sizeof line, "# leaked\n\n  model %s\n", digest_hex(&digest, model));
    write_list(path, line + strlen("# leaked\n\n  "));
    expect(trust, signed_by(&key), "revoked here");
    snprintf(line, sizeof line, "key %.16s # lost\n", hex);
    write_list(path, line);
    expect(trust, signed_by(&key), "key that signed it is revoked");
    write_list(path, "key\n"); /* broken: the old list stays in force */
    expect(trust, signed_by(&key), "key that signed it is revoked");
    write_list(path, "# nobody\n");
    expect(trust, signed_by(&key), NULL);
    trust_destroy(trust);
    static const char *const broken[] = {"model 12\n", "key 12\n", "models all\n", "key\n"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct error err = {0};
        write_list(path, broken[i]);
        assert_null(trust_create(&(struct trust_spec){.revoked = path}, &err));
        assert_non_null(strstr(err.message, ":1: "));
    }
    remove(path);
    close(file);
}

int main(void) {
    if (!digest_start(NULL))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_keys_unsigned_models_are_taken),
        cmocka_unit_test(with_keys_one_of_them_must_have_signed),
        cmocka_unit_test(a_signature_of_something_else_is_wrong),
        cmocka_unit_test(signatures_survive_the_journey),
        cmocka_unit_test(what_is_older_than_the_floor_is_refused),
        cmocka_unit_test(what_cannot_run_here_is_refused),
        cmocka_unit_test(the_list_of_revocations_is_read_again_when_it_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
