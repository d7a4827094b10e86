#include "trainerd/trainctl/plan.h"

#include "common/base/file.h"
#include "common/pool/message_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Plans from YAML: what the publisher is sent, and errors that name file, line and key. */

static char path[64];

static int setup(void **state) {
    (void)state;
    snprintf(path, sizeof path, "/tmp/thorax-plan-XXXXXX.yaml");
    int file = mkstemps(path, 5);
    close(file);
    return file < 0;
}

static int teardown(void **state) {
    (void)state;
    return unlink(path);
}

static bool load(struct plan *plan, const char *text, struct error *err) {
    assert_true(file_write_atomic(path, text, strlen(text), NULL));
    return plan_load(plan, path, err);
}

/** The plan is refused, and the message has the file, the line and each of the words. */
static void refuses(const char *text, const char *where, const char *word) {
    struct plan plan;
    struct error err = {0};
    char place[128];
    assert_false(load(&plan, text, &err));
    snprintf(place, sizeof place, "%s:%s", path, where);
    if (!strstr(err.message, place) || !strstr(err.message, word))
        fail_msg("\"%s\" has not \"%s\" and \"%s\"", err.message, place, word);
    plan_fini(&plan);
}

static void all_of_a_plan_is_read(void **state) {
    (void)state;
    struct plan plan;
    struct error err = {0};
    load(&plan,
         "name: mine\non_failure: rollback\nmin_healthy: 3\n"
         "gates: {error_rate: 0.01, p99_ratio: 1.5, agreement: 0.9, score_drift: 0.05, confidence: 0.99}\n"
         "steps:\n"
         "  a: {kind: stage, max_time: 1h}\n"
         "  b: {kind: shadow, permille: 250, min_requests: 100, min_time: 90s}\n"
         "  c: {kind: canary, members: 2}\n"
         "  d: {kind: wave, percent: 100}\n",
         &err);
    assert_string_equal(err.message, "");
    const Thorax__V1__RolloutPlan *message = &plan.message;
    assert_string_equal(message->name, "mine");
    assert_int_equal(message->on_failure, THORAX__V1__ROLLOUT_REACTION__REACTION_ROLLBACK);
    assert_int_equal(message->min_healthy, 3);
    assert_true(message->gates->error_rate == .01 && message->gates->p99_ratio == 1.5);
    assert_true(message->gates->agreement == .9 && message->gates->score_drift == .05);
    assert_true(message->gates->confidence == .99);
    assert_int_equal(message->n_steps, 4);
    assert_int_equal(message->steps[0]->kind, THORAX__V1__ROLLOUT_STEP_KIND__STEP_STAGE);
    assert_int_equal(message->steps[0]->max_ms, 3600000);
    assert_int_equal(message->steps[1]->kind, THORAX__V1__ROLLOUT_STEP_KIND__STEP_SHADOW);
    assert_int_equal(message->steps[1]->shadow_permille, 250);
    assert_int_equal(message->steps[1]->min_requests, 100);
    assert_int_equal(message->steps[1]->min_ms, 90000);
    assert_int_equal(message->steps[2]->kind, THORAX__V1__ROLLOUT_STEP_KIND__STEP_CANARY);
    assert_int_equal(message->steps[2]->members, 2);
    assert_int_equal(message->steps[3]->percent, 100);
    plan_fini(&plan);
}

static void mistakes_are_named_with_file_line_and_key(void **state) {
    (void)state;
    refuses("name: x\nsteps:\n  a: {kind: wave, percent: 100}\nspeed: 3\n", "4", "speed");
    refuses("name: x\nsteps:\n  a: {kind: leap}\n", "3", "steps.a.kind");
    refuses("name: x\nsteps:\n  a: {kind: wave, percent: 101}\n", "3", "steps.a.percent");
    refuses("name: x\nsteps:\n  a: {kind: canary}\n  b: {kind: wave, percent: 100}\n", "3", "members");
    refuses("name: x\nsteps:\n  a: {kind: stage, percent: 5}\n  b: {kind: wave, percent: 100}\n", "3",
            "steps.a.percent");
    refuses("name: x\nsteps:\n  a: {kind: wave, percent: 50}\n", "2", "ends with a wave of 100 percent");
    refuses("name: x\ngates: {p99_ratio: 0.5}\nsteps:\n  a: {kind: wave, percent: 100}\n", "2", "p99_ratio");
    refuses("name: a b\nsteps:\n  a: {kind: wave, percent: 100}\n", "1", "name");
    refuses("name: x\ngates: {agreement: 2}\nsteps:\n  a: {kind: wave, percent: 100}\n", "2", "agreement");
}

static void a_plan_without_steps_or_name_is_refused(void **state) {
    (void)state;
    struct plan plan;
    struct error err = {0};
    assert_false(load(&plan, "name: x\n", &err));
    assert_non_null(strstr(err.message, "steps"));
    plan_fini(&plan);
    assert_false(load(&plan, "steps:\n  a: {kind: wave, percent: 100}\n", &err));
    plan_fini(&plan);
}

static void plans_that_come_with_the_program_are_good(void **state) {
    (void)state;
    static const char *const names[] = {"direct", "canary", "cautious"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct plan plan;
        struct error err = {0};
        plan_find(&plan, names[i], PLANS_FOLDER, &err);
        assert_string_equal(err.message, "");
        assert_string_equal(plan.message.name, names[i]);
        assert_null(pool_plan_fault(&plan.message));
        plan_fini(&plan);
    }
}

static void a_name_is_looked_up_and_a_file_is_read(void **state) {
    (void)state;
    struct plan plan;
    struct error err = {0};
    assert_false(plan_find(&plan, "nothing", PLANS_FOLDER, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    plan_fini(&plan);
    assert_false(plan_find(&plan, "..", PLANS_FOLDER, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    plan_fini(&plan);
    assert_true(plan_find(&plan, PLANS_FOLDER "/canary.yaml", NULL, NULL));
    plan_fini(&plan);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(all_of_a_plan_is_read),
        TEST(mistakes_are_named_with_file_line_and_key),
        TEST(a_plan_without_steps_or_name_is_refused),
        TEST(plans_that_come_with_the_program_are_good),
        TEST(a_name_is_looked_up_and_a_file_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
