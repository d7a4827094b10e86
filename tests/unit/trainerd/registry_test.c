#include "trainerd/registry.h"

#include "common/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The registry is what a publisher must not forget: it is closed and opened again after every change that is
 * tested. */

struct fixture {
    char folder[64];
    struct store *store;
    struct registry *registry;
    int max_pages;
};

static void reopen(struct fixture *fixture) {
    struct error err = {0};
    struct registry_spec spec = {.keep_retired = 2, .max_pages = fixture->max_pages};
    int dropped;
    registry_close(fixture->registry);
    store_close(fixture->store);
    fixture->store = spec.store = store_open(fixture->folder, 1 << 20, &err);
    assert_non_null(fixture->store);
    fixture->registry = registry_open(&spec, &dropped, &err);
    if (!fixture->registry)
        fail_msg("%s", err.message);
}

static int set_up(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    snprintf(fixture->folder, sizeof fixture->folder, "/tmp/thorax-registry-XXXXXX");
    assert_non_null(mkdtemp(fixture->folder));
    *state = fixture;
    reopen(fixture);
    return 0;
}

static int tear_down(void **state) {
    struct fixture *fixture = *state;
    registry_close(fixture->registry);
    store_close(fixture->store);
    file_remove_tree(fixture->folder, NULL);
    free(fixture);
    return 0;
}

/** Puts bytes that depend on `which` into the store and publishes them as chest:which. */
static struct digest add_as(struct fixture *fixture, int which, const char *gate, bool registers_only) {
    struct error err = {0};
    char data[64], version[16];
    struct digest digest;
    struct descriptor descriptor;
    struct registry_metric metrics[] = {{"auc", "phantoms", "validation", .5 + which / 100.}};
    snprintf(data, sizeof data, "model %d", which);
    snprintf(version, sizeof version, "%d", which);
    assert_true(store_put(fixture->store, data, strlen(data), &digest, &err));
    assert_true(descriptor_make(
        &descriptor,
        &(struct descriptor_spec){.name = "chest", .version = version, .data = data, .size = strlen(data)},
        &err));
    struct registry_addition addition = {
        .descriptor = &descriptor, .metrics = metrics, .metric_count = 1, .registers_only = registers_only, .gate = gate};
    if (!registry_add(fixture->registry, &addition, &err))
        fail_msg("%s", err.message);
    return digest;
}

static struct digest add_gated(struct fixture *fixture, int which, const char *gate) {
    return add_as(fixture, which, gate, false);
}

static struct digest add(struct fixture *fixture, int which) {
    return add_gated(fixture, which, NULL);
}

static Thorax__V1__ModelState state_of(struct fixture *fixture, const struct digest *digest) {
    const struct registry_model *model = registry_find(fixture->registry, digest);
    return model ? model->state : THORAX__V1__MODEL_STATE__MODEL_UNSPECIFIED;
}

static void what_was_published_is_there_again(void **state) {
    struct fixture *fixture = *state;
    uint8_t id[REGISTRY_ID_BYTES];
    memcpy(id, registry_id(fixture->registry), sizeof id);
    struct digest first = add(fixture, 1), second = add(fixture, 2);
    assert_int_equal(registry_number(fixture->registry), 2);
    reopen(fixture);
    assert_memory_equal(registry_id(fixture->registry), id, sizeof id);
    assert_int_equal(registry_number(fixture->registry), 2);
    assert_int_equal(registry_count(fixture->registry), 2);
    assert_true(digest_equal(&registry_model(fixture->registry, 0)->descriptor.digest, &first));
    assert_string_equal(registry_model(fixture->registry, 1)->descriptor.version, "2");
    assert_int_equal(state_of(fixture, &second), THORAX__V1__MODEL_STATE__MODEL_STAGED);
    double value = 0;
    struct registry_metric wanted = {.name = "auc", .data_set = "phantoms", .split = "validation"};
    assert_true(registry_metric(fixture->registry, &second, &wanted, &value, NULL));
    assert_true(value == .52);
    struct error err = {0};
    snprintf(wanted.split, sizeof wanted.split, "test");
    assert_false(registry_metric(fixture->registry, &second, &wanted, &value, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
}

static void the_stable_model_retires_the_one_before(void **state) {
    struct fixture *fixture = *state;
    struct digest first = add(fixture, 1), second = add(fixture, 2);
    assert_true(registry_set_stable(fixture->registry, &first, "ann", NULL));
    assert_null(registry_previous(fixture->registry));
    assert_true(registry_set_stable(fixture->registry, &second, "ann", NULL));
    reopen(fixture);
    assert_true(digest_equal(&registry_stable(fixture->registry)->descriptor.digest, &second));
    assert_true(digest_equal(&registry_previous(fixture->registry)->descriptor.digest, &first));
    assert_int_equal(state_of(fixture, &first), THORAX__V1__MODEL_STATE__MODEL_RETIRED);
    assert_int_equal(registry_number(fixture->registry), 4);
    struct digest unknown = {{1}};
    struct error err = {0};
    assert_false(registry_set_stable(fixture->registry, &unknown, "ann", &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
}

static void the_candidate_goes_back_to_where_it_was(void **state) {
    struct fixture *fixture = *state;
    struct digest first = add(fixture, 1), second = add(fixture, 2);
    assert_true(registry_set_stable(fixture->registry, &first, "", NULL));
    assert_true(registry_set_stable(fixture->registry, &second, "", NULL));
    struct digest third = add(fixture, 3);
    assert_true(registry_set_candidate(fixture->registry, &third, NULL));
    reopen(fixture);
    assert_true(digest_equal(&registry_candidate(fixture->registry)->descriptor.digest, &third));
    assert_true(registry_set_candidate(fixture->registry, &first, NULL)); /* back to an earlier one */
    assert_int_equal(state_of(fixture, &third), THORAX__V1__MODEL_STATE__MODEL_STAGED);
    assert_true(registry_set_candidate(fixture->registry, NULL, NULL));
    reopen(fixture);
    assert_null(registry_candidate(fixture->registry));
    assert_int_equal(state_of(fixture, &first), THORAX__V1__MODEL_STATE__MODEL_RETIRED);
    assert_false(registry_set_candidate(fixture->registry, &second, NULL)); /* stable already */
}

static void approvals_say_by_whom(void **state) {
    struct fixture *fixture = *state;
    struct digest first = add(fixture, 1);
    assert_true(registry_approve(fixture->registry, &first, "ann", "", NULL));
    assert_true(registry_approve(fixture->registry, &first, "bob", "", NULL));
    reopen(fixture);
    assert_string_equal(registry_find(fixture->registry, &first)->approved_by, "ann");
    struct registry_event events[8];
    int count = registry_events(fixture->registry, 0, 8, events, NULL);
    assert_int_equal(count, 3);
    assert_string_equal(events[0].kind, "published");
    assert_string_equal(events[1].kind, "approved");
    assert_string_equal(events[2].by, "bob");
    assert_true(events[2].has_digest && digest_equal(&events[2].digest, &first));
    assert_int_equal(registry_events(fixture->registry, events[1].id, 8, events, NULL), 1);
}

static void what_the_gate_refused_needs_a_note(void **state) {
    struct fixture *fixture = *state;
    struct error err = {0};
    struct digest first = add_gated(fixture, 1, "auc .51 is below .97");
    assert_int_equal(registry_number(fixture->registry), 0); /* members hear nothing of it */
    reopen(fixture);
    assert_string_equal(registry_find(fixture->registry, &first)->gate, "auc .51 is below .97");
    assert_false(registry_approve(fixture->registry, &first, "ann", "", &err));
    assert_non_null(strstr(err.message, "auc .51 is below .97"));
    assert_true(registry_approve(fixture->registry, &first, "ann", "the labels were wrong", NULL));
    reopen(fixture);
    assert_string_equal(registry_find(fixture->registry, &first)->gate, "");
    assert_int_equal(registry_number(fixture->registry), 1);
}

static void what_is_only_registered_is_staged_by_an_approval(void **state) {
    struct fixture *fixture = *state;
    struct error err = {0};
    struct digest plain = add_as(fixture, 1, NULL, true), refused = add_as(fixture, 2, "auc is worse", true);
    assert_int_equal(registry_number(fixture->registry), 0); /* nobody is to hear of it */
    reopen(fixture);
    assert_int_equal(state_of(fixture, &plain), THORAX__V1__MODEL_STATE__MODEL_REGISTERED);
    assert_true(registry_approve(fixture->registry, &plain, "ann", "", NULL));
    assert_int_equal(registry_number(fixture->registry), 1);
    assert_false(registry_approve(fixture->registry, &refused, "ann", "", &err));
    assert_true(registry_approve(fixture->registry, &refused, "ann", "a test", NULL));
    assert_true(registry_approve(fixture->registry, &plain, "ben", "", NULL)); /* once more changes nothing */
    assert_int_equal(registry_number(fixture->registry), 2);
    reopen(fixture);
    assert_int_equal(state_of(fixture, &plain), THORAX__V1__MODEL_STATE__MODEL_STAGED);
    assert_int_equal(state_of(fixture, &refused), THORAX__V1__MODEL_STATE__MODEL_STAGED);
}

static void a_revoked_model_stays_revoked(void **state) {
    struct fixture *fixture = *state;
    struct error err = {0};
    struct digest first = add(fixture, 1), second = add(fixture, 2);
    assert_true(registry_set_stable(fixture->registry, &first, "", NULL));
    assert_false(registry_revoke(fixture->registry, &first, "ann", "", &err));
    assert_int_equal(err.code, ERROR_STATE);
    assert_true(registry_revoke(fixture->registry, &second, "ann", "leaks", NULL));
    reopen(fixture);
    int count;
    const struct digest *revoked = registry_revoked(fixture->registry, &count);
    assert_int_equal(count, 1);
    assert_true(digest_equal(revoked, &second));
    assert_int_equal(state_of(fixture, &second), THORAX__V1__MODEL_STATE__MODEL_REVOKED);
    assert_false(registry_approve(fixture->registry, &second, "ann", "", NULL));
    assert_false(registry_set_stable(fixture->registry, &second, "ann", NULL));
    assert_false(registry_set_candidate(fixture->registry, &second, NULL));
}

static void models_have_names(void **state) {
    struct fixture *fixture = *state;
    struct error err = {0};
    struct digest first = add(fixture, 1), second = add(fixture, 2), found;
    char hex[DIGEST_HEX_SIZE], prefix[9] = "";
    assert_true(registry_resolve(fixture->registry, "chest:1", &found, NULL));
    assert_true(digest_equal(&found, &first));
    assert_true(registry_resolve(fixture->registry, digest_hex(&second, hex), &found, NULL));
    assert_true(digest_equal(&found, &second));
    memcpy(prefix, hex, 8);
    assert_true(registry_resolve(fixture->registry, prefix, &found, NULL));
    assert_true(digest_equal(&found, &second));
    static const char *const unknown[] = {"stable", "candidate", "previous", "chest:3",
                                          "ches:1", "chest:",    "00000000"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        assert_false(registry_resolve(fixture->registry, unknown[i], &found, &err));
        assert_int_equal(err.code, ERROR_NOT_FOUND);
    }
    prefix[7] = '\0'; /* too short to mean a digest */
    assert_false(registry_resolve(fixture->registry, prefix, &found, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    assert_true(registry_set_stable(fixture->registry, &second, "", NULL));
    assert_true(registry_resolve(fixture->registry, "stable", &found, NULL));
    assert_true(digest_equal(&found, &second));
}

static void the_oldest_make_room_but_not_what_is_needed(void **state) {
    struct fixture *fixture = *state;
    struct digest approved = add(fixture, 1), stable = add(fixture, 2);
    assert_true(registry_approve(fixture->registry, &approved, "ann", "", NULL));
    assert_true(registry_set_stable(fixture->registry, &stable, "", NULL));
    for (int which = 3; which < 3 + REGISTRY_MAX_STAGED + 5; which++)
        add(fixture, which);
    reopen(fixture);
    assert_true(registry_count(fixture->registry) <= REGISTRY_MAX_STAGED + 3);
    assert_non_null(registry_find(fixture->registry, &approved));
    assert_non_null(registry_find(fixture->registry, &stable));
    struct digest oldest;
    assert_false(registry_resolve(fixture->registry, "chest:3", &oldest, NULL));
    struct store_list list;
    assert_true(store_list(fixture->store, &list, NULL));
    assert_int_equal(list.count, registry_count(fixture->registry));
    store_list_fini(&list);
}

static void a_model_that_comes_back_keeps_its_history(void **state) {
    struct fixture *fixture = *state;
    struct digest first = add(fixture, 1);
    assert_true(registry_approve(fixture->registry, &first, "ann", "", NULL));
    char hex[DIGEST_HEX_SIZE];
    assert_true(store_unpin(fixture->store, digest_hex(&first, hex), NULL));
    assert_true(store_remove(fixture->store, &first, NULL)); /* its file is lost */
    reopen(fixture);
    assert_null(registry_find(fixture->registry, &first));
    add(fixture, 1);
    assert_string_equal(registry_find(fixture->registry, &first)->approved_by, "ann"); /* at once */
    reopen(fixture);
    assert_string_equal(registry_find(fixture->registry, &first)->approved_by, "ann");
}

static void a_rollout_is_read_as_it_was_written(void **state) {
    struct fixture *fixture = *state;
    struct error err = {0};
    assert_null(registry_newest_rollout(fixture->registry, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    Thorax__V1__RolloutRecord record;
    thorax__v1__rollout_record__init(&record);
    for (uint64_t id = 1; id < 3; id++) {
        record.id = id;
        record.reason = "because";
        assert_true(registry_save_rollout(fixture->registry, &record, NULL));
    }
    record.reason = "for another reason";
    assert_true(registry_save_rollout(fixture->registry, &record, NULL));
    reopen(fixture);
    Thorax__V1__RolloutRecord *read = registry_newest_rollout(fixture->registry, NULL);
    assert_non_null(read);
    assert_int_equal(read->id, 2);
    assert_string_equal(read->reason, "for another reason");
    pool_free(read);
}

static void a_restored_registry_is_held_and_ahead(void **state) {
    struct fixture *fixture = *state;
    char copy[128], path[256];
    struct digest first = add(fixture, 1);
    snprintf(copy, sizeof copy, "%s/copy.sqlite", fixture->folder);
    assert_true(registry_copy(fixture->folder, copy, NULL)); /* while it is open */
    assert_false(registry_copy(fixture->folder, copy, NULL));
    assert_true(registry_set_stable(fixture->registry, &first, "", NULL));
    uint64_t number = registry_number(fixture->registry);
    registry_close(fixture->registry);
    fixture->registry = NULL;
    assert_true(registry_path(fixture->folder, path, sizeof path, NULL));
    unlink(path);
    assert_int_equal(rename(copy, path), 0);
    assert_true(registry_mark_restored(fixture->folder, "from a copy", NULL));
    reopen(fixture);
    assert_string_equal(registry_held(fixture->registry), "from a copy");
    assert_true(registry_number(fixture->registry) > number);
    assert_true(registry_lift_hold(fixture->registry, "ann", NULL));
    reopen(fixture);
    assert_string_equal(registry_held(fixture->registry), "");
}

/** Nothing of a change that does not fit is there, in memory or on disk. */
static void a_full_disk_changes_nothing(void **state) {
    struct fixture *fixture = *state;
    struct digest first = add(fixture, 1);
    assert_true(registry_set_stable(fixture->registry, &first, "", NULL));
    fixture->max_pages = 20;
    reopen(fixture);
    char note[400];
    memset(note, 'x', sizeof note - 1);
    note[sizeof note - 1] = '\0';
    struct error err = {0};
    int approvals = 0;
    while (registry_approve(fixture->registry, &first, "ann", note, &err) && approvals < 10000)
        approvals++;
    assert_int_equal(err.code, ERROR_IO);
    assert_non_null(strstr(err.message, "full"));
    uint64_t number = registry_number(fixture->registry);
    reopen(fixture);
    assert_int_equal(registry_number(fixture->registry), number);
    assert_true(digest_equal(&registry_stable(fixture->registry)->descriptor.digest, &first));
    struct registry_event events[3];
    int count = 0;
    uint64_t after = 0;
    for (int got; (got = registry_events(fixture->registry, after, 3, events, NULL)) > 0;
         after = events[got - 1].id)
        count += got;
    assert_int_equal(count, 2 + approvals);
}

static void what_is_no_registry_is_refused(void **state) {
    struct fixture *fixture = *state;
    char path[256];
    struct error err = {0};
    int dropped;
    add(fixture, 1);
    registry_close(fixture->registry);
    fixture->registry = NULL;
    assert_true(registry_path(fixture->folder, path, sizeof path, NULL));
    static const char garbage[8192] = "this is no database";
    assert_true(file_write_atomic(path, garbage, sizeof garbage, NULL));
    struct registry_spec spec = {.store = fixture->store, .keep_retired = 2};
    assert_null(registry_open(&spec, &dropped, &err));
    assert_int_equal(err.code, ERROR_FORMAT);
    assert_non_null(strstr(err.message, "registry.sqlite"));
    assert_true(strlen(err.hint) > 0);
}

int main(void) {
    if (!digest_start(NULL))
        return 1;
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_was_published_is_there_again),
        TEST(the_stable_model_retires_the_one_before),
        TEST(the_candidate_goes_back_to_where_it_was),
        TEST(approvals_say_by_whom),
        TEST(what_the_gate_refused_needs_a_note),
        TEST(what_is_only_registered_is_staged_by_an_approval),
        TEST(a_revoked_model_stays_revoked),
        TEST(models_have_names),
        TEST(the_oldest_make_room_but_not_what_is_needed),
        TEST(a_model_that_comes_back_keeps_its_history),
        TEST(a_rollout_is_read_as_it_was_written),
        TEST(a_restored_registry_is_held_and_ahead),
        TEST(a_full_disk_changes_nothing),
        TEST(what_is_no_registry_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
