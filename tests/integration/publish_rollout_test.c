#include "common/base/clock.h"
#include "common/base/log.h"
#include "tests/integration/pool_fixture.h"
#include "trainerd/registry_internal.h"
#include "trainerd/trainctl/control.h"
#include "trainerd/trainctl/rollout.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A publisher's rollouts as people and members meet them: approvals, commands, what each member is told,
 * restarts, a registry that was restored. What the state machine does by itself:
 * tests/unit/trainerd/rollout_test.c. */

#define RUNNING     THORAX__V1__ROLLOUT_STATE__ROLLOUT_RUNNING
#define PAUSED      THORAX__V1__ROLLOUT_STATE__ROLLOUT_PAUSED
#define DONE        THORAX__V1__ROLLOUT_STATE__ROLLOUT_DONE
#define ROLLED_BACK THORAX__V1__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK

enum { FOREVER_MS = 3600 * 1000 };

/** Asks, and returns the answer (pool_free); a refusal is written to err. */
static Thorax__V1__ControlReply *ask(struct pool *pool, Thorax__V1__ControlRequest *request,
                                     Thorax__V1__ControlReply__BodyCase kind, struct error *err) {
    struct control_options options = {.endpoint = pool->control, .timeout_ms = WAIT_MS};
    return control_ask_once(&options, request, kind, err);
}

static bool is_done(struct pool *pool, Thorax__V1__ControlRequest *request, struct error *err) {
    Thorax__V1__ControlReply *reply = ask(pool, request, THORAX__V1__CONTROL_REPLY__BODY_DONE, err);
    pool_free(reply);
    return reply;
}

static char *name_of(const struct digest *digest, char hex[DIGEST_HEX_SIZE]) {
    digest_hex(digest, hex);
    hex[16] = '\0';
    return hex;
}

static bool approve(struct pool *pool, const struct digest *digest) {
    char hex[DIGEST_HEX_SIZE];
    Thorax__V1__ControlRequest request;
    Thorax__V1__ApproveRequest body;
    thorax__v1__control_request__init(&request);
    thorax__v1__approve_request__init(&body);
    body.model = name_of(digest, hex);
    body.by = (char *)"ada";
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_APPROVE;
    request.approve = &body;
    return is_done(pool, &request, NULL);
}

/** One canary that bakes for ever, or all members at once. */
static bool start_with(struct pool *pool, const struct digest *digest, bool canary, uint32_t min_healthy,
                       struct error *err) {
    char hex[DIGEST_HEX_SIZE];
    Thorax__V1__ControlRequest request;
    Thorax__V1__RolloutStart body;
    Thorax__V1__RolloutPlan plan;
    Thorax__V1__RolloutStep steps[2], *pointers[] = {&steps[0], &steps[1]};
    thorax__v1__control_request__init(&request);
    thorax__v1__rollout_start__init(&body);
    thorax__v1__rollout_plan__init(&plan);
    thorax__v1__rollout_step__init(&steps[0]);
    thorax__v1__rollout_step__init(&steps[1]);
    steps[0].kind = THORAX__V1__ROLLOUT_STEP_KIND__STEP_CANARY;
    steps[0].members = 1;
    steps[0].min_ms = FOREVER_MS;
    steps[1].kind = THORAX__V1__ROLLOUT_STEP_KIND__STEP_WAVE;
    steps[1].percent = 100;
    plan.name = (char *)"test";
    plan.steps = canary ? pointers : pointers + 1;
    plan.n_steps = canary ? 2 : 1;
    plan.on_failure = THORAX__V1__ROLLOUT_REACTION__REACTION_ROLLBACK;
    plan.min_healthy = min_healthy;
    body.model = name_of(digest, hex);
    body.plan = &plan;
    body.by = (char *)"ada";
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_ROLLOUT_START;
    request.rollout_start = &body;
    return is_done(pool, &request, err);
}

static bool start(struct pool *pool, const struct digest *digest, bool canary, struct error *err) {
    return start_with(pool, digest, canary, 0, err);
}

static Thorax__V1__ControlReply *ask_status(struct pool *pool) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__RolloutStatusRequest body;
    struct error err = {0};
    thorax__v1__control_request__init(&request);
    thorax__v1__rollout_status_request__init(&body);
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_ROLLOUT_STATUS;
    request.rollout_status = &body;
    Thorax__V1__ControlReply *reply = ask(pool, &request, THORAX__V1__CONTROL_REPLY__BODY_ROLLOUT, &err);
    assert_string_equal(err.message, "");
    return reply;
}

static void wait_state(struct pool *pool, Thorax__V1__RolloutState state) {
    Thorax__V1__RolloutState now = 0;
    for (int64_t deadline_ms = clock_now_ms() + WAIT_MS; now != state; clock_sleep_ms(5)) {
        assert_true(clock_now_ms() < deadline_ms);
        Thorax__V1__ControlReply *reply = ask_status(pool);
        now = reply->rollout->state;
        pool_free(reply);
    }
}

static void wait_members(struct pool *pool, int count) {
    struct publisher_status status = {0};
    for (int64_t deadline_ms = clock_now_ms() + WAIT_MS; status.members < count; clock_sleep_ms(5)) {
        assert_true(clock_now_ms() < deadline_ms);
        assert_true(publisher_status(pool->publisher, &status, NULL));
    }
}

/** Waits for the one of two members that is the canary: which, depends on who was heard of when it was
 * chosen. */
static struct daemon *wait_canary(struct daemon daemons[2], const struct digest *candidate) {
    for (int64_t deadline_ms = clock_now_ms() + WAIT_MS;; clock_sleep_ms(5)) {
        assert_true(clock_now_ms() < deadline_ms);
        for (int i = 0; i < 2; i++) {
            if (runs(&daemons[i], candidate))
                return &daemons[i];
        }
    }
}

/** trainctl with these words; its exit code. */
static int trainctl(struct pool *pool, int (*command)(int, char **), const char *const *words) {
    char *argv[16];
    int argc = 0;
    for (; words[argc]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc];
    argv[argc++] = (char *)"--at";
    argv[argc++] = pool->control;
    argv[argc] = NULL;
    return command(argc, argv);
}
#define ROLLOUT(pool, ...)                                                                                   \
    trainctl(pool, command_rollout, (const char *const[]){"rollout", __VA_ARGS__, NULL})
#define ROLLBACK(pool, ...)                                                                                  \
    trainctl(pool, command_rollback, (const char *const[]){"rollback", __VA_ARGS__, NULL})

/** Two members that run a first model; *second is published and approved. */
static struct digest two_models(struct pool *pool, struct daemon daemons[2], struct digest *second) {
    start_publisher(pool, PUBLISHER_ACTIVATE_MANUAL);
    run_all(pool, daemons, 2);
    struct digest first = publish(pool, 1, SMALL_BYTES);
    assert_true(approve(pool, &first));
    assert_true(start(pool, &first, false, NULL));
    wait_all(daemons, 2, &first);
    wait_stable(pool, &first);
    *second = publish(pool, 2, SMALL_BYTES);
    assert_true(approve(pool, second));
    return first;
}

static void a_model_that_nobody_approved_is_not_started(void **state) {
    struct pool *pool = *state;
    struct error err = {0};
    start_publisher(pool, PUBLISHER_ACTIVATE_MANUAL);
    struct digest digest = publish(pool, 1, SMALL_BYTES);
    assert_false(start(pool, &digest, false, &err));
    assert_non_null(strstr(err.message, "chest:1 is not approved"));
    assert_int_equal(ROLLBACK(pool, "chest:1", "--by", "ada"), 1);
    assert_true(approve(pool, &digest));
    assert_true(start(pool, &digest, false, &err));
}

static void members_are_told_different_models(void **state) {
    struct pool *pool = *state;
    struct daemon daemons[2];
    struct digest second, first = two_models(pool, daemons, &second);
    assert_true(start(pool, &second, true, NULL));
    struct daemon *canary = wait_canary(daemons, &second), *other = &daemons[canary == &daemons[0]];
    clock_sleep_ms(5 * HEARTBEAT_MS);
    assert_true(runs(other, &first));
    Thorax__V1__ControlReply *reply = ask_status(pool);
    assert_int_equal(reply->rollout->assigned, 1);
    assert_int_equal(reply->rollout->members, 2);
    assert_memory_equal(reply->rollout->incumbent_digest.data, first.bytes, 32);
    assert_string_equal(reply->rollout->by, "ada");
    pool_free(reply);
    stop_all(daemons, 2);
}

static void one_rollout_at_a_time(void **state) {
    struct pool *pool = *state;
    struct daemon daemons[2];
    struct error err = {0};
    struct digest second, first = two_models(pool, daemons, &second);
    assert_false(start(pool, &first, true, &err));
    assert_non_null(strstr(err.message, "stable already"));
    assert_true(start(pool, &second, true, NULL));
    struct digest third = publish(pool, 3, SMALL_BYTES); /* is staged, and waits */
    assert_true(approve(pool, &third));
    assert_false(start(pool, &third, false, &err));
    assert_non_null(strstr(err.message, "rollout 2 is under way"));
    assert_int_equal(ROLLOUT(pool, "abort", "--by", "ada"), 0);
    wait_state(pool, ROLLED_BACK);
    assert_true(start(pool, &third, false, NULL));
    wait_all(daemons, 2, &third);
    stop_all(daemons, 2);
}

static void in_auto_a_newer_model_supersedes(void **state) {
    struct pool *pool = *state;
    struct daemon daemon;
    start_publisher(pool, PUBLISHER_ACTIVATE_AUTO);
    publish(pool, 1, SMALL_BYTES); /* nobody is there: its rollout waits */
    struct digest second = publish(pool, 2, SMALL_BYTES);
    Thorax__V1__ControlReply *reply = ask_status(pool);
    assert_int_equal(reply->rollout->id, 2);
    assert_memory_equal(reply->rollout->model->digest.data, second.bytes, 32);
    assert_string_equal(reply->rollout->waiting_for, "members: there are none");
    pool_free(reply);
    daemon_init(&daemon, pool, 0);
    daemon_run(&daemon);
    wait_stable(pool, &second);
    daemon_stop(&daemon);
    assert_int_equal(atomic_load(&daemon.activations), 1);
}

static void a_pause_an_abort_and_a_rollback_reach_the_members(void **state) {
    struct pool *pool = *state;
    struct daemon daemons[2];
    struct digest second, first = two_models(pool, daemons, &second);
    assert_true(start(pool, &second, true, NULL));
    struct daemon *canary = wait_canary(daemons, &second), *other = &daemons[canary == &daemons[0]];
    assert_int_equal(ROLLOUT(pool, "pause", "--by", "ada", "--reason", "lunch"), 0);
    assert_int_equal(ROLLOUT(pool, "pause", "--by", "ada"), 1);
    clock_sleep_ms(5 * HEARTBEAT_MS);
    assert_true(runs(canary, &second) && runs(other, &first));
    assert_int_equal(ROLLOUT(pool, "resume", "--by", "ada"), 0);
    assert_int_equal(ROLLOUT(pool, "status"), 0);
    assert_int_equal(ROLLOUT(pool, "status", "--json"), 0);
    assert_int_equal(ROLLBACK(pool, "--by", "ada"), 0); /* of a rollout: its incumbent */
    wait_all(daemons, 2, &first);
    wait_state(pool, ROLLED_BACK);
    assert_true(start(pool, &second, false, NULL));
    wait_stable(pool, &second);
    assert_int_equal(ROLLBACK(pool, "--by", "ada", "--reason", "worse"), 0); /* the one before */
    wait_all(daemons, 2, &first);
    assert_int_equal(ROLLBACK(pool, "chest:2", "--by", "ada"), 0); /* any that is in the store */
    wait_all(daemons, 2, &second);
    assert_int_equal(ROLLBACK(pool, "chest:9", "--by", "ada"), 1);
    assert_int_equal(ROLLOUT(pool, "abort", "--by", "ada"), 1);
    stop_all(daemons, 2);
}

static void a_restarted_publisher_tells_each_member_the_same(void **state) {
    struct pool *pool = *state;
    struct daemon daemons[2];
    struct digest second, first = two_models(pool, daemons, &second);
    assert_true(start(pool, &second, true, NULL));
    struct daemon *canary = wait_canary(daemons, &second), *other = &daemons[canary == &daemons[0]];
    publisher_destroy(pool->publisher);
    start_publisher(pool, PUBLISHER_ACTIVATE_MANUAL);
    clock_sleep_ms(15 * HEARTBEAT_MS);
    Thorax__V1__ControlReply *reply = ask_status(pool);
    assert_int_equal(reply->rollout->state, RUNNING);
    assert_int_equal(reply->rollout->id, 2);
    assert_int_equal(reply->rollout->assigned, 1);
    pool_free(reply);
    assert_true(runs(canary, &second) && runs(other, &first));
    assert_int_equal(atomic_load(&canary->activations), 2);
    assert_int_equal(ROLLOUT(pool, "abort", "--by", "ada"), 0);
    wait_all(daemons, 2, &first);
    stop_all(daemons, 2);
}

/** A rollout that wants two members, begun right after a restart of the publisher, when none is there; its model. */
static struct digest start_in_an_empty_pool(struct pool *pool, struct daemon daemons[2]) {
    struct digest second;
    two_models(pool, daemons, &second);
    stop_all(daemons, 2);
    publisher_destroy(pool->publisher);
    start_publisher(pool, PUBLISHER_ACTIVATE_MANUAL);
    assert_true(start_with(pool, &second, false, 2, NULL));
    return second;
}

static void a_rollout_begun_right_after_a_restart_waits_for_the_members(void **state) {
    struct pool *pool = *state;
    struct daemon daemons[2];
    struct digest second = start_in_an_empty_pool(pool, daemons);
    clock_sleep_ms(8 * HEARTBEAT_MS);
    Thorax__V1__ControlReply *reply = ask_status(pool);
    assert_string_equal(reply->rollout->waiting_for, "members to say that they are there");
    pool_free(reply);
    run_all(pool, daemons, 2);
    wait_all(daemons, 2, &second);
    wait_stable(pool, &second);
    stop_all(daemons, 2);
}

static void a_pool_that_stays_empty_after_a_restart_pauses_the_rollout(void **state) {
    struct pool *pool = *state;
    struct daemon daemons[2];
    start_in_an_empty_pool(pool, daemons);
    wait_state(pool, PAUSED);
    Thorax__V1__ControlReply *reply = ask_status(pool);
    assert_string_equal(reply->rollout->reason, "0 members are healthy (0 alive), and 2 are wanted");
    pool_free(reply);
}

static void a_member_that_cannot_run_it_sends_all_back(void **state) {
    struct pool *pool = *state;
    struct daemon daemons[2];
    struct digest second, first = two_models(pool, daemons, &second);
    atomic_store(&daemons[0].fail, true);
    atomic_store(&daemons[1].fail, true);
    assert_true(start(pool, &second, true, NULL));
    wait_state(pool, ROLLED_BACK);
    Thorax__V1__ControlReply *reply = ask_status(pool);
    assert_non_null(strstr(reply->rollout->reason, " cannot run it: golden image 2 differs"));
    pool_free(reply);
    assert_true(runs(&daemons[0], &first) && runs(&daemons[1], &first));
    stop_all(daemons, 2);
}

/* Another process holds the registry: nothing can be written. */
static void what_cannot_be_written_has_not_happened(void **state) {
    struct pool *pool = *state;
    struct daemon daemons[2];
    char store[128], path[PATH_MAX];
    struct digest second, first = two_models(pool, daemons, &second);
    assert_true(start(pool, &second, true, NULL));
    struct daemon *canary = wait_canary(daemons, &second), *other = &daemons[canary == &daemons[0]];
    snprintf(store, sizeof store, "%s/publisher", pool->folder);
    assert_true(registry_path(store, path, sizeof path, NULL));
    struct sql_spec spec = registry_sql_spec(path);
    struct sql *holder = sql_open(&spec, NULL);
    assert_non_null(holder);
    assert_true(sql_begin(holder, NULL));
    assert_int_equal(ROLLOUT(pool, "abort", "--by", "ada", "--timeout-ms", "60000"), 1);
    clock_sleep_ms(5 * HEARTBEAT_MS);
    assert_true(runs(canary, &second) && runs(other, &first));
    sql_end(holder, false, NULL);
    sql_close(holder);
    wait_members(pool, 2); /* the publisher stood still as well: it hears them again */
    Thorax__V1__ControlReply *reply = ask_status(pool);
    assert_int_equal(reply->rollout->state, RUNNING);
    assert_int_equal(reply->rollout->assigned, 1);
    pool_free(reply);
    assert_int_equal(ROLLOUT(pool, "abort", "--by", "ada"), 0);
    wait_all(daemons, 2, &first);
    stop_all(daemons, 2);
}

static void a_restored_registry_activates_nothing_until_somebody_says_so(void **state) {
    struct pool *pool = *state;
    struct daemon daemons[2];
    struct error err = {0};
    char store[128];
    struct digest second;
    two_models(pool, daemons, &second);
    publisher_destroy(pool->publisher);
    pool->publisher = NULL;
    snprintf(store, sizeof store, "%s/publisher", pool->folder);
    assert_true(registry_mark_restored(store, "restored from a backup", NULL));
    start_publisher(pool, PUBLISHER_ACTIVATE_MANUAL);
    assert_false(start(pool, &second, false, &err));
    assert_non_null(strstr(err.message, "restored from a backup"));
    assert_int_equal(ROLLBACK(pool, "--by", "ada"), 1);
    assert_int_equal(ROLLOUT(pool, "resume", "--by", "ada"), 0);
    assert_true(start(pool, &second, false, NULL));
    wait_all(daemons, 2, &second);
    stop_all(daemons, 2);
}

int main(void) {
    log_init("publish_rollout_test", LOG_ERROR, LOG_TEXT);
    if (!digest_start(NULL))
        return 1;
#define TEST(name) cmocka_unit_test_setup_teardown(name, pool_setup, pool_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_model_that_nobody_approved_is_not_started),
        TEST(members_are_told_different_models),
        TEST(one_rollout_at_a_time),
        TEST(in_auto_a_newer_model_supersedes),
        TEST(a_pause_an_abort_and_a_rollback_reach_the_members),
        TEST(a_restarted_publisher_tells_each_member_the_same),
        TEST(a_rollout_begun_right_after_a_restart_waits_for_the_members),
        TEST(a_pool_that_stays_empty_after_a_restart_pauses_the_rollout),
        TEST(a_member_that_cannot_run_it_sends_all_back),
        TEST(what_cannot_be_written_has_not_happened),
        TEST(a_restored_registry_activates_nothing_until_somebody_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
