/* What is said and written of profiles: tables, JSON, traces, and what has no fast kernel. */
#include "common/base/log.h"
#include "common/graph/slow_kernels.h"
#include "tests/unit/graph/profile_fixture.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- fallbacks --- */

static struct kernel *falling_prepare(struct device *device, const struct kernel_request *request, struct error *err) {
    const struct profile_fixture *fixture = profile_fixture_of(device);
    struct kernel *kernel = fixture->plain->prepare(device, request, err);
    bool falls = request->op.kind == OP_CONV2D && request->pass == PASS_BACKWARD_WEIGHT;
    if (kernel && (falls || request->op.kind == OP_SGD)) {
        kernel->reference_fallback = true;
        kernel->implementation = "ref:any";
    }
    return kernel;
}

/** What fills in a text: free it. */
static char *printed(const struct profile *profile) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    profile_print(profile, out);
    fclose(out);
    return text;
}

/** What slow_kernels_log writes to stderr: free it. */
static char *logged(const struct plan *plan, int expected) {
    char *text = calloc(1, 8192);
    FILE *file = tmpfile();
    fflush(stderr);
    int saved = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    int slow = slow_kernels_log(plan);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    text[fread(text, 1, 8191, file)] = '\0';
    fclose(file);
    assert_int_equal(slow, expected);
    return text;
}

static void a_reference_kernel_is_said(void **state) {
    (void)state;
    struct profile_fixture fixture;
    profile_fixture_init(&fixture);
    fixture.ops.prepare = falling_prepare;
    make_profile(&fixture, 1);
    const struct profile_row *row = find_row(fixture.profile, "conv2d", "backward_weight");
    assert_int_equal(row->fallbacks, 4);
    assert_string_equal(row->first_fallback, "conv4"); /* backward: from the network's end */
    assert_int_equal(find_row(fixture.profile, "sgd", "update")->fallbacks, 1);
    assert_int_equal(find_row(fixture.profile, "conv2d", "forward")->fallbacks, 0);
    char *text = printed(fixture.profile);
    assert_non_null(strstr(text, "SLOW: 4 of 4 steps of conv2d, backward_weight, "));
    assert_non_null(strstr(text, "first: conv4\n"));
    free(text);
    text = logged(fixture.plan, 5);
    assert_non_null(strstr(text, "warning engine_slow_kernel node=conv4 kind=conv2d pass=backward_weight "
                                 "implementation=\"ref:any\" steps=4 batch=2\n"));
    assert_non_null(strstr(text, "engine_slow_kernel node=weights kind=sgd "));
    int lines = 0;
    for (const char *at = text; (at = strchr(at, '\n')); at++)
        lines++;
    assert_int_equal(lines, 2);
    free(text);
    profile_fixture_fini(&fixture);
}

static void what_is_fast_is_not_warned_of(void **state) {
    (void)state;
    struct profile_fixture fixture;
    profile_fixture_init(&fixture);
    make_profile(&fixture, 1);
    char *text = printed(fixture.profile);
    assert_null(strstr(text, "SLOW"));
    assert_non_null(strstr(text, "a network, training, f32, batch 2, on "));
    free(text);
    text = logged(fixture.plan, 0);
    assert_string_equal(text, "");
    free(text);
    profile_fixture_fini(&fixture);
}

/* --- what is written --- */

static void the_json_is_the_table(void **state) {
    (void)state;
    struct profile_fixture fixture;
    char *text = NULL;
    size_t size = 0;
    profile_fixture_init(&fixture);
    fixture.ops.prepare = falling_prepare;
    make_profile(&fixture, 1);
    FILE *out = open_memstream(&text, &size);
    assert_true(profile_print_json(fixture.profile, out, NULL));
    fclose(out);
    json_t *json = json_loads(text, 0, NULL), *row;
    free(text);
    assert_non_null(json);
    assert_string_equal(json_string_value(json_object_get(json, "mode")), "training");
    assert_int_equal(json_integer_value(json_object_get(json, "batch")), PROFILE_BATCH);
    json_t *rows = json_object_get(json, "rows");
    assert_int_equal(json_array_size(rows), fixture.profile->row_count);
    size_t i;
    double share = 0;
    json_array_foreach(rows, i, row) {
        const struct profile_row *expected = &fixture.profile->rows[i];
        assert_string_equal(json_string_value(json_object_get(row, "kind")), expected->kind);
        assert_int_equal(json_integer_value(json_object_get(row, "steps")), expected->steps);
        assert_int_equal(json_integer_value(json_object_get(row, "reference_fallback")), expected->fallbacks);
        assert_true((json_object_get(row, "first_reference_fallback") != NULL) == (expected->fallbacks > 0));
        json_t *of_implementation = json_object_get(json_object_get(row, "implementations"), expected->implementations[0].name);
        assert_int_equal(json_integer_value(of_implementation), expected->implementations[0].steps);
        share += json_real_value(json_object_get(row, "share"));
    }
    assert_true(fabs(share - 1) < 1e-6);
    json_decref(json);
    profile_fixture_fini(&fixture);
}

static double number_of(const json_t *event, const char *key) {
    const json_t *value = json_object_get(event, key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

/** A complete event: where it begins and ends, in microseconds. */
static void span_of(const json_t *event, double span[2]) {
    assert_string_equal(json_string_value(json_object_get(event, "ph")), "X");
    assert_true(json_is_string(json_object_get(event, "name")) && json_is_string(json_object_get(event, "cat")));
    span[0] = number_of(event, "ts");
    span[1] = span[0] + number_of(event, "dur");
}

/** The events of one profile, from `at` on: its name, then each run and, within it, its steps in their order. Returns the end. */
static size_t assert_process(const json_t *events, size_t at, const struct profile *profile, int process) {
    double run[2], step[2], end = 0;
    const double rounding = 0.01;
    assert_string_equal(json_string_value(json_object_get(json_array_get(events, at++), "ph")), "M");
    for (int i = 0; i < profile->runs; i++) {
        const json_t *event = json_array_get(events, at++);
        assert_string_equal(json_string_value(json_object_get(event, "cat")), "run");
        span_of(event, run);
        assert_true(run[0] >= end - rounding);
        end = run[0];
        for (int k = 0; k < profile->events_per_run; k++) {
            event = json_array_get(events, at++);
            const struct profile_step *expected = &profile->steps[profile->events[i * profile->events_per_run + k].step];
            assert_string_equal(json_string_value(json_object_get(event, "name")), expected->name);
            assert_string_equal(json_string_value(json_object_get(event, "cat")), expected->kind);
            assert_true(number_of(event, "pid") == process);
            span_of(event, step);
            assert_true(step[0] >= end - rounding && step[1] <= run[1] + rounding);
            end = step[1];
        }
        assert_true(fabs(end - run[1]) <= rounding);
    }
    return at;
}

static void the_trace_nests_and_is_in_order(void **state) {
    (void)state;
    struct profile_fixture fixtures[2];
    struct profile *profiles[2];
    char path[] = "/tmp/thorax-trace-XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    close(descriptor);
    for (int i = 0; i < 2; i++) {
        profile_fixture_init(&fixtures[i]);
        make_profile(&fixtures[i], i);
        profiles[i] = fixtures[i].profile;
    }
    assert_true(profile_write_trace(profiles, 2, path, NULL));
    json_t *json = json_load_file(path, 0, NULL);
    assert_non_null(json);
    const json_t *events = json_object_get(json, "traceEvents");
    size_t end = assert_process(events, 0, profiles[0], 1);
    assert_int_equal(assert_process(events, end, profiles[1], 2), json_array_size(events));
    const json_t *conv1 = json_object_get(json_array_get(events, 2), "args");
    assert_string_equal(json_string_value(json_object_get(conv1, "src")), "f32 (2, 2, 8, 8), canonical");
    assert_string_equal(json_string_value(json_object_get(conv1, "implementation")), "reference");
    json_decref(json);
    unlink(path);
    profile_fixture_fini(&fixtures[0]);
    profile_fixture_fini(&fixtures[1]);
}

static void a_trace_that_cannot_be_written_is_an_error(void **state) {
    (void)state;
    struct profile_fixture fixture;
    struct error err = {0};
    profile_fixture_init(&fixture);
    make_profile(&fixture, 0);
    assert_false(profile_write_trace(&fixture.profile, 1, "/tmp/thorax-there-is-no-such-folder/trace.json", &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    profile_fixture_fini(&fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reference_kernel_is_said),
        cmocka_unit_test(what_is_fast_is_not_warned_of),
        cmocka_unit_test(the_json_is_the_table),
        cmocka_unit_test(the_trace_nests_and_is_in_order),
        cmocka_unit_test(a_trace_that_cannot_be_written_is_an_error),
    };
    log_init("tester", LOG_INFO, LOG_TEXT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
