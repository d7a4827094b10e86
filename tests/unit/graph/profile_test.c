/* Profiles of plans: every step is in them as often as it runs, times are the steps' own, and what is written is whole. */
#include "common/graph/profile.h"
#include "common/base/log.h"
#include "common/graph/profile_internal.h"
#include "common/graph/slow_kernels.h"
#include "tests/unit/graph/network.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 2, RUNS = 3, SLEEP_MS = 4 };

/** With a learning rate of nothing, weights stay where they are. */
static const float still[HYPER_COUNT] = {[HYPER_GRADIENT_SCALE] = 1, [HYPER_MOMENTUM] = 0.9f};

struct fixture {
    struct device_ops ops; /* the device's table, for a test to change before it makes the plan */
    const struct device_ops *plain;
    struct device *device;
    struct graph *graph;
    struct parameters *parameters;
    struct plan *plan;
    struct profile *profile;
};

static void fixture_init(struct fixture *fixture) {
    *fixture = (struct fixture){.device = network_device(), .graph = network_graph(0)};
    fixture->parameters = network_parameters(fixture->graph, 1);
    fixture->plain = fixture->device->ops;
    fixture->ops = *fixture->plain;
    fixture->device->ops = &fixture->ops;
}

static void fixture_fini(struct fixture *fixture) {
    profile_destroy(fixture->profile);
    plan_destroy(fixture->plan);
    parameters_destroy(fixture->parameters);
    graph_destroy(fixture->graph);
    fixture->device->ops = fixture->plain;
    device_close(fixture->device);
}

/** parts 0: an inference plan. */
static void make_plan(struct fixture *fixture, int parts) {
    struct plan_spec spec = {.graph = fixture->graph, .parameters = fixture->parameters, .device = fixture->device,
                             .mode = parts ? PLAN_TRAIN : PLAN_INFER, .batch = BATCH, .parts = parts, .bucket_bytes = 1024,
                             .optimizer = OP_SGD};
    fixture->plan = network_plan(&spec);
}

static void make_profile(struct fixture *fixture, int parts) {
    struct error err = {0};
    struct profile_options options = {.runs = RUNS, .hyper = still, .network = "a network"};
    make_plan(fixture, parts);
    if (!(fixture->profile = profile_create(fixture->plan, &options, &err)))
        fail_msg("%s", err.message);
}

static const struct profile_row *find_row(const struct profile *profile, const char *kind, const char *pass) {
    for (int i = 0; i < profile->row_count; i++) {
        if (strcmp(profile->rows[i].kind, kind) == 0 && strcmp(profile->rows[i].pass, pass) == 0)
            return &profile->rows[i];
    }
    return NULL;
}

/* --- what is counted --- */

/** Events of a run are steps 0 to end - 1, in order, and none begins before the one in front of it has ended. */
static const struct profile_event *assert_in_order(const struct profile_event *event, int end, int64_t *now_ns) {
    for (int step = 0; step < end; step++, event++) {
        assert_int_equal(event->step, step);
        assert_true(event->start_ns >= *now_ns && event->duration_ns >= 0);
        *now_ns = event->start_ns + event->duration_ns;
    }
    return event;
}

static void assert_table_holds_all(const struct profile *profile) {
    int steps = 0;
    double share = 0, ms = 0, flops = 0, bytes = 0;
    for (int i = 0; i < profile->row_count; i++) {
        const struct profile_row *row = &profile->rows[i];
        int named = 0;
        for (int k = 0; k < row->implementation_count; k++)
            named += row->implementations[k].steps;
        assert_int_equal(named, row->steps);
        assert_true(i == 0 || row->ms <= row[-1].ms);
        steps += row->steps;
        share += row->share;
        ms += row->ms;
        flops += row->flops;
        bytes += row->bytes;
    }
    assert_int_equal(steps, profile->step_count);
    assert_true(fabs(share - 1) < 1e-9 && fabs(ms - profile->steps_ms) < 1e-9);
    for (int i = 0; i < profile->step_count; i++) {
        const struct profile_row *row = &profile->rows[profile->steps[i].row];
        assert_string_equal(row->kind, profile->steps[i].kind);
        assert_string_equal(row->pass, profile->steps[i].pass);
        flops -= profile->steps[i].flops;
        bytes -= profile->steps[i].bytes;
    }
    assert_true(fabs(flops) < 1 && fabs(bytes) < 1);
}

static void every_step_of_an_inference_is_timed_once_a_run(void **state) {
    (void)state;
    struct fixture fixture;
    fixture_init(&fixture);
    make_profile(&fixture, 0);
    const struct profile *profile = fixture.profile;
    int count = plan_step_count(fixture.plan);
    assert_int_equal(profile->step_count, count);
    assert_int_equal(profile->events_per_run, count);
    for (int i = 0; i < count; i++) {
        struct plan_step step;
        plan_describe_step(fixture.plan, i, &step);
        assert_string_equal(profile->steps[i].name, step.name);
        assert_true(profile->steps[i].flops == step.flops && profile->steps[i].bytes == (double)step.bytes);
    }
    int64_t now_ns = 0;
    const struct profile_event *event = profile->events;
    for (int run = 0; run < RUNS; run++)
        event = assert_in_order(event, count, &now_ns);
    assert_table_holds_all(profile);
    assert_true(profile->whole_ms > 0);
    fixture_fini(&fixture);
}

static void a_training_step_has_its_parts_their_sums_and_the_update(void **state) {
    (void)state;
    enum { PARTS = 3 };
    struct fixture fixture;
    fixture_init(&fixture);
    make_profile(&fixture, PARTS);
    const struct profile *profile = fixture.profile;
    int sums = 0, count = profile->step_count - 1; /* the update is last */
    for (int i = 0; i < plan_segment_count(fixture.plan); i++) {
        const struct plan_reduction *reductions;
        sums += plan_reductions(fixture.plan, i, &reductions) > 0;
    }
    assert_true(sums > 1);
    assert_int_equal(count, plan_step_count(fixture.plan) + sums);
    int64_t now_ns = 0;
    const struct profile_event *event = profile->events;
    for (int run = 0; run < RUNS; run++) {
        for (int part = 0; part < PARTS; part++)
            event = assert_in_order(event, count, &now_ns);
        assert_int_equal(event->step, count);
        event++;
    }
    assert_int_equal(event - profile->events, (int64_t)RUNS * profile->events_per_run);
    assert_table_holds_all(profile);
    assert_int_equal(find_row(profile, "add", "sum_parts")->steps, sums);
    assert_int_equal(find_row(profile, "sgd", "update")->steps, 1);
    assert_non_null(find_row(profile, "conv2d", "backward_weight"));
    fixture_fini(&fixture);
}

/** Parts of the same images at the same weights have the same gradients: their sum is so many times that of one. */
static void what_is_timed_is_computed(void **state) {
    (void)state;
    enum { PARTS = 3 };
    struct fixture fixtures[2];
    struct parameters *gradients[2];
    for (int i = 0; i < 2; i++) {
        fixture_init(&fixtures[i]);
        make_profile(&fixtures[i], i ? PARTS : 1);
        gradients[i] = parameters_create(fixtures[i].graph, NULL);
        assert_true(plan_export(fixtures[i].plan, PLAN_GRADIENTS, gradients[i], NULL));
    }
    double most = 0;
    for (int i = 0; i < fixtures[0].graph->parameter_count; i++) {
        const float *one = gradients[0]->tensors[i].data, *all = gradients[1]->tensors[i].data;
        for (int64_t k = 0; k < shape_count(&gradients[0]->tensors[i].shape); k++) {
            assert_true(fabs(PARTS * (double)one[k] - (double)all[k]) < 1e-4);
            most = fmax(most, fabs((double)one[k]));
        }
    }
    assert_true(most > 1e-2);
    for (int i = 0; i < 2; i++) {
        parameters_destroy(gradients[i]);
        fixture_fini(&fixtures[i]);
    }
}

/** PyTorch's convention: a convolution of C x 3 x 3 to O channels over P pixels is 2 * 9 * C * O * P operations an image. */
static void operations_and_bytes_are_those_of_all_parts(void **state) {
    (void)state;
    struct fixture fixture;
    fixture_init(&fixture);
    make_profile(&fixture, 2);
    const double pixels = NETWORK_SIDE * NETWORK_SIDE, each = 2 * 9 * NETWORK_CHANNELS * 4 * pixels;
    for (int i = 0; i < fixture.profile->step_count; i++) {
        const struct profile_step *step = &fixture.profile->steps[i];
        if (strcmp(step->name, "conv1") != 0 || strcmp(step->pass, "forward") != 0 || strcmp(step->kind, "conv2d") != 0)
            continue;
        assert_true(step->flops == 2 * BATCH * each);
        double floats = BATCH * pixels * (NETWORK_CHANNELS + 4) + 9 * NETWORK_CHANNELS * 4;
        assert_true(step->bytes == 2 * floats * sizeof(float));
        fixture_fini(&fixture);
        return;
    }
    fail_msg("there is no conv1");
}

static void what_is_computed_again_stands_by_itself(void **state) {
    (void)state;
    struct fixture fixture;
    fixture_init(&fixture);
    struct plan_spec spec = {.graph = fixture.graph, .parameters = fixture.parameters, .device = fixture.device,
                             .mode = PLAN_TRAIN, .batch = BATCH, .optimizer = OP_SGD, .recompute = true};
    fixture.plan = network_plan(&spec);
    struct profile_options options = {.runs = 1, .hyper = still};
    fixture.profile = profile_create(fixture.plan, &options, NULL);
    assert_non_null(fixture.profile);
    assert_int_equal(find_row(fixture.profile, "conv2d", "forward")->steps, 4);
    assert_int_equal(find_row(fixture.profile, "batch_norm", "forward")->steps, 4);
    assert_int_equal(find_row(fixture.profile, "add", "sum_gradients")->steps, 2); /* relu1 and relu2 have two readers */
    int again = 0;
    for (int i = 0; i < fixture.profile->row_count; i++)
        again += strcmp(fixture.profile->rows[i].pass, "recompute") == 0 ? fixture.profile->rows[i].steps : 0;
    struct plan *kept = fixture.plan;
    spec.recompute = false;
    fixture.plan = network_plan(&spec);
    assert_true(again > 0);
    assert_int_equal(plan_step_count(kept) - plan_step_count(fixture.plan), again);
    profile_destroy(fixture.profile);
    fixture.profile = NULL;
    plan_destroy(kept);
    fixture_fini(&fixture);
}

static void a_profile_leaves_the_weights_alone(void **state) {
    (void)state;
    struct fixture fixture;
    fixture_init(&fixture);
    make_profile(&fixture, 1);
    struct parameters *after = parameters_create(fixture.graph, NULL);
    assert_true(plan_export(fixture.plan, PLAN_VALUES, after, NULL));
    for (int i = 0; i < fixture.graph->parameter_count; i++) {
        if (fixture.graph->parameters[i].role.diff != ARG_NONE)
            assert_memory_equal(after->tensors[i].data, fixture.parameters->tensors[i].data, tensor_bytes(&after->tensors[i]));
    }
    parameters_destroy(after);
    fixture_fini(&fixture);
}

/* --- times: a device that works behind the caller's back, as a GPU does --- */

static int queued; /* convolutions that nobody has waited for yet */

static bool queueing_run(struct kernel *kernel, void *const buffers[ARG_COUNT], struct stream *stream, struct error *err) {
    const struct fixture *fixture = (const struct fixture *)((const char *)kernel->device->ops - offsetof(struct fixture, ops));
    queued += kernel->op.kind == OP_CONV2D;
    return fixture->plain->run(kernel, buffers, stream, err);
}

static bool slow_synchronise(struct device *device, struct stream *stream, struct error *err) {
    (void)device, (void)stream, (void)err;
    for (; queued > 0; queued--)
        nanosleep(&(struct timespec){.tv_nsec = SLEEP_MS * 1000000}, NULL);
    return true;
}

static void times_are_of_the_steps_that_take_them(void **state) {
    (void)state;
    struct fixture fixture;
    fixture_init(&fixture);
    fixture.ops.run = queueing_run;
    fixture.ops.synchronise = slow_synchronise;
    make_profile(&fixture, 0);
    const struct profile_row *row = find_row(fixture.profile, "conv2d", "infer");
    assert_int_equal(row->steps, 4);
    assert_ptr_equal(row, &fixture.profile->rows[0]);
    assert_true(row->ms >= 4 * SLEEP_MS && fixture.profile->whole_ms >= 4 * SLEEP_MS);
    assert_true(fixture.profile->timed_ms >= 4 * SLEEP_MS);
    for (int i = 0; i < fixture.profile->step_count; i++) {
        const struct profile_step *step = &fixture.profile->steps[i];
        assert_true(strcmp(step->kind, "conv2d") != 0 || step->ms >= SLEEP_MS);
    }
    fixture_fini(&fixture);
}

static void a_median_is_the_middle(void **state) {
    (void)state;
    double odd[] = {5, 1, 3}, even[] = {4, 100, 1, 2}, one[] = {7};
    assert_true(profile_median(odd, 3) == 3);
    assert_true(profile_median(even, 4) == 3);
    assert_true(profile_median(one, 1) == 7);
}

/* --- fallbacks --- */

static struct kernel *falling_prepare(struct device *device, const struct kernel_request *request, struct error *err) {
    const struct fixture *fixture = (const struct fixture *)((const char *)device->ops - offsetof(struct fixture, ops));
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
    struct fixture fixture;
    fixture_init(&fixture);
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
    fixture_fini(&fixture);
}

static void what_is_fast_is_not_warned_of(void **state) {
    (void)state;
    struct fixture fixture;
    fixture_init(&fixture);
    make_profile(&fixture, 1);
    char *text = printed(fixture.profile);
    assert_null(strstr(text, "SLOW"));
    assert_non_null(strstr(text, "a network, training, f32, batch 2, on "));
    free(text);
    text = logged(fixture.plan, 0);
    assert_string_equal(text, "");
    free(text);
    fixture_fini(&fixture);
}

/* --- what is written --- */

static void the_json_is_the_table(void **state) {
    (void)state;
    struct fixture fixture;
    char *text = NULL;
    size_t size = 0;
    fixture_init(&fixture);
    fixture.ops.prepare = falling_prepare;
    make_profile(&fixture, 1);
    FILE *out = open_memstream(&text, &size);
    assert_true(profile_print_json(fixture.profile, out, NULL));
    fclose(out);
    json_t *json = json_loads(text, 0, NULL), *row;
    free(text);
    assert_non_null(json);
    assert_string_equal(json_string_value(json_object_get(json, "mode")), "training");
    assert_int_equal(json_integer_value(json_object_get(json, "batch")), BATCH);
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
    fixture_fini(&fixture);
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
    struct fixture fixtures[2];
    struct profile *profiles[2];
    char path[] = "/tmp/thorax-trace-XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    close(descriptor);
    for (int i = 0; i < 2; i++) {
        fixture_init(&fixtures[i]);
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
    fixture_fini(&fixtures[0]);
    fixture_fini(&fixtures[1]);
}

static void a_trace_that_cannot_be_written_is_an_error(void **state) {
    (void)state;
    struct fixture fixture;
    struct error err = {0};
    fixture_init(&fixture);
    make_profile(&fixture, 0);
    assert_false(profile_write_trace(&fixture.profile, 1, "/tmp/thorax-there-is-no-such-folder/trace.json", &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    fixture_fini(&fixture);
}

static void what_makes_no_sense_is_refused(void **state) {
    (void)state;
    struct fixture fixture;
    struct error err = {0};
    volatile sig_atomic_t stop = 1;
    fixture_init(&fixture);
    make_plan(&fixture, 1);
    assert_null(profile_create(fixture.plan, &(struct profile_options){.runs = 0, .hyper = still}, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    assert_null(profile_create(fixture.plan, &(struct profile_options){.runs = PROFILE_MAX_RUNS + 1, .hyper = still}, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    assert_null(profile_create(fixture.plan, &(struct profile_options){.runs = 1}, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    assert_null(profile_create(fixture.plan, &(struct profile_options){.runs = 1, .hyper = still, .stop = &stop}, &err));
    assert_int_equal(err.code, ERROR_STATE);
    profile_destroy(NULL);
    fixture_fini(&fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_step_of_an_inference_is_timed_once_a_run),
        cmocka_unit_test(a_training_step_has_its_parts_their_sums_and_the_update),
        cmocka_unit_test(what_is_timed_is_computed),
        cmocka_unit_test(operations_and_bytes_are_those_of_all_parts),
        cmocka_unit_test(what_is_computed_again_stands_by_itself),
        cmocka_unit_test(a_profile_leaves_the_weights_alone),
        cmocka_unit_test(times_are_of_the_steps_that_take_them),
        cmocka_unit_test(a_median_is_the_middle),
        cmocka_unit_test(a_reference_kernel_is_said),
        cmocka_unit_test(what_is_fast_is_not_warned_of),
        cmocka_unit_test(the_json_is_the_table),
        cmocka_unit_test(the_trace_nests_and_is_in_order),
        cmocka_unit_test(a_trace_that_cannot_be_written_is_an_error),
        cmocka_unit_test(what_makes_no_sense_is_refused),
    };
    log_init("tester", LOG_INFO, LOG_TEXT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
