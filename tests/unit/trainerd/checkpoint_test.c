#include "trainerd/checkpoint.h"
#include "tests/unit/graph/network.h"
#include "tests/unit/trainerd/folder.h"
#include "trainerd/checkpoint_state.h"

#include <math.h>

struct run {
    struct device *device;
    struct graph *graph;
    struct parameters *parameters;
    struct plan *plan;
};

static void run_init(struct run *run, uint64_t seed) {
    *run = (struct run){.device = network_device(), .graph = network_graph(0)};
    run->parameters = network_parameters(run->graph, seed);
    struct plan_spec spec = {.graph = run->graph, .parameters = run->parameters, .device = run->device, .mode = PLAN_TRAIN,
                             .batch = 1, .optimizer = OP_ADAMW, .ema = true};
    run->plan = network_plan(&spec);
}

static void run_fini(struct run *run) {
    plan_destroy(run->plan);
    parameters_destroy(run->parameters);
    graph_destroy(run->graph);
    device_close(run->device);
}

static struct training_state sample_state(int64_t step) {
    return (struct training_state){.epoch = 3, .step = 17, .global_step = step, .seed = UINT64_C(0xfedcba9876543210),
                                   .best_metric = 0.1 + 0.2, .best_epoch = 2, .stale_epochs = 1, .loss_sum = 1.0 / 3, .models = 4,
                                   .finished = true, .run = UINT64_C(0x8000000000000001), .ranks = 5, .parts = 3,
                                   .config_digest = "c0", .data_digest = "da", .environment = "onednn, \"2 threads\"",
                                   .loss_scale = {0x1p13, 1234, 5}};
}

static bool same_state(const struct training_state *a, const struct training_state *b) {
    return a->epoch == b->epoch && a->step == b->step && a->global_step == b->global_step && a->seed == b->seed &&
           memcmp(&a->best_metric, &b->best_metric, sizeof a->best_metric) == 0 && a->best_epoch == b->best_epoch &&
           a->stale_epochs == b->stale_epochs && a->loss_sum == b->loss_sum && a->models == b->models &&
           a->finished == b->finished && a->run == b->run && a->ranks == b->ranks && a->parts == b->parts &&
           strcmp(a->config_digest, b->config_digest) == 0 && strcmp(a->data_digest, b->data_digest) == 0 &&
           strcmp(a->environment, b->environment) == 0 &&
           a->loss_scale.factor == b->loss_scale.factor && a->loss_scale.good_steps == b->loss_scale.good_steps &&
           a->loss_scale.skipped == b->loss_scale.skipped;
}

static void save(const struct test_folder *folder, struct run *run, int64_t step, int keep) {
    struct training_state state = sample_state(step);
    struct error err = {0};
    if (!checkpoint_save(folder->path, run->plan, run->graph, &state, keep, &err))
        fail_msg("%s", err.message);
}

static bool has_step(struct test_folder *folder, int step) {
    char path[128];
    snprintf(path, sizeof path, "%s/step-%09d.safetensors", folder->path, step);
    return file_exists(path);
}

static void check_buffer(struct run *run, enum plan_buffer which, uint64_t seed) {
    struct parameters *expected = network_parameters(run->graph, seed), *got = parameters_create(run->graph, NULL);
    assert_true(plan_export(run->plan, which, got, NULL));
    for (int i = 0; i < got->count; i++) {
        if (which == PLAN_VALUES || run->graph->parameters[i].role.diff != ARG_NONE)
            assert_memory_equal(got->tensors[i].data, expected->tensors[i].data, tensor_bytes(&got->tensors[i]));
    }
    parameters_destroy(expected);
    parameters_destroy(got);
}

static void everything_comes_back_bit_for_bit(void **state) {
    struct test_folder *folder = *state;
    static const enum plan_buffer kept[] = {PLAN_VALUES, PLAN_STATE, PLAN_STATE2, PLAN_EMA};
    struct run from, to;
    run_init(&from, 1);
    for (uint64_t i = 0; i < 4; i++) {
        struct parameters *values = network_parameters(from.graph, 50 + i);
        assert_true(plan_import(from.plan, kept[i], values, NULL));
        parameters_destroy(values);
    }
    save(folder, &from, 120, 3);
    run_fini(&from);
    run_init(&to, 2);
    char path[CHECKPOINT_PATH_SIZE];
    int skipped;
    struct training_state loaded, expected = sample_state(120);
    assert_true(checkpoint_newest(folder->path, path, &skipped, NULL));
    assert_true(checkpoint_load(path, to.plan, to.graph, &loaded, NULL));
    assert_true(same_state(&loaded, &expected));
    for (uint64_t i = 0; i < 4; i++)
        check_buffer(&to, kept[i], 50 + i);
    run_fini(&to);
}

static void only_the_newest_are_kept(void **state) {
    struct test_folder *folder = *state;
    struct run run;
    run_init(&run, 1);
    for (int step = 5; step <= 25; step += 5)
        save(folder, &run, step, 2);
    assert_true(has_step(folder, 25) && has_step(folder, 20));
    assert_false(has_step(folder, 15) || has_step(folder, 10) || has_step(folder, 5));
    save(folder, &run, 30, 0); /* at least the last one stays */
    assert_true(has_step(folder, 30));
    assert_false(has_step(folder, 25));
    run_fini(&run);
}

/* Damaged files, or another run's, that stand ahead: what is saved takes nobody's place but its own run's older ones. */
static void one_that_was_just_saved_is_never_the_oldest(void **state) {
    struct test_folder *folder = *state;
    struct run run;
    run_init(&run, 1);
    folder_text(folder, "step-000000090.safetensors", "");
    save(folder, &run, 20, 1);
    assert_true(has_step(folder, 20));
    save(folder, &run, 30, 1);
    assert_true(has_step(folder, 30) && has_step(folder, 90));
    assert_false(has_step(folder, 20));
    run_fini(&run);
}

static void only_the_run_that_is_asked_for_is_found(void **state) {
    struct test_folder *folder = *state;
    struct run run;
    struct checkpoint_found found;
    struct training_state other = sample_state(9);
    run_init(&run, 1);
    save(folder, &run, 5, 9);
    other.run = 7;
    assert_true(checkpoint_save(folder->path, run.plan, run.graph, &other, 9, NULL));
    assert_true(checkpoint_find(folder->path, sample_state(0).run, &found, NULL));
    assert_int_equal(found.state.global_step, 5);
    assert_int_equal(found.skipped, 0);
    assert_true(found.bytes > 0 && found.bytes <= checkpoint_bytes_max(run.parameters));
    assert_true(checkpoint_find(folder->path, 0, &found, NULL));
    assert_int_equal(found.state.global_step, 9);
    assert_false(checkpoint_find(folder->path, 8, &found, NULL));
    run_fini(&run);
}

static void what_killed_writers_left_is_removed(void **state) {
    struct test_folder *folder = *state;
    folder_text(folder, "step-000000004.safetensors.Ab12Cd", "half of");
    folder_text(folder, "step-000000004.safetensors", "whole");
    checkpoint_clean(folder->path);
    assert_false(file_exists(folder_path(folder, "step-000000004.safetensors.Ab12Cd")));
    assert_true(file_exists(folder_path(folder, "step-000000004.safetensors")));
}

/** Changes the newest file's size to that share of what it was. */
static void cut_file(const char *path, int percent) {
    struct bytes bytes;
    assert_true(file_read(path, 1 << 24, &bytes, NULL));
    assert_true(file_write_atomic(path, bytes.data, bytes.size * (size_t)percent / 100, NULL));
    free(bytes.data);
}

static void damaged_ones_are_passed_over(void **state) {
    struct test_folder *folder = *state;
    struct run run;
    char path[CHECKPOINT_PATH_SIZE], newest[CHECKPOINT_PATH_SIZE];
    int skipped;
    struct error err = {0};
    run_init(&run, 1);
    for (int step = 1; step <= 3; step++)
        save(folder, &run, step, 9);
    folder_text(folder, "step-000000004.safetensors", "");
    folder_text(folder, "notes.txt", "not one of ours");
    assert_true(checkpoint_newest(folder->path, newest, &skipped, &err));
    assert_int_equal(skipped, 1);
    cut_file(newest, 90);
    assert_true(checkpoint_newest(folder->path, path, &skipped, &err));
    assert_int_equal(skipped, 2);
    assert_non_null(strstr(path, "step-000000002."));
    struct training_state loaded;
    assert_false(checkpoint_load(newest, run.plan, run.graph, &loaded, &err));
    assert_int_equal(err.code, ERROR_FORMAT);
    run_fini(&run);
}

static void an_empty_folder_has_none(void **state) {
    struct test_folder *folder = *state;
    char path[CHECKPOINT_PATH_SIZE];
    int skipped;
    struct error err = {0};
    assert_false(checkpoint_newest(folder->path, path, &skipped, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    assert_false(checkpoint_newest(folder_path(folder, "missing"), path, &skipped, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
}

static void another_network_is_refused(void **state) {
    struct test_folder *folder = *state;
    struct run run;
    struct error err = {0};
    struct training_state loaded;
    char path[CHECKPOINT_PATH_SIZE];
    int skipped;
    run_init(&run, 1);
    save(folder, &run, 7, 1);
    assert_true(checkpoint_newest(folder->path, path, &skipped, NULL));
    struct graph *other = graph_create();
    struct layers layers = {other, &err, 1e-5f};
    struct convolution wider = {5, 3, 1, 1, false};
    int x = layer_convolution(&layers, "conv1", graph_add_input(other, NETWORK_CHANNELS, 8, 8, &err), &wider);
    assert_true(layer_head(&layers, "fc", layer_batch_norm(&layers, "bn1", x), 3, 0) > 0);
    struct parameters *parameters = network_parameters(other, 1);
    struct plan_spec spec = {.graph = other, .parameters = parameters, .device = run.device, .mode = PLAN_TRAIN, .batch = 1,
                             .optimizer = OP_SGD};
    struct plan *plan = network_plan(&spec);
    assert_false(checkpoint_load(path, plan, other, &loaded, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    assert_non_null(strstr(err.message, "conv1.weight"));
    plan_destroy(plan);
    parameters_destroy(parameters);
    graph_destroy(other);
    run_fini(&run);
}

static void no_metric_yet_survives_the_state(void **state) {
    (void)state;
    struct training_state before = sample_state(1), after;
    before.best_metric = NAN;
    char *text = checkpoint_state_print(&before, NULL);
    assert_non_null(text);
    assert_true(checkpoint_state_parse(text, &after, NULL));
    assert_true(isnan(after.best_metric));
    free(text);
}

static void a_broken_state_names_its_key(void **state) {
    (void)state;
    struct training_state sample = sample_state(1), parsed;
    char *text = checkpoint_state_print(&sample, NULL);
    struct error err = {0};
    char *key = strstr(text, "\"stale_epochs\"");
    assert_non_null(key);
    key[1] = 'S';
    assert_false(checkpoint_state_parse(text, &parsed, &err));
    assert_int_equal(err.code, ERROR_FORMAT);
    assert_non_null(strstr(err.message, "stale_epochs"));
    key[1] = 's';
    strstr(text, "\"loss_scale_factor\"")[1] = 'L'; /* as in a checkpoint of before it was there */
    assert_true(checkpoint_state_parse(text, &parsed, &err));
    assert_true(parsed.loss_scale.factor == 0 && parsed.loss_scale.skipped == 5);
    strstr(text, "\"run\"")[1] = 'R';
    strstr(text, "\"parts\"")[1] = 'P';
    assert_true(checkpoint_state_parse(text, &parsed, &err));
    assert_true(parsed.run == 0 && parsed.parts == 1);
    strstr(text, "\"Run\"")[1] = 'r';
    strstr(text, "8000000000000001")[3] = 'g';
    assert_false(checkpoint_state_parse(text, &parsed, &err));
    assert_non_null(strstr(err.message, "key run"));
    assert_false(checkpoint_state_parse("[1]", &parsed, &err));
    assert_false(checkpoint_state_parse("{", &parsed, &err));
    free(text);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_setup, folder_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(everything_comes_back_bit_for_bit),   IN_FOLDER(only_the_newest_are_kept),
        IN_FOLDER(damaged_ones_are_passed_over),        IN_FOLDER(an_empty_folder_has_none),
        IN_FOLDER(another_network_is_refused),          IN_FOLDER(one_that_was_just_saved_is_never_the_oldest),
        IN_FOLDER(only_the_run_that_is_asked_for_is_found), IN_FOLDER(what_killed_writers_left_is_removed),
        cmocka_unit_test(no_metric_yet_survives_the_state),
        cmocka_unit_test(a_broken_state_names_its_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
