#include "tests/unit/trainerd/rollout_fixture.h"

#include <stdio.h>

const struct digest CANDIDATE = {{1}}, INCUMBENT = {{2}};

int sim_setup(void **state) {
    struct sim *sim = calloc(1, sizeof *sim);
    sim->now_ms = 1000;
    sim->slow_us = 100000;
    members_init(&sim->members, &(struct members_spec){SIM_SILENCE_MS, 5000, 0});
    *state = sim;
    return sim ? 0 : 1;
}

int sim_teardown(void **state) {
    struct sim *sim = *state;
    rollout_fini(&sim->rollout);
    members_fini(&sim->members);
    free(sim->saved);
    free(sim);
    return 0;
}

void sim_join(struct sim *sim, int count) {
    static uint64_t incarnations = 100;
    for (int i = 0; i < SIM_MEMBERS && count > 0; i++) {
        struct sim_member *member = &sim->all[i];
        if (member->name[0])
            continue;
        snprintf(member->name, sizeof member->name, "m%02d", i);
        member->there = true;
        member->incarnation = ++incarnations;
        member->has_active = sim->has_stable;
        member->active = sim->stable;
        count--;
    }
}

struct rollout_view sim_view(const struct sim *sim) {
    return (struct rollout_view){&sim->members, sim->now_ms, 1700000000000 + sim->now_ms, !sim->unsettled};
}

void sim_save(struct sim *sim, unsigned change) {
    sim->changes |= change;
    if (change & ROLLOUT_PROMOTE) {
        sim->stable = sim->rollout.candidate;
        sim->has_stable = true;
    }
    if (!(change & ROLLOUT_SAVE))
        return;
    struct packed packed = rollout_pack(&sim->rollout);
    assert_non_null(packed.data);
    free(sim->saved);
    sim->saved = packed.data;
    sim->saved_size = packed.size;
}

static void report(struct sim *sim, struct sim_member *member);

void sim_start(struct sim *sim, Thorax__V1__RolloutPlan *plan) {
    for (int i = 0; i < SIM_MEMBERS; i++)
        report(sim, &sim->all[i]);
    struct rollout_view view = sim_view(sim);
    struct rollout_spec spec = {.id = 7,
                                .candidate = &CANDIDATE,
                                .incumbent = sim->has_stable ? &INCUMBENT : NULL,
                                .plan = plan,
                                .by = "somebody"};
    rollout_fini(&sim->rollout);
    assert_true(rollout_start(&sim->rollout, &spec, &view, NULL));
    sim_save(sim, ROLLOUT_SAVE);
}

/* ---- members ---- */

static void fill_stats(Thorax__V1__ModelStats *out, const struct digest *digest, const struct sim *sim,
                       const struct sim_counts *counts, uint32_t buckets[2], uint64_t times[2]) {
    thorax__v1__model_stats__init(out);
    out->digest = pool_digest_field(digest);
    out->answered = counts->answered;
    out->failed = counts->failed;
    out->compared = counts->compared;
    out->agreed = counts->agreed;
    out->shadow_failed = counts->shadow_failed;
    out->drift_sum = counts->drift_sum;
    out->drift_square_sum = counts->drift_square_sum;
    buckets[0] = (uint32_t)histogram_bucket(1000);
    buckets[1] = (uint32_t)histogram_bucket(sim->slow_us);
    times[0] = counts->fast;
    times[1] = counts->slow;
    out->latency_bucket = buckets;
    out->latency_count = times;
    out->n_latency_bucket = out->n_latency_count = 2;
}

static void report(struct sim *sim, struct sim_member *member) {
    Thorax__V1__MemberReport out;
    Thorax__V1__ModelStats stats[SIM_MODELS], *pointers[SIM_MODELS] = {&stats[0], &stats[1]};
    uint32_t buckets[SIM_MODELS][2];
    uint64_t times[SIM_MODELS][2];
    struct digest target;
    if (!member->there)
        return;
    thorax__v1__member_report__init(&out);
    out.member = member->name;
    out.state =
        member->failed ? THORAX__V1__MEMBER_STATE__MEMBER_FAILED : THORAX__V1__MEMBER_STATE__MEMBER_IDLE;
    out.error = member->failed ? (char *)"golden image 2 differs" : (char *)"";
    if (member->has_active)
        out.active_digest = pool_digest_field(&member->active);
    if (rollout_live(&sim->rollout) && rollout_target(&sim->rollout, member->name, &target))
        out.target_digest = pool_digest_field(&target);
    ProtobufCBinaryData staged = pool_digest_field(&CANDIDATE);
    if (!member->older) {
        out.incarnation = member->incarnation;
        out.staged_digests = &staged;
        out.n_staged_digests = member->has_staged;
        if (member->has_shadow)
            out.shadow_digest = pool_digest_field(&member->shadow);
        if (member->cannot_load && rollout_shadow(&sim->rollout, member->name)) {
            out.refused_digest = pool_digest_field(&CANDIDATE);
            out.refused_reason = (char *)"golden image 1 differs";
        }
        fill_stats(&stats[OF_CANDIDATE], &CANDIDATE, sim, &member->counts[OF_CANDIDATE], buckets[0],
                   times[0]);
        fill_stats(&stats[OF_INCUMBENT], &INCUMBENT, sim, &member->counts[OF_INCUMBENT], buckets[1],
                   times[1]);
        out.stats = pointers;
        out.n_stats = SIM_MODELS;
    }
    assert_non_null(members_hear(&sim->members, &out, member->name, strlen(member->name), sim->now_ms, NULL));
}

/** A member does what it is told, at once. */
static void obey(struct sim *sim, struct sim_member *member) {
    struct digest target = sim->stable;
    bool has_target = sim->has_stable;
    bool live = rollout_live(&sim->rollout);
    if (!member->there || member->deaf)
        return;
    if (live)
        has_target = rollout_target(&sim->rollout, member->name, &target);
    member->has_staged = live && !member->cannot_fetch;
    bool wants_candidate = has_target && digest_equal(&target, &CANDIDATE);
    member->failed = wants_candidate && member->cannot_run;
    if (has_target && !member->failed) {
        member->active = target;
        member->has_active = true;
    }
    member->has_shadow =
        !member->older && !member->cannot_load && rollout_shadow(&sim->rollout, member->name);
    member->shadow = CANDIDATE;
}

static void answer(struct sim *sim, struct sim_member *member) {
    if (!member->there || !member->has_active)
        return;
    bool candidate = digest_equal(&member->active, &CANDIDATE);
    struct sim_counts *counts = &member->counts[candidate ? OF_CANDIDATE : OF_INCUMBENT];
    counts->failed += candidate ? sim->fails : 0;
    counts->answered += sim->answers;
    counts->fast += sim->answers;
    if (!member->has_shadow)
        return;
    struct sim_counts *shadow = &member->counts[OF_CANDIDATE];
    shadow->compared += sim->answers;
    shadow->agreed += sim->answers - sim->disagrees;
    shadow->drift_sum += sim->drift * (double)sim->answers;
    shadow->drift_square_sum += sim->drift * sim->drift * (double)sim->answers;
}

void sim_restart_member(struct sim_member *member) {
    static uint64_t incarnations = 10000;
    member->incarnation = ++incarnations;
    memset(member->counts, 0, sizeof member->counts);
    member->has_shadow = false;
    member->there = true;
}

/* ---- time ---- */

void sim_beat(struct sim *sim) {
    sim->now_ms += SIM_HEARTBEAT_MS;
    for (int i = 0; i < SIM_MEMBERS; i++)
        answer(sim, &sim->all[i]);
    for (int i = 0; i < SIM_MEMBERS; i++)
        report(sim, &sim->all[i]);
    struct rollout_view view = sim_view(sim);
    sim_save(sim, rollout_tick(&sim->rollout, &view));
    for (int i = 0; i < SIM_MEMBERS; i++)
        obey(sim, &sim->all[i]);
}

void sim_beats(struct sim *sim, int count) {
    for (int i = 0; i < count; i++)
        sim_beat(sim);
}

void sim_until(struct sim *sim, Thorax__V1__RolloutState wanted) {
    for (int i = 0; i < 2000 && sim->rollout.state != wanted; i++)
        sim_beat(sim);
    assert_int_equal(sim->rollout.state, wanted);
}

void sim_until_step(struct sim *sim, uint32_t step) {
    for (int i = 0; i < 2000 && sim->rollout.step != step; i++)
        sim_beat(sim);
    assert_int_equal(sim->rollout.step, step);
}

void sim_restart_publisher(struct sim *sim) {
    assert_true(rollout_load(&sim->rollout, sim->saved, sim->saved_size, NULL));
    members_fini(&sim->members);
    members_init(&sim->members, &(struct members_spec){SIM_SILENCE_MS, 5000, 0});
}

bool sim_told(const struct sim *sim, const struct sim_member *member) {
    struct digest target;
    return rollout_live(&sim->rollout) && rollout_target(&sim->rollout, member->name, &target) &&
           digest_equal(&target, &CANDIDATE);
}

int sim_count_told(const struct sim *sim) {
    int count = 0;
    for (int i = 0; i < SIM_MEMBERS; i++)
        count += sim->all[i].name[0] && sim->all[i].there && sim_told(sim, &sim->all[i]);
    return count;
}

void sim_command(struct sim *sim, Thorax__V1__RolloutAction action) {
    Thorax__V1__RolloutCommand command;
    unsigned change;
    struct rollout_view view = sim_view(sim);
    thorax__v1__rollout_command__init(&command);
    command.action = action;
    command.by = (char *)"ada";
    command.reason = (char *)"a test";
    assert_true(rollout_command(&sim->rollout, &command, &view, &change, NULL));
    sim_save(sim, change);
}

const struct rollout_gate *sim_gate(const struct sim *sim, const char *name) {
    for (int i = 0; i < sim->rollout.gate_count; i++) {
        if (strcmp(sim->rollout.gates[i].name, name) == 0)
            return &sim->rollout.gates[i];
    }
    fail_msg("no gate %s", name);
    return NULL;
}

/* ---- plans ---- */

void sim_plan_init(struct sim_plan *plan) {
    memset(plan, 0, sizeof *plan);
    thorax__v1__rollout_plan__init(&plan->plan);
    thorax__v1__rollout_gates__init(&plan->gates);
    plan->plan.name = (char *)"test";
    plan->plan.gates = &plan->gates;
    plan->plan.steps = plan->pointers;
    plan->plan.on_failure = THORAX__V1__ROLLOUT_REACTION__REACTION_ROLLBACK;
}

Thorax__V1__RolloutStep *sim_plan_add(struct sim_plan *plan, Thorax__V1__RolloutStepKind kind) {
    Thorax__V1__RolloutStep *step = &plan->steps[plan->plan.n_steps];
    thorax__v1__rollout_step__init(step);
    step->kind = kind;
    plan->pointers[plan->plan.n_steps++] = step;
    return step;
}

void sim_plan_full(struct sim_plan *plan) {
    sim_plan_init(plan);
    sim_plan_add(plan, THORAX__V1__ROLLOUT_STEP_KIND__STEP_STAGE);
    Thorax__V1__RolloutStep *shadow = sim_plan_add(plan, THORAX__V1__ROLLOUT_STEP_KIND__STEP_SHADOW);
    shadow->shadow_permille = 100;
    shadow->min_requests = 20;
    sim_plan_add(plan, THORAX__V1__ROLLOUT_STEP_KIND__STEP_CANARY)->members = 2;
    sim_plan_add(plan, THORAX__V1__ROLLOUT_STEP_KIND__STEP_WAVE)->percent = 50;
    sim_plan_add(plan, THORAX__V1__ROLLOUT_STEP_KIND__STEP_WAVE)->percent = 100;
}
