#include "common/base/error.h"
#include "tests/unit/base/test.h"

#include <errno.h>
#include <string.h>

static void a_failing_call_is_one_line(void **state) {
    (void)state;
    struct error err = {.hint = "of an earlier error"};
    assert_false(error_set(&err, ERROR_SHAPE, "%d is not %d", 3, 4));
    assert_int_equal(err.code, ERROR_SHAPE);
    assert_string_equal(err.message, "3 is not 4");
    assert_string_equal(err.hint, "");
}

static void nobody_has_to_care(void **state) {
    (void)state;
    assert_false(error_set(NULL, ERROR_IO, "x"));
    assert_false(error_set_errno(NULL, "x"));
    assert_false(error_hint(NULL, "x"));
    assert_false(error_prefix(NULL, "x"));
}

static void the_systems_errors_become_codes(void **state) {
    (void)state;
    static const struct {
        int number;
        enum error_code code;
    } rows[] = {{ENOENT, ERROR_NOT_FOUND}, {ENOMEM, ERROR_MEMORY}, {EACCES, ERROR_IO}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct error err = {0};
        errno = rows[i].number;
        assert_false(error_set_errno(&err, "file %d", 7));
        assert_int_equal(err.code, rows[i].code);
        assert_non_null(strstr(err.message, "file 7: "));
        assert_non_null(strstr(err.message, strerror(rows[i].number)));
    }
}

static void context_is_put_in_front(void **state) {
    (void)state;
    struct error err = {0};
    error_set(&err, ERROR_FORMAT, "too short");
    error_hint(&err, "fetch it again");
    assert_false(error_prefix(&err, "model %s", "m1"));
    assert_string_equal(err.message, "model m1: too short");
    assert_string_equal(err.hint, "fetch it again");
    assert_int_equal(err.code, ERROR_FORMAT);
}

static void long_messages_are_cut_inside_their_array(void **state) {
    (void)state;
    struct {
        struct error err;
        char guard[8];
    } box = {.guard = "guarded"};
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    error_set(&box.err, ERROR_IO, "%s", text);
    assert_int_equal(strlen(box.err.message), sizeof box.err.message - 1);
    for (int i = 0; i < 5; i++)
        error_prefix(&box.err, "%.*s", 150 + i, text);
    assert_int_equal(strlen(box.err.message), sizeof box.err.message - 1);
    error_prefix(&box.err, "%s", text);
    error_hint(&box.err, "%s", text);
    errno = EACCES;
    error_set_errno(&box.err, "%s", text);
    assert_int_equal(strlen(box.err.message), sizeof box.err.message - 1);
    assert_string_equal(box.guard, "guarded");
}

static void every_code_has_a_name_of_its_own(void **state) {
    (void)state;
    for (int a = ERROR_NONE; a <= ERROR_INTERNAL; a++) {
        assert_string_not_equal(error_code_name((enum error_code)a), "unknown");
        for (int b = ERROR_NONE; b < a; b++)
            assert_string_not_equal(error_code_name((enum error_code)a), error_code_name((enum error_code)b));
    }
    assert_string_equal(error_code_name((enum error_code)(ERROR_INTERNAL + 1)), "unknown");
    assert_string_equal(error_code_name(ERROR_TOO_LARGE), "too_large");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failing_call_is_one_line),      cmocka_unit_test(nobody_has_to_care),
        cmocka_unit_test(the_systems_errors_become_codes), cmocka_unit_test(context_is_put_in_front),
        cmocka_unit_test(long_messages_are_cut_inside_their_array),
        cmocka_unit_test(every_code_has_a_name_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
