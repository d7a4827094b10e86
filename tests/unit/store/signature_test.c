#include "common/base/file.h"
#include "common/pool/signature.h"
#include "tests/unit/base/test.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int setup(void **state) {
    char path[] = "/tmp/thorax-signature-XXXXXX";
    *state = mkdtemp(path) ? strdup(path) : NULL;
    return *state ? 0 : -1;
}

static int teardown(void **state) {
    bool ok = file_remove_tree(*state, NULL);
    free(*state);
    return ok ? 0 : -1;
}

static void from_hex(uint8_t *out, size_t size, const char *hex) {
    assert_int_equal(sodium_hex2bin(out, size, hex, strlen(hex), NULL, NULL, NULL), 0);
}

static void write_file(const char *folder, const char *name, const char *text, char out[128]) {
    snprintf(out, 128, "%s/%s", folder, name);
    assert_true(file_write_atomic(out, text, strlen(text), NULL));
    assert_int_equal(chmod(out, 0600), 0);
}

/* RFC 8032, 7.1, TEST 2. */
static const char rfc_secret[] = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
static const char rfc_public[] = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
static const char rfc_signature[] = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
                                    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

static void the_rfc_s_example_comes_out(void **state) {
    char text[256], path[128], id[SIGNATURE_ID_SIZE];
    struct signature_key key;
    struct error err = {0};
    uint8_t expected[SIGNATURE_SIZE], made[SIGNATURE_SIZE], byte = 0x72;
    snprintf(text, sizeof text, "Thorax Ed25519 secret key 1\npublic %s\nsecret %s\n", rfc_public,
             rfc_secret);
    write_file(*state, "rfc.key", text, path);
    assert_true(signature_key_load(path, &key, &err));
    signature_make(&key, &byte, 1, made);
    from_hex(expected, sizeof expected, rfc_signature);
    assert_memory_equal(made, expected, sizeof made);
    assert_true(signature_verify(key.public_key, made, &byte, 1));
    assert_string_equal(signature_key_id(key.public_key, id), "3d4017c3e843895a");
}

static void a_signature_is_of_one_key_and_one_text(void **state) {
    (void)state;
    struct signature_key key, other;
    uint8_t signature[SIGNATURE_SIZE];
    assert_true(signature_key_generate(&key, NULL) && signature_key_generate(&other, NULL));
    signature_make(&key, "model", 5, signature);
    assert_true(signature_verify(key.public_key, signature, "model", 5));
    assert_false(signature_verify(key.public_key, signature, "modem", 5));
    assert_false(signature_verify(key.public_key, signature, "mode", 4));
    assert_false(signature_verify(other.public_key, signature, "model", 5));
    signature[63] ^= 1;
    assert_false(signature_verify(key.public_key, signature, "model", 5));
}

static void keys_survive_their_files(void **state) {
    char name[96], path[128];
    struct signature_key key, read;
    struct error err = {0};
    uint8_t public_key[SIGNATURE_PUBLIC_SIZE];
    snprintf(name, sizeof name, "%s/site", (char *)*state);
    assert_true(signature_key_generate(&key, &err));
    assert_true(signature_key_write(&key, name, &err));
    snprintf(path, sizeof path, "%s.key", name);
    assert_true(signature_key_load(path, &read, &err));
    assert_memory_equal(&key, &read, sizeof key);
    assert_int_equal(chmod(path, 0644), 0);
    assert_false(signature_key_load(path, &read, &err));
    assert_non_null(strstr(err.message, "lets others read"));
    snprintf(path, sizeof path, "%s.pub", name);
    assert_true(signature_public_load(path, public_key, &err));
    assert_memory_equal(public_key, key.public_key, sizeof public_key);
}

static void files_that_are_no_keys_are_refused(void **state) {
    char text[256], path[128];
    struct signature_key key;
    struct error err = {0};
    uint8_t public_key[SIGNATURE_PUBLIC_SIZE];
    snprintf(text, sizeof text, "Thorax Ed25519 secret key 1\npublic %s\nsecret %s\n", rfc_secret,
             rfc_secret);
    write_file(*state, "mixed.key", text, path);
    assert_false(signature_key_load(path, &key, &err));
    assert_non_null(strstr(err.message, "does not belong to the secret one"));
    assert_null(strstr(err.message, rfc_secret));
    snprintf(text, sizeof text, "Thorax Ed25519 public key 1\npublic %.63sg\n", rfc_public);
    write_file(*state, "a.pub", text, path);
    assert_false(signature_public_load(path, public_key, &err));
    assert_non_null(strstr(err.message, "hexadecimal"));
    assert_false(signature_key_load(path, &key, &err)); /* a .pub is no .key */
    assert_non_null(strstr(err.message, "the first line is not"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_rfc_s_example_comes_out, setup, teardown),
        cmocka_unit_test(a_signature_is_of_one_key_and_one_text),
        cmocka_unit_test_setup_teardown(keys_survive_their_files, setup, teardown),
        cmocka_unit_test_setup_teardown(files_that_are_no_keys_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
