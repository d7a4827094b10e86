#include "tests/unit/trainerd/rollout_fixture.h"

#define RUNNING      THORAX__V1__ROLLOUT_STATE__ROLLOUT_RUNNING
#define PAUSED       THORAX__V1__ROLLOUT_STATE__ROLLOUT_PAUSED
#define DONE         THORAX__V1__ROLLOUT_STATE__ROLLOUT_DONE
#define ROLLING_BACK THORAX__V1__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK
#define ROLLED_BACK  THORAX__V1__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK

/* Steps of sim_plan_full. */
enum { STAGE, SHADOW, CANARY, HALF, ALL, MEMBERS = 8 };

/** Eight members that run the incumbent and answer ten pictures a heartbeat; the full plan. */
static struct sim *start(void **state, struct sim_plan *plan) {
    struct sim *sim = *state;
    sim->has_stable = true;
    sim->stable = INCUMBENT;
    sim->answers = 10;
    sim_join(sim, MEMBERS);
    sim_start(sim, &plan->plan);
    return sim;
}

static struct sim *start_full(void **state) {
    struct sim_plan plan;
    sim_plan_full(&plan);
    return start(state, &plan);
}

static struct sim *start_at(void **state, uint32_t step) {
    struct sim *sim = start_full(state);
    sim_until_step(sim, step);
    return sim;
}

static void a_plan_goes_through_its_steps_and_ends_with_the_candidate_stable(void **state) {
    struct sim *sim = start_full(state);
    static const int told[] = {0, 0, 2, 4, 8};
    for (uint32_t step = STAGE; step <= ALL; step++) {
        sim_until_step(sim, step);
        assert_int_equal(sim_count_told(sim), told[step]);
    }
    sim_until(sim, DONE);
    assert_true(sim->changes & ROLLOUT_PROMOTE && digest_equal(&sim->stable, &CANDIDATE));
    assert_true(sim->rollout.ended_ms > sim->rollout.started_ms);
    sim_beats(sim, 3);
    for (int i = 0; i < MEMBERS; i++)
        assert_true(digest_equal(&sim->all[i].active, &CANDIDATE));
}

static void canaries_are_the_first_by_name(void **state) {
    struct sim *sim = start_at(state, CANARY);
    for (int i = 0; i < MEMBERS; i++)
        assert_int_equal(sim_told(sim, &sim->all[i]), i < 2);
}

static void the_stage_waits_for_a_member_that_has_not_fetched_it(void **state) {
    struct sim_plan plan;
    sim_plan_full(&plan);
    struct sim *sim = *state;
    sim->all[3].cannot_fetch = true;
    start(state, &plan);
    sim_beats(sim, 50);
    assert_int_equal(sim->rollout.step, STAGE);
    assert_non_null(strstr(sim->rollout.waiting_for, "1 of 8 members have not fetched it"));
    sim->all[3].cannot_fetch = false;
    sim_until_step(sim, SHADOW);
}

static void one_member_loads_it_before_the_stage_ends(void **state) {
    struct sim *sim = *state;
    sim->all[0].cannot_load = true;
    start_full(state);
    sim_until(sim, ROLLED_BACK);
    assert_int_equal(sim->rollout.step, STAGE);
    assert_string_equal(sim->rollout.reason, "member m00 cannot run it: golden image 1 differs");
    assert_false(sim->changes & ROLLOUT_PROMOTE);
}

static void members_load_the_shadow_one_after_the_other(void **state) {
    struct sim *sim = start_full(state);
    for (int i = 0, before = 0; i < 200 && sim->rollout.step < CANARY; i++) {
        int loaded = 0, told = 0;
        sim_beat(sim);
        for (int k = 0; k < MEMBERS; k++) {
            loaded += sim->all[k].has_shadow;
            told += rollout_shadow(&sim->rollout, sim->all[k].name) > 0;
        }
        if (sim->rollout.step < CANARY)
            assert_true(told <= before + 1);
        before = loaded;
    }
    assert_int_equal(sim->rollout.step, CANARY);
    assert_int_equal(rollout_shadow(&sim->rollout, "m00"), 0);
}

static void shadow_waits_for_so_many_comparisons(void **state) {
    struct sim *sim = start_full(state);
    sim->answers = 0;
    sim_until_step(sim, SHADOW);
    sim_beats(sim, 100);
    assert_int_equal(sim->rollout.step, SHADOW);
    assert_string_equal(sim->rollout.waiting_for, "20 more pictures");
    sim->answers = 1;
    sim_beats(sim, 2); /* 8 members: 16 */
    assert_int_equal(sim->rollout.step, SHADOW);
    sim_until_step(sim, CANARY);
}

static void a_step_bakes_for_its_time(void **state) {
    struct sim_plan plan;
    sim_plan_full(&plan);
    plan.steps[CANARY].min_ms = 5000;
    struct sim *sim = start(state, &plan);
    sim_until_step(sim, CANARY);
    int64_t begin_ms = sim->now_ms;
    sim_until_step(sim, HALF);
    assert_in_range(sim->now_ms - begin_ms, 5000, 5400);
}

static void baking_stands_still_while_a_canary_does_not_run_it(void **state) {
    struct sim_plan plan;
    sim_plan_full(&plan);
    plan.steps[CANARY].min_ms = 5000;
    struct sim *sim = start(state, &plan);
    sim_until_step(sim, CANARY);
    sim_beats(sim, 20);
    sim->all[0].there = false;
    sim->all[2].deaf = true; /* the one that takes its place */
    sim_beats(sim, 10);
    int64_t ready_ms = sim->rollout.ready_ms;
    sim_beats(sim, 100);
    assert_int_equal(sim->rollout.ready_ms, ready_ms);
    assert_string_equal(sim->rollout.waiting_for, "1 of 2 members to run it");
    sim->all[2].deaf = false;
    sim_until_step(sim, HALF);
}

static void a_pause_keeps_targets_and_resume_goes_on(void **state) {
    struct sim *sim = start_at(state, CANARY);
    sim_command(sim, THORAX__V1__ROLLOUT_ACTION__ACTION_PAUSE);
    assert_string_equal(sim->rollout.reason, "paused by ada: a test");
    sim_beats(sim, 100);
    assert_int_equal(sim->rollout.state, PAUSED);
    assert_int_equal(sim->rollout.step, CANARY);
    assert_int_equal(sim_count_told(sim), 2);
    sim_command(sim, THORAX__V1__ROLLOUT_ACTION__ACTION_RESUME);
    sim_until(sim, DONE);
}

static void an_abort_goes_back_at_once(void **state) {
    struct sim *sim = start_at(state, HALF);
    assert_int_equal(sim_count_told(sim), 4);
    sim->changes = 0;
    sim_command(sim, THORAX__V1__ROLLOUT_ACTION__ACTION_ABORT);
    assert_int_equal(sim->rollout.state, ROLLING_BACK);
    assert_int_equal(sim_count_told(sim), 0);
    assert_true(sim->changes & ROLLOUT_TARGETS && sim->changes & ROLLOUT_SAVE);
    sim_until(sim, ROLLED_BACK);
    assert_true(digest_equal(&sim->stable, &INCUMBENT));
}

static void commands_that_make_no_sense_are_refused(void **state) {
    struct sim *sim = start_at(state, CANARY);
    Thorax__V1__RolloutCommand command;
    unsigned change;
    struct error err = {0};
    struct rollout_view view = sim_view(sim);
    thorax__v1__rollout_command__init(&command);
    command.by = (char *)"ada";
    command.action = THORAX__V1__ROLLOUT_ACTION__ACTION_RESUME;
    assert_false(rollout_command(&sim->rollout, &command, &view, &change, &err));
    assert_int_equal(err.code, ERROR_STATE);
    sim_until(sim, DONE);
    command.action = THORAX__V1__ROLLOUT_ACTION__ACTION_ABORT;
    assert_false(rollout_command(&sim->rollout, &command, &view, &change, &err));
    assert_int_equal(sim->rollout.state, DONE);
}

static void a_member_that_cannot_run_it_rolls_all_back_with_its_reason(void **state) {
    struct sim *sim = *state;
    sim->all[1].cannot_run = true;
    start_full(state);
    sim_until(sim, ROLLED_BACK);
    assert_int_equal(sim->rollout.step, CANARY);
    assert_string_equal(sim->rollout.reason, "member m01 cannot run it: golden image 2 differs");
}

static void a_plan_may_pause_on_failure_instead(void **state) {
    struct sim_plan plan;
    sim_plan_full(&plan);
    plan.plan.on_failure = THORAX__V1__ROLLOUT_REACTION__REACTION_PAUSE;
    struct sim *sim = *state;
    sim->all[1].cannot_run = true;
    start(state, &plan);
    sim_until(sim, PAUSED);
    assert_int_equal(sim_count_told(sim), 2);
    assert_non_null(strstr(sim->rollout.reason, "m01"));
}

static void a_canary_that_dies_is_replaced_and_not_told_when_it_is_back(void **state) {
    struct sim_plan plan;
    sim_plan_full(&plan);
    plan.steps[CANARY].min_ms = 100000;
    struct sim *sim = start(state, &plan);
    sim_until_step(sim, CANARY);
    sim_beats(sim, 2);
    sim->all[0].there = false;
    sim_beats(sim, 10);
    assert_false(sim_told(sim, &sim->all[0]));
    assert_true(sim_told(sim, &sim->all[1]) && sim_told(sim, &sim->all[2]));
    sim_restart_member(&sim->all[0]);
    sim_beats(sim, 5);
    assert_int_equal(sim_count_told(sim), 2);
    assert_true(digest_equal(&sim->all[0].active, &INCUMBENT));
}

static void fewer_members_than_canaries_are_all_canaries(void **state) {
    struct sim_plan plan;
    sim_plan_full(&plan);
    plan.steps[CANARY].members = 100;
    struct sim *sim = start(state, &plan);
    sim_until_step(sim, CANARY);
    sim_beat(sim);
    assert_int_equal(sim_count_told(sim), MEMBERS);
    sim_until(sim, DONE);
}

static void a_pool_without_members_holds_and_goes_on_when_they_come(void **state) {
    struct sim_plan plan;
    struct sim *sim = *state;
    sim_plan_full(&plan);
    sim->has_stable = true;
    sim->stable = INCUMBENT;
    sim->answers = 10;
    sim_start(sim, &plan.plan);
    sim_beats(sim, 100);
    assert_int_equal(sim->rollout.state, RUNNING);
    assert_int_equal(sim->rollout.step, STAGE);
    assert_string_equal(sim->rollout.waiting_for, "members: there are none");
    sim_join(sim, 3);
    sim_until(sim, DONE);
}

static void the_first_model_of_a_pool_needs_no_incumbent(void **state) {
    struct sim_plan plan;
    struct sim *sim = *state;
    sim_plan_full(&plan);
    plan.gates.p99_ratio = 1.5;
    plan.gates.agreement = .9;
    sim_join(sim, 3);
    sim_start(sim, &plan.plan);
    sim_until(sim, DONE);
    assert_true(digest_equal(&sim->stable, &CANDIDATE));
}

static void aborting_the_first_model_ends_without_anything_to_go_back_to(void **state) {
    struct sim_plan plan;
    struct sim *sim = *state;
    struct digest target;
    sim_plan_full(&plan);
    plan.steps[CANARY].min_ms = 100000;
    sim_join(sim, 3);
    sim_start(sim, &plan.plan);
    sim_until_step(sim, CANARY);
    sim_beats(sim, 3);
    sim_command(sim, THORAX__V1__ROLLOUT_ACTION__ACTION_ABORT);
    assert_false(rollout_target(&sim->rollout, "m00", &target));
    sim_until(sim, ROLLED_BACK);
}

static void late_members_get_what_the_step_says(void **state) {
    struct sim_plan plan;
    sim_plan_full(&plan);
    plan.steps[CANARY].min_ms = 3000;
    plan.steps[ALL].min_ms = 3000;
    struct sim *sim = start(state, &plan);
    sim_until_step(sim, CANARY);
    sim_beats(sim, 3);
    sim_join(sim, 2);
    sim_beats(sim, 3);
    assert_false(sim_told(sim, &sim->all[8]) || sim_told(sim, &sim->all[9]));
    sim_until_step(sim, ALL);
    sim_join(sim, 1);
    assert_true(sim_told(sim, &sim->all[10]));
    sim_until(sim, DONE);
}

static void too_few_healthy_members_pause_it(void **state) {
    struct sim_plan plan;
    sim_plan_full(&plan);
    plan.plan.min_healthy = 7;
    plan.steps[CANARY].min_ms = 100000;
    struct sim *sim = start(state, &plan);
    sim_until_step(sim, CANARY);
    sim->all[6].there = false;
    sim_beats(sim, 10);
    assert_int_equal(sim->rollout.state, RUNNING);
    sim->all[7].there = false;
    sim_beats(sim, 10);
    assert_int_equal(sim->rollout.state, PAUSED);
    assert_string_equal(sim->rollout.reason, "6 members are healthy (6 alive), and 7 are wanted");
}

static void a_step_without_a_verdict_pauses_in_time(void **state) {
    struct sim_plan plan;
    sim_plan_full(&plan);
    plan.steps[SHADOW].max_ms = 4000;
    struct sim *sim = start(state, &plan);
    sim->answers = 0;
    sim_until(sim, PAUSED);
    assert_int_equal(sim->rollout.step, SHADOW);
    assert_string_equal(sim->rollout.reason, "no verdict within 4000 ms; it waited for 20 more pictures");
    sim_command(sim, THORAX__V1__ROLLOUT_ACTION__ACTION_RESUME); /* the time begins anew */
    sim_beats(sim, 20);
    assert_int_equal(sim->rollout.state, RUNNING);
}

static void older_members_count_as_alive_and_activate(void **state) {
    struct sim_plan plan;
    struct sim *sim = *state;
    sim_plan_init(&plan);
    sim_plan_add(&plan, THORAX__V1__ROLLOUT_STEP_KIND__STEP_STAGE);
    sim_plan_add(&plan, THORAX__V1__ROLLOUT_STEP_KIND__STEP_CANARY)->members = 1;
    sim_plan_add(&plan, THORAX__V1__ROLLOUT_STEP_KIND__STEP_WAVE)->percent = 100;
    for (int i = 0; i < MEMBERS; i++)
        sim->all[i].older = true;
    start(state, &plan);
    sim_until(sim, DONE);
}

static void a_step_says_that_older_members_do_not_count(void **state) {
    struct sim_plan plan;
    struct sim *sim = *state;
    sim_plan_init(&plan);
    Thorax__V1__RolloutStep *canary = sim_plan_add(&plan, THORAX__V1__ROLLOUT_STEP_KIND__STEP_CANARY);
    canary->members = 2;
    canary->min_requests = 10;
    sim_plan_add(&plan, THORAX__V1__ROLLOUT_STEP_KIND__STEP_WAVE)->percent = 100;
    for (int i = 0; i < MEMBERS; i++)
        sim->all[i].older = true;
    start(state, &plan);
    sim_beats(sim, 20);
    assert_int_equal(sim->rollout.step, 0);
    assert_string_equal(sim->rollout.waiting_for,
                        "10 more pictures; 2 of its members run an older program that does not count them");
}

static void members_that_count_are_canaries_before_older_ones(void **state) {
    struct sim *sim = *state;
    sim->all[0].older = true;
    start_at(state, CANARY);
    assert_false(sim_told(sim, &sim->all[0]));
    assert_true(sim_told(sim, &sim->all[1]) && sim_told(sim, &sim->all[2]));
}

static void a_shadow_step_says_that_older_members_cannot_compare(void **state) {
    struct sim *sim = *state;
    for (int i = 0; i < MEMBERS; i++)
        sim->all[i].older = true;
    start_full(state);
    sim_until_step(sim, SHADOW);
    sim_beats(sim, 20);
    assert_int_equal(sim->rollout.step, SHADOW);
    assert_string_equal(sim->rollout.waiting_for, "a member that can compare (8 run an older program)");
}

/* ---- the publisher's death ---- */

static void a_publisher_restarted_in_any_step_goes_on_to_the_same_end(void **state) {
    for (uint32_t step = STAGE; step <= ALL; step++) {
        struct sim *sim = start_at(state, step);
        int told = sim_count_told(sim);
        sim_restart_publisher(sim);
        assert_int_equal(sim->rollout.step, step);
        assert_int_equal(sim_count_told(sim), told);
        sim->unsettled = true;
        sim_beats(sim, 5);
        assert_int_equal(sim->rollout.step, step);
        sim->unsettled = false;
        sim_until(sim, DONE);
        assert_true(digest_equal(&sim->stable, &CANDIDATE));
        sim_teardown(state);
        sim_setup(state);
    }
}

static void a_publisher_restarted_while_rolling_back_goes_on_back(void **state) {
    struct sim *sim = start_at(state, HALF);
    sim_beats(sim, 1);
    sim_command(sim, THORAX__V1__ROLLOUT_ACTION__ACTION_ABORT);
    sim_restart_publisher(sim);
    assert_int_equal(sim->rollout.state, ROLLING_BACK);
    assert_int_equal(sim_count_told(sim), 0);
    sim_until(sim, ROLLED_BACK);
    assert_string_equal(sim->rollout.reason, "aborted by ada: a test");
}

static void time_that_has_baked_and_counts_survive_a_restart(void **state) {
    struct sim_plan plan;
    sim_plan_full(&plan);
    plan.steps[CANARY].min_ms = 20000;
    struct sim *sim = start(state, &plan);
    sim_until_step(sim, CANARY);
    sim_beats(sim, 100);
    uint64_t answered = sim->rollout.totals.answered;
    sim_restart_publisher(sim);
    assert_in_range(sim->rollout.ready_ms, 7000, 10000); /* at most two seconds are lost */
    sim_beats(sim, 5);                                   /* members counted on while it was gone */
    assert_int_equal(sim->rollout.totals.answered, answered + 5 * 2 * sim->answers);
}

static void a_damaged_record_is_refused_and_changes_nothing(void **state) {
    struct sim *sim = start_at(state, CANARY);
    struct error err = {0};
    for (size_t size = 0; size < sim->saved_size; size += 1 + sim->saved_size / 50)
        rollout_load(&sim->rollout, sim->saved, size, NULL); /* whatever it says, it must not crash */
    rollout_load(&sim->rollout, sim->saved, sim->saved_size, NULL);
    assert_false(rollout_load(&sim->rollout, "nonsense", 8, &err));
    assert_int_equal(err.code, ERROR_FORMAT);
    assert_int_equal(sim->rollout.step, CANARY);
    assert_int_equal(sim->rollout.id, 7);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, sim_setup, sim_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_plan_goes_through_its_steps_and_ends_with_the_candidate_stable),
        TEST(canaries_are_the_first_by_name),
        TEST(the_stage_waits_for_a_member_that_has_not_fetched_it),
        TEST(one_member_loads_it_before_the_stage_ends),
        TEST(members_load_the_shadow_one_after_the_other),
        TEST(shadow_waits_for_so_many_comparisons),
        TEST(a_step_bakes_for_its_time),
        TEST(baking_stands_still_while_a_canary_does_not_run_it),
        TEST(a_pause_keeps_targets_and_resume_goes_on),
        TEST(an_abort_goes_back_at_once),
        TEST(commands_that_make_no_sense_are_refused),
        TEST(a_member_that_cannot_run_it_rolls_all_back_with_its_reason),
        TEST(a_plan_may_pause_on_failure_instead),
        TEST(a_canary_that_dies_is_replaced_and_not_told_when_it_is_back),
        TEST(fewer_members_than_canaries_are_all_canaries),
        TEST(a_pool_without_members_holds_and_goes_on_when_they_come),
        TEST(the_first_model_of_a_pool_needs_no_incumbent),
        TEST(aborting_the_first_model_ends_without_anything_to_go_back_to),
        TEST(late_members_get_what_the_step_says),
        TEST(too_few_healthy_members_pause_it),
        TEST(a_step_without_a_verdict_pauses_in_time),
        TEST(older_members_count_as_alive_and_activate),
        TEST(a_step_says_that_older_members_do_not_count),
        TEST(members_that_count_are_canaries_before_older_ones),
        TEST(a_shadow_step_says_that_older_members_cannot_compare),
        TEST(a_publisher_restarted_in_any_step_goes_on_to_the_same_end),
        TEST(a_publisher_restarted_while_rolling_back_goes_on_back),
        TEST(time_that_has_baked_and_counts_survive_a_restart),
        TEST(a_damaged_record_is_refused_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
