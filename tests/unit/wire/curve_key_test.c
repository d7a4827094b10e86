#include "common/base/file.h"
#include "common/wire/curve_key.h"
#include "tests/unit/base/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int setup(void **state) {
    char path[] = "/tmp/thorax-curve-XXXXXX";
    *state = mkdtemp(path) ? strdup(path) : NULL;
    return *state ? 0 : -1;
}

static int teardown(void **state) {
    bool ok = file_remove_tree(*state, NULL);
    free(*state);
    return ok ? 0 : -1;
}

static void keys_survive_their_files(void **state) {
    char name[96], path[128], public_key[CURVE_TEXT_SIZE];
    struct curve_key key, read;
    struct error err = {0};
    snprintf(name, sizeof name, "%s/member", (char *)*state);
    assert_true(curve_key_generate(&key, &err));
    assert_true(curve_key_write(&key, name, &err));
    snprintf(path, sizeof path, "%s.key", name);
    assert_true(curve_key_load(path, &read, &err));
    assert_string_equal(read.public_key, key.public_key);
    assert_string_equal(read.secret_key, key.secret_key);
    assert_int_equal(chmod(path, 0640), 0);
    assert_false(curve_key_load(path, &read, &err));
    assert_non_null(strstr(err.message, "lets others read"));
    snprintf(path, sizeof path, "%s.pub", name);
    assert_true(curve_public_load(path, public_key, &err));
    assert_string_equal(public_key, key.public_key);
}

/* ZeroMQ's manual page of zmq_curve: its example pair. */
static const char manual_public[] = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
static const char manual_secret[] = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs";

static void the_manual_s_pair_belongs_together(void **state) {
    char path[128], text[256];
    struct curve_key key;
    struct error err = {0};
    snprintf(path, sizeof path, "%s/a.key", (char *)*state);
    snprintf(text, sizeof text, "Thorax CURVE secret key 1\npublic %s\nsecret %s\n", manual_public,
             manual_secret);
    assert_true(file_write_atomic(path, text, strlen(text), &err));
    assert_int_equal(chmod(path, 0600), 0);
    assert_true(curve_key_load(path, &key, &err));
    text[strlen("Thorax CURVE secret key 1\npublic ")] = 'Z';
    assert_true(file_write_atomic(path, text, strlen(text), &err));
    assert_int_equal(chmod(path, 0600), 0);
    assert_false(curve_key_load(path, &key, &err));
    assert_non_null(strstr(err.message, "does not belong to the secret one"));
    assert_null(strstr(err.message, manual_secret));
}

static void a_public_key_may_stand_for_itself(void **state) {
    (void)state;
    char out[CURVE_TEXT_SIZE];
    struct error err = {0};
    assert_true(curve_public_load(manual_public, out, &err));
    assert_string_equal(out, manual_public);
    assert_false(curve_public_load("Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hI", out, &err));
    assert_false(curve_public_load("Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hI\\", out, &err));
    assert_false(curve_public_load("Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hIDx", out, &err));
    assert_false(curve_public_load("", out, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    assert_false(curve_public_load("/nowhere/a.pub", out, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(keys_survive_their_files, setup, teardown),
        cmocka_unit_test_setup_teardown(the_manual_s_pair_belongs_together, setup, teardown),
        cmocka_unit_test(a_public_key_may_stand_for_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
