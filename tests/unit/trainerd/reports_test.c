/* What the supervisor makes of the first rank's reports, whole and broken. */
#include "trainerd/reports.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct report_event sample_event(void) {
    struct report_event event;
    memset(&event, 0, sizeof event);
    event = (struct report_event){
        .event = "epoch",
        .count = 3,
        .metrics = {{.name = "loss", .kind = METRIC_REAL, .real = 0.25}, {.name = "epoch", .kind = METRIC_INTEGER, .integer = 7},
                    {.name = "best", .text = "yes", .kind = METRIC_TEXT}}};
    return event;
}

static void events_come_with_their_figures(void **state) {
    (void)state;
    struct report_event sent = sample_event(), got;
    struct metric metrics[REPORT_MAX_METRICS];
    assert_true(reports_read_event(&sent, sizeof sent, &got, metrics, NULL));
    assert_string_equal(got.event, "epoch");
    assert_int_equal(got.count, 3);
    assert_string_equal(metrics[0].name, "loss");
    assert_true(metrics[0].kind == METRIC_REAL && metrics[0].real == 0.25);
    assert_true(metrics[1].kind == METRIC_INTEGER && metrics[1].integer == 7);
    assert_string_equal(metrics[2].text, "yes");
    assert_ptr_equal(metrics[0].name, got.metrics[0].name); /* into *event, not into the message */
}

static void refuse_event(const struct report_event *event, size_t size) {
    struct report_event got;
    struct metric metrics[REPORT_MAX_METRICS];
    struct error err = {0};
    assert_false(reports_read_event(event, size, &got, metrics, &err));
    assert_int_equal(err.code, ERROR_FORMAT);
}

static void broken_events_are_refused(void **state) {
    (void)state;
    struct report_event event = sample_event();
    refuse_event(&event, sizeof event - 1);
    refuse_event(&event, 0);
    event.count = REPORT_MAX_METRICS + 1;
    refuse_event(&event, sizeof event);
    event.count = -1;
    refuse_event(&event, sizeof event);
    event = sample_event();
    memset(event.event, 'x', sizeof event.event);
    refuse_event(&event, sizeof event);
    event = sample_event();
    memset(event.metrics[2].name, 'x', sizeof event.metrics[2].name);
    refuse_event(&event, sizeof event);
    event = sample_event();
    memset(event.metrics[2].text, 'x', sizeof event.metrics[2].text);
    refuse_event(&event, sizeof event);
}

static void steps_are_read_whole(void **state) {
    (void)state;
    struct progress_step
        sent = {.epoch = 2, .epochs = 9, .step = 40, .steps = 180, .images = 640, .loss = 0.5, .now_ms = 99},
        got;
    struct error err = {0};
    assert_true(reports_read_step(&sent, sizeof sent, &got, &err));
    assert_memory_equal(&sent, &got, sizeof got);
    assert_false(reports_read_step(&sent, sizeof sent - 1, &got, &err));
    assert_int_equal(err.code, ERROR_FORMAT);
}

static void models_are_read_whole(void **state) {
    (void)state;
    static struct report_model sent, got;
    struct error err = {0};
    strncpy(sent.path, "runs/a/models/m.safetensors", sizeof sent.path - 1);
    strncpy(sent.name, "chest", sizeof sent.name - 1);
    strncpy(sent.version, "e3", sizeof sent.version - 1);
    assert_true(reports_read_model(&sent, sizeof sent, &got, &err));
    assert_string_equal(got.path, sent.path);
    assert_string_equal(got.version, "e3");
    assert_false(reports_read_model(&sent, sizeof sent / 2, &got, &err));
    memset(sent.path, 'x', sizeof sent.path);
    assert_false(reports_read_model(&sent, sizeof sent, &got, &err));
    assert_int_equal(err.code, ERROR_FORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_with_their_figures), cmocka_unit_test(broken_events_are_refused),
        cmocka_unit_test(steps_are_read_whole),           cmocka_unit_test(models_are_read_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
