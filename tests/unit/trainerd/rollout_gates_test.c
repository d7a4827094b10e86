#include "tests/unit/trainerd/rollout_fixture.h"

#include <math.h>

/* Each gate passes, fails and cannot say, on the counts of simulated members; and which counts belong to a
 * step. The bounds themselves: tests/unit/metrics/interval_test.c. */

#define PASSED       THORAX__V1__GATE_VERDICT__GATE_PASSED
#define FAILED       THORAX__V1__GATE_VERDICT__GATE_FAILED
#define INCONCLUSIVE THORAX__V1__GATE_VERDICT__GATE_INCONCLUSIVE

enum { STAGE, SHADOW, CANARY, HALF, ALL, MEMBERS = 4 };

/** Four members at `step`, which lasts; nobody answers anything unless the test says so. */
static struct sim *start_at(void **state, uint32_t step, struct sim_plan *plan) {
    struct sim *sim = *state;
    plan->steps[step].min_ms = 1000000;
    sim->has_stable = true;
    sim->stable = INCUMBENT;
    sim->answers = 10;
    sim_join(sim, MEMBERS);
    sim_start(sim, &plan->plan);
    Thorax__V1__RolloutGates gates = *sim->rollout.plan->gates;
    thorax__v1__rollout_gates__init(sim->rollout.plan->gates); /* on the way there nothing is judged */
    sim_until_step(sim, step);
    sim->answers = 0;
    sim_beats(sim, 20); /* everybody does what the step wants */
    *sim->rollout.plan->gates = gates;
    struct rollout_view view = sim_view(sim);
    Thorax__V1__RolloutCommand command;
    unsigned change;
    thorax__v1__rollout_command__init(&command);
    command.by = (char *)"test";
    command.action = THORAX__V1__ROLLOUT_ACTION__ACTION_PAUSE;
    assert_true(rollout_command(&sim->rollout, &command, &view, &change, NULL));
    command.action = THORAX__V1__ROLLOUT_ACTION__ACTION_RESUME; /* the counts begin anew */
    assert_true(rollout_command(&sim->rollout, &command, &view, &change, NULL));
    return sim;
}

static void plan_with(struct sim_plan *plan, double error_rate, double p99_ratio, double agreement,
                      double drift) {
    sim_plan_full(plan);
    plan->gates.error_rate = error_rate;
    plan->gates.p99_ratio = p99_ratio;
    plan->gates.agreement = agreement;
    plan->gates.score_drift = drift;
}

static struct sim_counts *counts(struct sim *sim, int member, int model) {
    return &sim->all[member].counts[model];
}

/** The candidate's counts at the first canary. */
static void served(struct sim *sim, uint64_t answered, uint64_t failed) {
    counts(sim, 0, OF_CANDIDATE)->answered += answered;
    counts(sim, 0, OF_CANDIDATE)->fast += answered;
    counts(sim, 0, OF_CANDIDATE)->failed += failed;
    sim_beat(sim);
}

static void error_rate_passes_when_it_is_surely_below(void **state) {
    struct sim_plan plan;
    plan_with(&plan, .01, 0, 0, 0);
    struct sim *sim = start_at(state, CANARY, &plan);
    served(sim, 10000, 20);
    assert_int_equal(sim_gate(sim, "error_rate")->verdict, PASSED);
    assert_int_equal(sim_gate(sim, "error_rate")->samples, 10020);
}

static void error_rate_fails_when_it_is_surely_above(void **state) {
    struct sim_plan plan;
    plan_with(&plan, .01, 0, 0, 0);
    struct sim *sim = start_at(state, CANARY, &plan);
    served(sim, 900, 100);
    assert_int_equal(sim_gate(sim, "error_rate")->verdict, FAILED);
    sim_until(sim, THORAX__V1__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK);
    assert_non_null(strstr(sim->rollout.reason, "gate error_rate failed: 0.1 ("));
    assert_non_null(strstr(sim->rollout.reason, "1000 samples), limit 0.01"));
}

static void error_rate_of_a_few_says_nothing_and_holds(void **state) {
    struct sim_plan plan;
    plan_with(&plan, .01, 0, 0, 0);
    plan.steps[CANARY].min_ms = 0;
    struct sim *sim = start_at(state, CANARY, &plan);
    sim->rollout.plan->steps[CANARY]->min_ms = 0;
    served(sim, 50, 0); /* Wilson: up to 7 % */
    assert_int_equal(sim_gate(sim, "error_rate")->verdict, INCONCLUSIVE);
    sim_beats(sim, 100);
    assert_int_equal(sim->rollout.step, CANARY);
    assert_non_null(strstr(sim->rollout.waiting_for, "gate error_rate is inconclusive: 0 (0 to 0.07135"));
    served(sim, 2000, 0);
    sim_until_step(sim, HALF);
}

static void shadows_that_fail_count_as_errors(void **state) {
    struct sim_plan plan;
    plan_with(&plan, .01, 0, 0, 0);
    struct sim *sim = start_at(state, SHADOW, &plan);
    counts(sim, 0, OF_CANDIDATE)->compared += 100;
    counts(sim, 0, OF_CANDIDATE)->shadow_failed += 50;
    sim_beat(sim);
    assert_int_equal(sim_gate(sim, "error_rate")->verdict, FAILED);
}

/** The incumbent answers in 1 ms on the members that are no canaries; a share of the candidate's takes
 * slow_us. */
static struct sim *serve_both(void **state, uint64_t count, uint64_t slow, uint64_t slow_us) {
    struct sim_plan plan;
    plan_with(&plan, 0, 1.5, 0, 0);
    struct sim *sim = *state;
    sim->slow_us = slow_us;
    start_at(state, CANARY, &plan);
    counts(sim, 3, OF_INCUMBENT)->answered += count;
    counts(sim, 3, OF_INCUMBENT)->fast += count;
    counts(sim, 0, OF_CANDIDATE)->answered += count;
    counts(sim, 0, OF_CANDIDATE)->fast += count - slow;
    counts(sim, 0, OF_CANDIDATE)->slow += slow;
    sim_beat(sim);
    return sim;
}

static void p99_ratio_passes_when_both_are_as_fast(void **state) {
    struct sim *sim = serve_both(state, 5000, 10, 100000);
    assert_int_equal(sim_gate(sim, "p99_ratio")->verdict, PASSED);
    assert_float_equal(sim_gate(sim, "p99_ratio")->value, 1, 1e-9);
}

static void p99_ratio_fails_when_the_candidate_is_slower(void **state) {
    struct sim *sim = serve_both(state, 5000, 200, 10000);
    assert_int_equal(sim_gate(sim, "p99_ratio")->verdict, FAILED);
    assert_float_equal(sim_gate(sim, "p99_ratio")->value, 10, .4); /* a bucket is 1/32 wide */
}

static void p99_ratio_of_a_few_says_nothing(void **state) {
    struct sim *sim = serve_both(state, 200, 0, 10000);
    assert_int_equal(sim_gate(sim, "p99_ratio")->verdict, INCONCLUSIVE);
    assert_true(isinf(sim_gate(sim, "p99_ratio")->high));
}

static void p99_ratio_without_traffic_on_the_incumbent_says_nothing(void **state) {
    struct sim_plan plan;
    plan_with(&plan, 0, 1.5, 0, 0);
    struct sim *sim = start_at(state, CANARY, &plan);
    served(sim, 5000, 0);
    assert_int_equal(sim_gate(sim, "p99_ratio")->verdict, INCONCLUSIVE);
}

/* What a canary answers with the incumbent (for keys that are pinned to it) is no comparison in equal
 * conditions. */
static void p99_ratio_ignores_the_incumbent_on_canaries(void **state) {
    struct sim_plan plan;
    plan_with(&plan, 0, 1.5, 0, 0);
    struct sim *sim = start_at(state, CANARY, &plan);
    counts(sim, 1, OF_INCUMBENT)->answered += 5000;
    counts(sim, 1, OF_INCUMBENT)->fast += 5000;
    served(sim, 5000, 0);
    assert_int_equal(sim_gate(sim, "p99_ratio")->samples, 0);
}

static void where_all_run_the_candidate_the_last_step_with_incumbents_is_the_measure(void **state) {
    struct sim *sim = serve_both(state, 5000, 0, 10000);
    Thorax__V1__RolloutPlan *plan = sim->rollout.plan;
    plan->steps[CANARY]->min_ms = 0;
    plan->steps[ALL]->min_ms = 1000000;
    plan->gates->p99_ratio = 0;
    sim_until_step(sim, ALL);
    plan->gates->p99_ratio = 1.5;
    sim_beats(sim, 5);
    served(sim, 5000, 0);
    assert_int_equal(sim_gate(sim, "p99_ratio")->samples, 5000);
    assert_int_equal(sim_gate(sim, "p99_ratio")->verdict, PASSED);
}

/** One member compared so many pictures with that result. */
static struct sim *compare(void **state, const struct sim_plan *from, uint64_t compared, uint64_t agreed,
                           double drift, double spread) {
    struct sim_plan plan = *from;
    for (size_t i = 0; i < plan.plan.n_steps; i++)
        plan.pointers[i] = &plan.steps[i];
    plan.plan.gates = &plan.gates;
    plan.plan.steps = plan.pointers;
    struct sim *sim = start_at(state, SHADOW, &plan);
    struct sim_counts *stats = counts(sim, 2, OF_CANDIDATE);
    stats->compared += compared;
    stats->agreed += agreed;
    stats->drift_sum += drift * (double)compared;
    stats->drift_square_sum += (drift * drift + spread * spread) * (double)compared;
    sim_beat(sim);
    return sim;
}

static void agreement_passes_fails_and_cannot_say(void **state) {
    static const struct {
        uint64_t compared, agreed;
        Thorax__V1__GateVerdict verdict;
    } cases[] = {{1000, 990, PASSED}, {1000, 900, FAILED}, {1000, 950, INCONCLUSIVE}, {20, 20, INCONCLUSIVE}};
    struct sim_plan plan;
    plan_with(&plan, 0, 0, .95, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sim *sim = compare(state, &plan, cases[i].compared, cases[i].agreed, 0, 0);
        assert_int_equal(sim_gate(sim, "agreement")->verdict, cases[i].verdict);
        assert_int_equal(sim_gate(sim, "agreement")->samples, cases[i].compared);
        sim_teardown(state);
        sim_setup(state);
    }
}

static void score_drift_passes_fails_and_cannot_say_either_way(void **state) {
    static const struct {
        uint64_t compared;
        double drift;
        Thorax__V1__GateVerdict verdict;
    } cases[] = {{1000, .01, PASSED},
                 {1000, .1, FAILED},
                 {1000, -.1, FAILED},
                 {1000, .05, INCONCLUSIVE},
                 {20, .01, INCONCLUSIVE}};
    struct sim_plan plan;
    plan_with(&plan, 0, 0, 0, .05);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sim *sim = compare(state, &plan, cases[i].compared, cases[i].compared, cases[i].drift, .1);
        assert_int_equal(sim_gate(sim, "score_drift")->verdict, cases[i].verdict);
        sim_teardown(state);
        sim_setup(state);
    }
}

static void a_failure_waits_for_the_least_number_of_pictures_and_for_no_time(void **state) {
    struct sim_plan plan;
    plan_with(&plan, 0, 0, .95, 0);
    plan.steps[SHADOW].min_requests = 500;
    struct sim *sim = compare(state, &plan, 400, 200, 0, 0);
    sim_beats(sim, 20);
    assert_int_equal(sim->rollout.state, THORAX__V1__ROLLOUT_STATE__ROLLOUT_RUNNING);
    counts(sim, 1, OF_CANDIDATE)->compared += 100;
    sim_until(sim, THORAX__V1__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK);
}

/* ---- which counts belong to a step ---- */

static void counts_from_before_the_step_do_not_belong_to_it(void **state) {
    struct sim_plan plan;
    plan_with(&plan, .01, 0, 0, 0);
    struct sim *sim = *state;
    counts(sim, 0, OF_CANDIDATE)->failed = 1000; /* an earlier attempt of the same model */
    start_at(state, CANARY, &plan);
    served(sim, 5000, 0);
    assert_int_equal(sim->rollout.totals.failed, 0);
    assert_int_equal(sim->rollout.totals.answered, 5000);
}

static void a_member_that_restarts_loses_nothing_that_was_reported(void **state) {
    struct sim_plan plan;
    plan_with(&plan, .01, 0, 0, 0);
    struct sim *sim = start_at(state, CANARY, &plan);
    served(sim, 100, 1);
    sim_restart_member(&sim->all[0]);
    sim_beat(sim);
    assert_int_equal(sim->rollout.totals.answered, 100);
    served(sim, 30, 2); /* more than a difference to 100 would give */
    served(sim, 100, 0);
    assert_int_equal(sim->rollout.totals.answered, 230);
    assert_int_equal(sim->rollout.totals.failed, 3);
}

static void what_a_member_counted_stays_when_it_vanishes(void **state) {
    struct sim_plan plan;
    plan_with(&plan, .01, 0, 0, 0);
    struct sim *sim = start_at(state, CANARY, &plan);
    served(sim, 100, 1);
    sim->all[0].there = false;
    sim_beats(sim, 50);
    assert_int_equal(sim->rollout.totals.answered, 100);
    sim->all[0].there = true; /* the network was gone, the process was not */
    sim_beats(sim, 5);
    assert_int_equal(sim->rollout.totals.answered, 100);
}

static void a_member_that_joins_late_counts_from_when_it_is_seen(void **state) {
    struct sim_plan plan;
    plan_with(&plan, .01, 0, 0, 0);
    struct sim *sim = start_at(state, CANARY, &plan);
    sim_join(sim, 1);
    counts(sim, 4, OF_CANDIDATE)->answered = 7777;
    sim_beats(sim, 2);
    assert_int_equal(sim->rollout.totals.answered, 0);
    counts(sim, 4, OF_CANDIDATE)->answered += 5;
    sim_beat(sim);
    assert_int_equal(sim->rollout.totals.answered, 5);
}

static void a_count_that_falls_without_a_restart_is_no_news(void **state) {
    struct sim_plan plan;
    plan_with(&plan, .01, 0, 0, 0);
    struct sim *sim = start_at(state, CANARY, &plan);
    served(sim, 100, 0);
    counts(sim, 0, OF_CANDIDATE)->answered = 10;
    sim_beat(sim);
    assert_int_equal(sim->rollout.totals.answered, 100);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, sim_setup, sim_teardown)
    const struct CMUnitTest tests[] = {
        TEST(error_rate_passes_when_it_is_surely_below),
        TEST(error_rate_fails_when_it_is_surely_above),
        TEST(error_rate_of_a_few_says_nothing_and_holds),
        TEST(shadows_that_fail_count_as_errors),
        TEST(p99_ratio_passes_when_both_are_as_fast),
        TEST(p99_ratio_fails_when_the_candidate_is_slower),
        TEST(p99_ratio_of_a_few_says_nothing),
        TEST(p99_ratio_without_traffic_on_the_incumbent_says_nothing),
        TEST(p99_ratio_ignores_the_incumbent_on_canaries),
        TEST(where_all_run_the_candidate_the_last_step_with_incumbents_is_the_measure),
        TEST(agreement_passes_fails_and_cannot_say),
        TEST(score_drift_passes_fails_and_cannot_say_either_way),
        TEST(a_failure_waits_for_the_least_number_of_pictures_and_for_no_time),
        TEST(counts_from_before_the_step_do_not_belong_to_it),
        TEST(a_member_that_restarts_loses_nothing_that_was_reported),
        TEST(what_a_member_counted_stays_when_it_vanishes),
        TEST(a_member_that_joins_late_counts_from_when_it_is_seen),
        TEST(a_count_that_falls_without_a_restart_is_no_news),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
