/* Profiles of plans: every step is in them as often as it runs, and times are the steps' own. */
#include "common/graph/profile_internal.h"
#include "tests/unit/graph/profile_fixture.h"

#include <math.h>
#include <string.h>
#include <time.h>

enum { SLEEP_MS = 4 };

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
    struct profile_fixture fixture;
    profile_fixture_init(&fixture);
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
    for (int run = 0; run < PROFILE_RUNS; run++)
        event = assert_in_order(event, count, &now_ns);
    assert_table_holds_all(profile);
    assert_true(profile->whole_ms > 0);
    profile_fixture_fini(&fixture);
}

static void a_training_step_has_its_parts_their_sums_and_the_update(void **state) {
    (void)state;
    enum { PARTS = 3 };
    struct profile_fixture fixture;
    profile_fixture_init(&fixture);
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
    for (int run = 0; run < PROFILE_RUNS; run++) {
        for (int part = 0; part < PARTS; part++)
            event = assert_in_order(event, count, &now_ns);
        assert_int_equal(event->step, count);
        event++;
    }
    assert_int_equal(event - profile->events, (int64_t)PROFILE_RUNS * profile->events_per_run);
    assert_table_holds_all(profile);
    assert_int_equal(find_row(profile, "add", "sum_parts")->steps, sums);
    assert_int_equal(find_row(profile, "sgd", "update")->steps, 1);
    assert_non_null(find_row(profile, "conv2d", "backward_weight"));
    profile_fixture_fini(&fixture);
}

/** Buckets are rounded for the ranks behind each segment that ends one, whether the step has parts or not. */
static void rounding_for_the_ranks_is_timed(void **state) {
    (void)state;
    for (int parts = 1; parts <= 2; parts++) {
        struct profile_fixture fixture;
        profile_fixture_init(&fixture);
        fixture.bf16_reductions = true;
        make_profile(&fixture, parts);
        const struct profile *profile = fixture.profile;
        const struct profile_row *row = find_row(profile, parts == 1 ? "reorder" : "add", parts == 1 ? "narrow" : "sum_parts");
        assert_true(row && row->steps > 1);
        assert_int_equal(profile->step_count, plan_step_count(fixture.plan) + row->steps + 1);
        assert_int_equal(profile->events_per_run, parts * (profile->step_count - 1) + 1);
        assert_table_holds_all(profile);
        profile_fixture_fini(&fixture);
    }
}

/** Parts of the same images at the same weights have the same gradients: their sum is so many times that of one. */
static void what_is_timed_is_computed(void **state) {
    (void)state;
    enum { PARTS = 3 };
    struct profile_fixture fixtures[2];
    struct parameters *gradients[2];
    for (int i = 0; i < 2; i++) {
        profile_fixture_init(&fixtures[i]);
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
        profile_fixture_fini(&fixtures[i]);
    }
}

/** PyTorch's convention: a convolution of C x 3 x 3 to O channels over P pixels is 2 * 9 * C * O * P operations an image. */
static void operations_and_bytes_are_those_of_all_parts(void **state) {
    (void)state;
    struct profile_fixture fixture;
    profile_fixture_init(&fixture);
    make_profile(&fixture, 2);
    const double pixels = NETWORK_SIDE * NETWORK_SIDE, each = 2 * 9 * NETWORK_CHANNELS * 4 * pixels;
    for (int i = 0; i < fixture.profile->step_count; i++) {
        const struct profile_step *step = &fixture.profile->steps[i];
        if (strcmp(step->name, "conv1") != 0 || strcmp(step->pass, "forward") != 0 || strcmp(step->kind, "conv2d") != 0)
            continue;
        assert_true(step->flops == 2 * PROFILE_BATCH * each);
        double floats = PROFILE_BATCH * pixels * (NETWORK_CHANNELS + 4) + 9 * NETWORK_CHANNELS * 4;
        assert_true(step->bytes == 2 * floats * sizeof(float));
        profile_fixture_fini(&fixture);
        return;
    }
    fail_msg("there is no conv1");
}

static void what_is_computed_again_stands_by_itself(void **state) {
    (void)state;
    struct profile_fixture fixture;
    profile_fixture_init(&fixture);
    struct plan_spec spec = {.graph = fixture.graph, .parameters = fixture.parameters, .device = fixture.device,
                             .mode = PLAN_TRAIN, .batch = PROFILE_BATCH, .optimizer = OP_SGD, .recompute = true};
    fixture.plan = network_plan(&spec);
    struct profile_options options = {.runs = 1, .hyper = profile_still};
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
    profile_fixture_fini(&fixture);
}

static void a_profile_leaves_the_weights_alone(void **state) {
    (void)state;
    struct profile_fixture fixture;
    profile_fixture_init(&fixture);
    make_profile(&fixture, 1);
    struct parameters *after = parameters_create(fixture.graph, NULL);
    assert_true(plan_export(fixture.plan, PLAN_VALUES, after, NULL));
    for (int i = 0; i < fixture.graph->parameter_count; i++) {
        if (fixture.graph->parameters[i].role.diff != ARG_NONE)
            assert_memory_equal(after->tensors[i].data, fixture.parameters->tensors[i].data, tensor_bytes(&after->tensors[i]));
    }
    parameters_destroy(after);
    profile_fixture_fini(&fixture);
}

/* --- times: a device that works behind the caller's back, as a GPU does --- */

static int queued; /* convolutions that nobody has waited for yet */

static bool queueing_run(struct kernel *kernel, void *const buffers[ARG_COUNT], struct stream *stream, struct error *err) {
    const struct profile_fixture *fixture = profile_fixture_of(kernel->device);
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
    struct profile_fixture fixture;
    profile_fixture_init(&fixture);
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
    profile_fixture_fini(&fixture);
}

static void a_median_is_the_middle(void **state) {
    (void)state;
    double odd[] = {5, 1, 3}, even[] = {4, 100, 1, 2}, one[] = {7};
    assert_true(profile_median(odd, 3) == 3);
    assert_true(profile_median(even, 4) == 3);
    assert_true(profile_median(one, 1) == 7);
}

static void what_makes_no_sense_is_refused(void **state) {
    (void)state;
    struct profile_fixture fixture;
    struct error err = {0};
    volatile sig_atomic_t stop = 1;
    profile_fixture_init(&fixture);
    make_plan(&fixture, 1);
    const struct profile_options none = {.runs = 0, .hyper = profile_still}, no_hyper = {.runs = 1},
                                 many = {.runs = PROFILE_MAX_RUNS + 1, .hyper = profile_still},
                                 stopped = {.runs = 1, .hyper = profile_still, .stop = &stop};
    assert_null(profile_create(fixture.plan, &none, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    assert_null(profile_create(fixture.plan, &many, &err));
    assert_non_null(strstr(err.message, "1001"));
    assert_null(profile_create(fixture.plan, &no_hyper, &err));
    assert_non_null(strstr(err.message, "update"));
    assert_null(profile_create(fixture.plan, &stopped, &err));
    assert_int_equal(err.code, ERROR_STATE);
    profile_destroy(NULL);
    profile_fixture_fini(&fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_step_of_an_inference_is_timed_once_a_run),
        cmocka_unit_test(a_training_step_has_its_parts_their_sums_and_the_update),
        cmocka_unit_test(rounding_for_the_ranks_is_timed),
        cmocka_unit_test(what_is_timed_is_computed),
        cmocka_unit_test(operations_and_bytes_are_those_of_all_parts),
        cmocka_unit_test(what_is_computed_again_stands_by_itself),
        cmocka_unit_test(a_profile_leaves_the_weights_alone),
        cmocka_unit_test(times_are_of_the_steps_that_take_them),
        cmocka_unit_test(a_median_is_the_middle),
        cmocka_unit_test(what_makes_no_sense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
