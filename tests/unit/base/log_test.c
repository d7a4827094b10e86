#include "common/base/log.h"
#include "tests/unit/base/test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What log wrote to stderr between capture_begin and capture_end. */
struct capture {
    int saved;
    FILE *file;
    char text[8192];
};

static void capture_begin(struct capture *capture) {
    fflush(stderr);
    capture->saved = dup(STDERR_FILENO);
    capture->file = tmpfile();
    assert_non_null(capture->file);
    dup2(fileno(capture->file), STDERR_FILENO);
}

static void capture_end(struct capture *capture) {
    dup2(capture->saved, STDERR_FILENO);
    close(capture->saved);
    rewind(capture->file);
    capture->text[fread(capture->text, 1, sizeof capture->text - 1, capture->file)] = '\0';
    fclose(capture->file);
}

static int line_count(const char *text) {
    int lines = 0;
    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

static void an_event_is_a_line(void **state) {
    (void)state;
    struct capture capture;
    capture_begin(&capture);
    log_init("tester", LOG_INFO, LOG_TEXT);
    log_event(LOG_WARNING, "disk_low", "left=%d", 5);
    capture_end(&capture);
    assert_int_equal(line_count(capture.text), 1);
    assert_non_null(strstr(capture.text, " tester warning disk_low left=5\n"));
}

static void events_below_the_least_level_are_not_written(void **state) {
    (void)state;
    struct capture capture;
    capture_begin(&capture);
    log_init("tester", LOG_WARNING, LOG_TEXT);
    log_event(LOG_INFO, "quiet", "x=1");
    log_event(LOG_ERROR, "loud", "x=1");
    capture_end(&capture);
    assert_null(strstr(capture.text, "quiet"));
    assert_non_null(strstr(capture.text, "loud"));
}

static void a_value_cannot_forge_a_second_event(void **state) {
    (void)state;
    for (int style = LOG_TEXT; style <= LOG_JSON; style++) {
        struct capture capture;
        capture_begin(&capture);
        log_init("tester", LOG_INFO, (enum log_style)style);
        log_event(LOG_INFO, "got", "name=\"%s\"", "a\nb\rc\x1b[2J");
        capture_end(&capture);
        assert_int_equal(line_count(capture.text), 1);
        assert_null(strchr(capture.text, '\x1b'));
        assert_null(strchr(capture.text, '\r'));
    }
}

static void json_lines_are_json(void **state) {
    (void)state;
    struct capture capture;
    struct error err = {0};
    error_set(&err, ERROR_IO, "path \"a\\b\"");
    error_hint(&err, "look");
    capture_begin(&capture);
    log_init("tester", LOG_INFO, LOG_JSON);
    log_error("failed", &err);
    capture_end(&capture);
    json_t *line = json_loads(capture.text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(line);
    assert_string_equal(json_string_value(json_object_get(line, "event")), "failed");
    assert_string_equal(json_string_value(json_object_get(line, "level")), "error");
    assert_string_equal(json_string_value(json_object_get(line, "details")),
                        "code=io message=\"path \"a\\b\"\" hint=\"look\"");
    json_decref(line);
}

static void long_lines_are_cut_and_stay_lines(void **state) {
    (void)state;
    char text[5000];
    memset(text, '"', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    struct capture capture;
    capture_begin(&capture);
    log_init("tester", LOG_INFO, LOG_JSON);
    log_event(LOG_INFO, "long", "%s", text);
    capture_end(&capture);
    json_t *line = json_loads(capture.text, 0, NULL);
    assert_non_null(line);
    json_decref(line);
}

static void levels_are_read_by_name(void **state) {
    (void)state;
    enum log_level level = LOG_INFO;
    assert_true(log_level_parse("debug", &level));
    assert_int_equal(level, LOG_DEBUG);
    assert_true(log_level_parse("error", &level));
    assert_int_equal(level, LOG_ERROR);
    assert_false(log_level_parse("loud", &level));
    assert_false(log_level_parse("", &level));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_is_a_line),
        cmocka_unit_test(events_below_the_least_level_are_not_written),
        cmocka_unit_test(a_value_cannot_forge_a_second_event),
        cmocka_unit_test(json_lines_are_json),
        cmocka_unit_test(long_lines_are_cut_and_stay_lines),
        cmocka_unit_test(levels_are_read_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
