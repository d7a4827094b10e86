#include "inferd/activation.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "tests/unit/inferd/tiny_model.h"
#include "tests/unit/process_size.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { PATH_SIZE = 128, MODELS = 2, WARM_UP = 4, FAILURES = 8 };

/* A model of these takes 45 MB in its file, and as much once it is loaded: one that stays behind shows. */
static const int64_t SLACK_BYTES = INT64_C(60) << 20;

struct setting {
    char folder[PATH_SIZE / 2];
    char paths[MODELS][PATH_SIZE], bad[PATH_SIZE];
    struct digest digests[MODELS], bad_digest;
    struct slot *slot;
    struct activation_spec spec;
};

static void write_model(const char *path, const struct tiny_model_spec *spec, struct digest *digest) {
    struct error err = {0};
    if (!tiny_model_write(path, spec, &err) || !digest_file(path, digest, &err)) {
        fail_msg("%s", err.message);
    }
}

/** The files are the same for all tests. */
static int make_files(void **state) {
    struct setting *setting = calloc(1, sizeof *setting);
    snprintf(setting->folder, sizeof setting->folder, "/tmp/thorax-activation-XXXXXX");
    assert_non_null(mkdtemp(setting->folder));
    assert_true(digest_start(NULL));
    for (int i = 0; i < MODELS; i++) {
        snprintf(setting->paths[i], PATH_SIZE, "%s/%d", setting->folder, i);
        write_model(
            setting->paths[i],
            &(struct tiny_model_spec){.name = "good", .seed = (uint64_t)i, .temperature = 1, .golden = true},
            &setting->digests[i]);
    }
    snprintf(setting->bad, PATH_SIZE, "%s/bad", setting->folder);
    write_model(setting->bad,
                &(struct tiny_model_spec){
                    .name = "bad", .seed = 9, .temperature = 1, .golden = true, .golden_shift = 0.01f},
                &setting->bad_digest);
    *state = setting;
    return 0;
}

static int remove_files(void **state) {
    struct setting *setting = *state;
    assert_true(file_remove_tree(setting->folder, NULL));
    free(setting);
    return 0;
}

static int setup(void **state) {
    struct setting *setting = *state;
    setting->slot = slot_create();
    slot_keep_previous(setting->slot, true);
    setting->spec =
        (struct activation_spec){.slot = setting->slot,
                                 .load = {.device = {.name = tiny_model_device()}, .max_batch = 2},
                                 .shadow_threads = 1};
    return 0;
}

static int teardown(void **state) {
    struct setting *setting = *state;
    slot_destroy(setting->slot);
    return 0;
}

static bool serves(const struct setting *setting, const struct digest *digest) {
    struct model *model = slot_acquire(setting->slot);
    bool same = model && digest_equal(&model->info.digest, digest);
    model_release(model);
    return same;
}

static void activate(const struct setting *setting, int i) {
    struct error err = {0};
    if (!activation_run(&setting->spec, setting->paths[i], &setting->digests[i], &err)) {
        fail_msg("%s", err.message);
    }
    assert_true(serves(setting, &setting->digests[i]));
}

static void a_rollback_to_a_resident_model_reads_no_file(void **state) {
    struct setting *setting = *state;
    activate(setting, 0);
    activate(setting, 1);
    assert_true(activation_run(&setting->spec, "/nonexistent", &setting->digests[0], NULL));
    assert_true(serves(setting, &setting->digests[0]));
    assert_true(slot_drop_previous(setting->slot));
    struct error err = {0};
    assert_false(activation_run(&setting->spec, "/nonexistent", &setting->digests[1], &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    assert_true(serves(setting, &setting->digests[0]));
}

static void a_resident_model_that_failed_is_loaded_anew(void **state) {
    struct setting *setting = *state;
    activate(setting, 0);
    activate(setting, 1);
    struct model *broken = slot_find(setting->slot, &setting->digests[0]);
    atomic_store(&broken->broken, true);
    activate(setting, 0);
    struct model *anew = slot_acquire(setting->slot);
    assert_ptr_not_equal(anew, broken);
    model_release(anew);
    model_release(broken);
}

static void failed_activations_leave_nothing_behind(void **state) {
    struct setting *setting = *state;
    struct process_size before = {0};
    activate(setting, 0);
    for (int i = 0; i < WARM_UP + FAILURES; i++) {
        struct error err = {0};
        if (i == WARM_UP) {
            before = process_size_of(0);
        }
        assert_false(activation_run(&setting->spec, setting->bad, &setting->bad_digest, &err));
        assert_non_null(strstr(err.message, "self-test"));
        assert_true(serves(setting, &setting->digests[0]));
    }
    struct process_size after = process_size_of(0);
    assert_int_equal(after.descriptors, before.descriptors);
    assert_true(after.resident_bytes <= before.resident_bytes + SLACK_BYTES);
}

static void a_shadow_is_proved_as_any_other_and_checked_to_be_the_right_one(void **state) {
    struct setting *setting = *state;
    struct error err = {0};
    struct model *model =
        activation_load_shadow(&setting->spec, setting->paths[1], &setting->digests[1], &err);
    assert_non_null(model);
    assert_int_equal(model->max_batch, 1);
    model_release(model);
    assert_null(activation_load_shadow(&setting->spec, setting->paths[1], &setting->digests[0], &err));
    assert_null(activation_load_shadow(&setting->spec, setting->bad, &setting->bad_digest, &err));
    assert_non_null(strstr(err.message, "self-test"));
    assert_null(slot_acquire(setting->slot));
}

int main(void) {
    log_init("activation_test", LOG_ERROR + 1, LOG_TEXT);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_rollback_to_a_resident_model_reads_no_file),
        TEST(a_resident_model_that_failed_is_loaded_anew),
        TEST(failed_activations_leave_nothing_behind),
        TEST(a_shadow_is_proved_as_any_other_and_checked_to_be_the_right_one),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
