#include "common/base/file.h"
#include "trainerd/progress.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/** Ten steps a second, 32 images each, for so many steps. */
static void run_steps(struct progress *progress, int count, int total) {
    for (int i = 1; i <= count; i++) {
        struct progress_step step = {.epoch = 1 + i / 50,
                                     .epochs = 4,
                                     .step = i,
                                     .steps = total,
                                     .images = 32 * i,
                                     .loss = 0.5,
                                     .now_ms = 1000000 + 100 * i};
        progress_step(progress, &step);
    }
}

static char *shown(FILE *file) {
    static char text[65536];
    fflush(file);
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    return text;
}

static int lines_in(const char *text) {
    int count = 0;
    for (; *text; text++)
        count += *text == '\n';
    return count;
}

static void test_lines_are_few_and_tell_speed_and_time_left(void **state) {
    (void)state;
    FILE *out = tmpfile();
    struct progress *progress = progress_create(out, PROGRESS_AUTO);
    run_steps(progress, 200, 400); /* 20 seconds */
    char *text = shown(out);
    assert_in_range(lines_in(text), 2, 3);
    char *last = strstr(text, "step=101");
    assert_non_null(last);
    assert_non_null(strstr(last, "images_per_s=320"));
    assert_non_null(strstr(last, "seconds_left=29.9"));
    assert_null(strchr(text, '\r'));
    progress_destroy(progress);
    fclose(out);
}

static void test_the_last_step_is_always_shown(void **state) {
    (void)state;
    FILE *out = tmpfile();
    struct progress *progress = progress_create(out, PROGRESS_LINES);
    run_steps(progress, 20, 20);
    assert_non_null(strstr(shown(out), "step=20 steps=20"));
    progress_destroy(progress);
    fclose(out);
}

static void test_the_bar_redraws_one_line_that_fits(void **state) {
    (void)state;
    FILE *out = tmpfile();
    struct progress *progress = progress_create(out, PROGRESS_BAR);
    run_steps(progress, 100, 200);
    char *text = shown(out);
    assert_int_equal(lines_in(text), 0);
    char *last = strrchr(text, '\r');
    assert_non_null(last);
    assert_true(strlen(last) <= 80 + strlen("\r\033[K"));
    assert_non_null(strstr(last, " 50%"));
    assert_non_null(strstr(last, "320.0 images/s"));
    assert_non_null(strstr(last, "left 0:10"));
    progress_destroy(progress);
    assert_int_equal(lines_in(shown(out)), 1);
    fclose(out);
}

static void test_an_event_stands_above_the_bar(void **state) {
    (void)state;
    FILE *out = tmpfile();
    struct progress *progress = progress_create(out, PROGRESS_BAR);
    run_steps(progress, 10, 200);
    struct metric metrics[] = {metric_integer("epoch", 3), metric_real("auc", 0.975),
                               metric_text("why", "best so far")};
    progress_event(progress, "checkpoint_saved", metrics, 3);
    char *text = shown(out),
         *event = strstr(text, "\r\033[Kcheckpoint_saved epoch=3 auc=0.975 why=\"best so far\"\nepoch 1/4");
    assert_non_null(event);
    progress_destroy(progress);
    fclose(out);
}

static void test_json_lines_parse_and_have_no_nan(void **state) {
    (void)state;
    FILE *out = tmpfile();
    struct progress *progress = progress_create(out, PROGRESS_JSON);
    struct metric metrics[] = {metric_real("loss", NAN), metric_text("note", "a \"b\"\n"),
                               metric_integer("step", -1)};
    progress_event(progress, "epoch_done", metrics, 3);
    json_t *record = json_loads(shown(out), 0, NULL);
    assert_non_null(record);
    assert_string_equal(json_string_value(json_object_get(record, "event")), "epoch_done");
    assert_true(json_is_null(json_object_get(record, "loss")));
    assert_string_equal(json_string_value(json_object_get(record, "note")), "a \"b\"\n");
    assert_int_equal(json_integer_value(json_object_get(record, "step")), -1);
    json_decref(record);
    progress_destroy(progress);
    fclose(out);
}

struct run {
    char folder[64], path[128];
};

static void make_run(struct run *run) {
    snprintf(run->folder, sizeof run->folder, "/tmp/thorax-test-XXXXXX");
    assert_non_null(mkdtemp(run->folder));
    snprintf(run->path, sizeof run->path, "%s/metrics.jsonl", run->folder);
}

static void write_steps(const char *path, int64_t keep_below, int first, int last) {
    struct error err = {0};
    struct metrics_log *log = metrics_log_open(path, keep_below, &err);
    assert_non_null(log);
    for (int i = first; i <= last; i++) {
        struct metric metrics[] = {metric_integer("step", i), metric_real("loss", 1.0 / i)};
        assert_true(metrics_log_write(log, "step", metrics, 2, &err));
    }
    metrics_log_close(log);
}

/** The "step" of each line, one after the other. */
static int read_steps(const char *path, int64_t *steps, int limit) {
    struct bytes file;
    int count = 0;
    assert_true(file_read(path, 1 << 20, &file, NULL));
    for (char *line = (char *)file.data; *line && count < limit; count++) {
        char *end = strchr(line, '\n');
        assert_non_null(end);
        json_t *record = json_loadb(line, (size_t)(end - line), 0, NULL);
        assert_non_null(record);
        steps[count] = json_integer_value(json_object_get(record, "step"));
        json_decref(record);
        line = end + 1;
    }
    free(file.data);
    return count;
}

static void test_a_resumed_log_tells_each_step_once(void **state) {
    (void)state;
    struct run run;
    make_run(&run);
    write_steps(run.path, 0, 1, 8);
    FILE *torn = fopen(run.path, "a"); /* the run was killed in the middle of a line */
    fputs("{\"event\":\"step\",\"step\":9,\"lo", torn);
    fclose(torn);
    write_steps(run.path, 6, 6, 10); /* goes on from the checkpoint after step 5 */
    int64_t steps[32];
    assert_int_equal(read_steps(run.path, steps, 32), 10);
    for (int i = 0; i < 10; i++)
        assert_int_equal(steps[i], i + 1);
    assert_true(file_remove_tree(run.folder, NULL));
}

static void test_a_log_that_cannot_be_made_names_its_file(void **state) {
    (void)state;
    struct error err = {0};
    assert_null(metrics_log_open("/nowhere/metrics.jsonl", 0, &err));
    assert_non_null(strstr(err.message, "/nowhere/metrics.jsonl"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_are_few_and_tell_speed_and_time_left),
        cmocka_unit_test(test_the_last_step_is_always_shown),
        cmocka_unit_test(test_the_bar_redraws_one_line_that_fits),
        cmocka_unit_test(test_an_event_stands_above_the_bar),
        cmocka_unit_test(test_json_lines_parse_and_have_no_nan),
        cmocka_unit_test(test_a_resumed_log_tells_each_step_once),
        cmocka_unit_test(test_a_log_that_cannot_be_made_names_its_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
