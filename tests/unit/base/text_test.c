#include "common/base/text.h"
#include "tests/unit/base/test.h"

#include <string.h>

static void whole_numbers_are_the_whole_text(void **state) {
    (void)state;
    int64_t value = 0;
    assert_true(text_to_int("-12", -12, 5, &value, NULL));
    assert_int_equal(value, -12);
    assert_true(text_to_int("9223372036854775807", 0, INT64_MAX, &value, NULL));
    assert_true(value == INT64_MAX);
    static const char *const wrong[] = {"", " 1", "1 ", "\v1", "\r1", "+1", "1x", "0x1", "1.0", "9223372036854775808", "one"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        value = 77;
        struct error err = {0};
        assert_false(text_to_int(wrong[i], INT64_MIN, INT64_MAX, &value, &err));
        assert_int_equal(err.code, ERROR_INVALID);
        assert_int_equal(value, 77);
    }
}

static void numbers_out_of_range_name_the_range(void **state) {
    (void)state;
    int64_t value;
    struct error err = {0};
    assert_false(text_to_int("11", 1, 10, &value, &err));
    assert_non_null(strstr(err.message, "1..10"));
    assert_false(text_to_int("0", 1, 10, &value, &err));
    assert_true(text_to_int("10", 1, 10, &value, &err));
    assert_true(text_to_int("1", 1, 10, &value, &err));
}

static void numbers_are_finite(void **state) {
    (void)state;
    double value = 0;
    assert_true(text_to_double("-2.5e-3", &value, NULL));
    assert_true(value == -2.5e-3);
    static const char *const wrong[] = {"", " 1", "\f1", "1 ", "nan", "inf", "-inf", "1e999", "1,5", "x"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(text_to_double(wrong[i], &value, NULL));
}

/* The well-formed and ill-formed sequences of The Unicode Standard, table 3-7, and of Markus Kuhn's stress test. */
static void utf8_is_what_the_standard_says(void **state) {
    (void)state;
    static const char *const good[] = {"", "a\x7f", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
                                       "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"};
    static const char *const bad[] = {"\x80", "\xBF", "\xC0\xAF", "\xC1\xBF", "\xC2", "\xC2\x41", "\xE0\x9F\xBF", "\xE0\xA0",
                                      "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF0\x90\x80", "\xF4\x90\x80\x80",
                                      "\xF5\x80\x80\x80", "\xFE", "\xFF"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(text_is_utf8(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(text_is_utf8(bad[i], strlen(bad[i])));
    assert_false(text_is_utf8("a\0b", 3));
}

static void copies_always_end(void **state) {
    (void)state;
    char out[4] = "zzz";
    assert_true(text_copy(out, sizeof out, "abc"));
    assert_string_equal(out, "abc");
    assert_false(text_copy(out, sizeof out, "defg"));
    assert_string_equal(out, "def");
    assert_true(text_copy(out, 1, ""));
    assert_false(text_copy(out, 1, "x"));
    assert_string_equal(out, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_numbers_are_the_whole_text), cmocka_unit_test(numbers_out_of_range_name_the_range),
        cmocka_unit_test(numbers_are_finite),               cmocka_unit_test(utf8_is_what_the_standard_says),
        cmocka_unit_test(copies_always_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
