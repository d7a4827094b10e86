#include "tests/unit/trainerd/rollout_fixture.h"

#include <stdio.h>

/* Thousands of random events (members die, start anew, join, fail; the publisher is killed; people pause,
 * resume, abort) from many seeds; what must hold at every moment is checked after each. */

enum { SEEDS = 400, EVENTS = 150, START_MEMBERS = 6 };

#define PAUSED THORAX__V1__ROLLOUT_STATE__ROLLOUT_PAUSED

struct chance {
    uint64_t state;
};

static uint32_t draw(struct chance *chance, uint32_t limit) {
    chance->state = chance->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(chance->state >> 33) % limit;
}

/** What must not get worse between two looks. */
struct before {
    Thorax__V1__RolloutState state;
    uint32_t step;
    int told;
    uint64_t totals;
    bool known[SIM_MEMBERS], told_each[SIM_MEMBERS];
};

static struct before note(const struct sim *sim) {
    struct before before = {
        sim->rollout.state, sim->rollout.step, sim_count_told(sim), sim->rollout.totals.answered, {0}, {0}};
    for (int i = 0; i < SIM_MEMBERS; i++) {
        before.known[i] = sim->all[i].name[0];
        before.told_each[i] = before.known[i] && sim_told(sim, &sim->all[i]);
    }
    return before;
}

/** Members that count as alive: one that died a moment ago does too. */
static int alive(const struct sim *sim) {
    struct rollout_view view = sim_view(sim);
    uint32_t assigned, running, members;
    rollout_count(&sim->rollout, &view, &assigned, &running, &members);
    return (int)members;
}

/** The most members that the step lets run the candidate, of so many that there ever were in it. */
static int allowed(const struct sim *sim, int members) {
    const Thorax__V1__RolloutStep *step = sim->rollout.plan->steps[sim->rollout.step];
    if (step->kind == THORAX__V1__ROLLOUT_STEP_KIND__STEP_CANARY)
        return (int)step->members < members ? (int)step->members : members;
    if (step->kind == THORAX__V1__ROLLOUT_STEP_KIND__STEP_WAVE)
        return step->percent == 100 ? SIM_MEMBERS : (members * (int)step->percent + 99) / 100;
    return 0;
}

static void check(const struct sim *sim, const struct before *before, int most_members) {
    const struct rollout *rollout = &sim->rollout;
    bool decides = rollout_decides(rollout);
    if (decides)
        assert_true(sim_count_told(sim) <= allowed(sim, most_members));
    else
        assert_int_equal(sim_count_told(sim), 0);
    if (rollout->state == THORAX__V1__ROLLOUT_STATE__ROLLOUT_DONE)
        assert_true(digest_equal(&sim->stable, &CANDIDATE));
    else
        assert_true(digest_equal(&sim->stable, &INCUMBENT));
    if (before->state == PAUSED && rollout->state == PAUSED) { /* a paused rollout changes no target */
        for (int i = 0; i < SIM_MEMBERS; i++)
            assert_true(!before->known[i] || before->told_each[i] == sim_told(sim, &sim->all[i]));
    }
    assert_true(rollout->step >= before->step);
}

static void member_event(struct sim *sim, struct chance *chance) {
    struct sim_member *member = &sim->all[draw(chance, SIM_MEMBERS)];
    if (!member->name[0])
        return;
    switch (draw(chance, 6)) {
    case 0:
        member->there = false;
        break;
    case 1:
    case 2:
        sim_restart_member(member);
        break;
    case 3:
        member->deaf = !member->deaf;
        break;
    case 4:
        member->cannot_fetch = draw(chance, 8) == 0;
        break;
    default:
        member->cannot_run = draw(chance, 16) == 0;
    }
}

static void command(struct sim *sim, Thorax__V1__RolloutAction action) {
    Thorax__V1__RolloutCommand command;
    unsigned change;
    struct rollout_view view = sim_view(sim);
    thorax__v1__rollout_command__init(&command);
    command.action = action;
    command.by = (char *)"chance";
    if (rollout_command(&sim->rollout, &command, &view, &change, NULL)) /* refused where it makes no sense */
        sim_save(sim, change);
}

static void publisher_event(struct sim *sim, struct chance *chance) {
    switch (draw(chance, 12)) {
    case 0:
    case 1:
        sim_restart_publisher(sim);
        break;
    case 2:
        command(sim, THORAX__V1__ROLLOUT_ACTION__ACTION_PAUSE);
        break;
    case 3:
    case 4:
    case 5:
        command(sim, THORAX__V1__ROLLOUT_ACTION__ACTION_RESUME);
        break;
    case 6:
        if (draw(chance, 20) == 0)
            command(sim, THORAX__V1__ROLLOUT_ACTION__ACTION_ABORT);
        break;
    default:
        sim_join(sim, draw(chance, 8) == 0);
    }
}

static void one_run(struct sim *sim, uint64_t seed, int ends[2]) {
    struct chance chance = {seed};
    struct sim_plan plan;
    sim_plan_full(&plan);
    plan.gates.error_rate = .2;
    plan.steps[2].min_ms = draw(&chance, 2000);
    plan.steps[3].min_ms = draw(&chance, 2000);
    if (draw(&chance, 2))
        plan.plan.on_failure = THORAX__V1__ROLLOUT_REACTION__REACTION_PAUSE;
    sim->has_stable = true;
    sim->stable = INCUMBENT;
    sim_join(sim, START_MEMBERS);
    sim_start(sim, &plan.plan);
    int most_members = START_MEMBERS;
    for (int i = 0; i < EVENTS; i++) {
        struct before before = note(sim);
        sim->answers = draw(&chance, 20);
        if (draw(&chance, 3) == 0)
            member_event(sim, &chance);
        if (draw(&chance, 4) == 0)
            publisher_event(sim, &chance);
        check(sim, &before, most_members);
        before = note(sim);
        sim_beats(sim, 1);
        most_members = alive(sim) > most_members ? alive(sim) : most_members;
        check(sim, &before, most_members);
        assert_true(sim->rollout.step > before.step || sim->rollout.totals.answered >= before.totals);
    }
    ends[0] += sim->rollout.state == THORAX__V1__ROLLOUT_STATE__ROLLOUT_DONE;
    ends[1] += sim->rollout.state == THORAX__V1__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK;
}

/** Left alone, with members that are well, what is not over ends. */
static void calm_down(struct sim *sim) {
    for (int i = 0; i < SIM_MEMBERS; i++) {
        struct sim_member *member = &sim->all[i];
        member->deaf = member->cannot_fetch = member->cannot_run = false;
        if (member->name[0] && !member->there)
            sim_restart_member(member);
    }
    sim->answers = 20;
    sim_beats(sim, 10);
    for (int i = 0; i < 20 && rollout_live(&sim->rollout); i++) {
        if (sim->rollout.state == PAUSED)
            command(sim, THORAX__V1__ROLLOUT_ACTION__ACTION_RESUME);
        sim_beats(sim, 100);
    }
    assert_false(rollout_live(&sim->rollout));
    for (int i = 0; i < SIM_MEMBERS; i++)
        assert_true(!sim->all[i].there || digest_equal(&sim->all[i].active, &sim->stable));
}

static void whatever_happens_what_must_hold_holds(void **state) {
    int ends[2] = {0, 0};
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        one_run(*state, seed, ends);
        calm_down(*state);
        sim_teardown(state);
        sim_setup(state);
    }
    print_message("of %d runs %d were done and %d rolled back when they were left alone\n", SEEDS, ends[0],
                  ends[1]);
    assert_true(ends[0] > 0 && ends[1] > 0); /* the chances are such that both happen */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(whatever_happens_what_must_hold_holds, sim_setup, sim_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
