#include "trainerd/rollout.h"

#include "common/base/text.h"
#include "trainerd/rollout_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAVE_MS = 2000 /* how much of a step's time a crash may cost */ };

/* ---- life ---- */

Thorax__V1__RolloutPlan *rollout_copy_plan(const Thorax__V1__RolloutPlan *plan) {
    struct packed packed = pool_pack(&plan->base);
    Thorax__V1__RolloutPlan *copy =
        packed.data ? thorax__v1__rollout_plan__unpack(NULL, packed.size, packed.data) : NULL;
    free(packed.data);
    return copy;
}

bool rollout_start(struct rollout *rollout, const struct rollout_spec *spec, const struct rollout_view *view,
                   struct error *err) {
    *rollout = (struct rollout){
        .id = spec->id,
        .candidate = *spec->candidate,
        .has_incumbent = spec->incumbent,
        .plan = rollout_copy_plan(spec->plan),
        .state = THORAX__V1__ROLLOUT_STATE__ROLLOUT_RUNNING,
        .started_ms = view->wall_ms,
        .step_ms = view->wall_ms,
        .looked_ms = view->now_ms,
    };
    if (!rollout->plan)
        return error_set(err, ERROR_MEMORY, "out of memory for a rollout");
    if (spec->incumbent)
        rollout->incumbent = *spec->incumbent;
    text_copy(rollout->by, sizeof rollout->by, spec->by);
    rollout_begin_counts(rollout, view);
    return true;
}

void rollout_fini(struct rollout *rollout) {
    for (int i = 0; i < rollout->row_count; i++) {
        free(rollout->rows[i]->candidate);
        free(rollout->rows[i]->incumbent);
        free(rollout->rows[i]);
    }
    pool_free(rollout->plan);
    rollout->row_count = 0;
    rollout->plan = NULL;
    rollout->id = 0;
}

bool rollout_decides(const struct rollout *rollout) {
    return rollout->id && (rollout->state == THORAX__V1__ROLLOUT_STATE__ROLLOUT_RUNNING ||
                           rollout->state == THORAX__V1__ROLLOUT_STATE__ROLLOUT_PAUSED);
}

bool rollout_live(const struct rollout *rollout) {
    return rollout_decides(rollout) ||
           (rollout->id && rollout->state == THORAX__V1__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK);
}

/* ---- from state to state ---- */

static void give_reason(struct rollout *rollout, const char *reason) {
    pool_text(rollout->reason, sizeof rollout->reason, reason);
}

static unsigned pause_it(struct rollout *rollout, const char *reason) {
    rollout->state = THORAX__V1__ROLLOUT_STATE__ROLLOUT_PAUSED;
    give_reason(rollout, reason);
    return ROLLOUT_SAVE;
}

static unsigned roll_back(struct rollout *rollout, const char *reason) {
    rollout->state = THORAX__V1__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK;
    give_reason(rollout, reason);
    rollout_unassign(rollout);
    return ROLLOUT_SAVE | ROLLOUT_TARGETS;
}

static unsigned react(struct rollout *rollout, const char *reason) {
    bool back = rollout->plan->on_failure == THORAX__V1__ROLLOUT_REACTION__REACTION_ROLLBACK;
    return back ? roll_back(rollout, reason) : pause_it(rollout, reason);
}

static void begin_step(struct rollout *rollout, const struct rollout_view *view) {
    rollout_begin_counts(rollout, view);
    rollout->step_ms = view->wall_ms;
    rollout->watched_ms = rollout->ready_ms = 0;
    rollout->gate_count = 0;
}

static unsigned next_step(struct rollout *rollout, const struct rollout_view *view) {
    if (rollout->step + 1 == rollout->plan->n_steps) {
        rollout->state = THORAX__V1__ROLLOUT_STATE__ROLLOUT_DONE;
        rollout->ended_ms = view->wall_ms;
        rollout->waiting_for[0] = '\0';
        rollout_unassign(rollout);
        return ROLLOUT_SAVE | ROLLOUT_TARGETS | ROLLOUT_PROMOTE;
    }
    begin_step(rollout, view);
    rollout->step++;
    bool shadow = rollout_step(rollout)->kind == THORAX__V1__ROLLOUT_STEP_KIND__STEP_SHADOW;
    for (int i = 0; !shadow && i < rollout->row_count; i++)
        rollout->rows[i]->shadows = false;
    rollout_assign(rollout, view);
    return ROLLOUT_SAVE | ROLLOUT_TARGETS;
}

void rollout_end(struct rollout *rollout, const char *reason, int64_t wall_ms) {
    rollout->state = THORAX__V1__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK;
    give_reason(rollout, reason);
    rollout->ended_ms = wall_ms;
    rollout->waiting_for[0] = '\0';
    rollout_unassign(rollout);
}

/* ---- a look at a rollout that runs ---- */

/** True where fewer members are well than the plan wants. A pool that is empty is waited for, unless a number
 * is given. */
static bool too_few(const struct rollout *rollout, const struct rollout_view *view, char *reason,
                    size_t size) {
    uint32_t alive = 0, well = 0, least = rollout->plan->min_healthy ? rollout->plan->min_healthy : 1;
    for (int i = 0; i < view->members->count; i++) {
        const struct member *member = view->members->rows[i];
        bool lives = members_alive(view->members, member, view->now_ms);
        alive += lives;
        well += lives && member->state != THORAX__V1__MEMBER_STATE__MEMBER_FAILED;
    }
    if (well >= least || (alive == 0 && !rollout->plan->min_healthy))
        return false;
    snprintf(reason, size, "%u members are healthy (%u alive), and %u are wanted", well, alive, least);
    return true;
}

static void describe_gate(const struct rollout *rollout, const struct rollout_gate *gate, const char *what,
                          char *out, size_t size) {
    const Thorax__V1__RolloutGates *limits = rollout->plan->gates;
    snprintf(out, size, "gate %s %s: %.4g (%.4g to %.4g at %.4g %% confidence, %llu samples), limit %.4g",
             gate->name, what, gate->value, gate->low, gate->high,
             limits->confidence > 0 ? 100 * limits->confidence : 95.0, (unsigned long long)gate->samples,
             gate->limit);
}

static const struct rollout_gate *gate_that_is(const struct rollout *rollout,
                                               Thorax__V1__GateVerdict verdict) {
    for (int i = 0; i < rollout->gate_count; i++) {
        if (rollout->gates[i].verdict == verdict)
            return &rollout->gates[i];
    }
    return NULL;
}

/** Pictures that are missing, and how many members do not count theirs. */
static void wait_for_pictures(struct rollout *rollout, const struct rollout_view *view, uint64_t missing) {
    int silent = rollout_count_silent(rollout, view);
    int used = snprintf(rollout->waiting_for, sizeof rollout->waiting_for, "%llu more pictures",
                        (unsigned long long)missing);
    if (silent)
        snprintf(rollout->waiting_for + used, sizeof rollout->waiting_for - (size_t)used,
                 "; %d of its members run an older program that does not count them", silent);
}

/** Says what keeps the step; false: nothing does. */
static bool waits(struct rollout *rollout, const struct rollout_view *view,
                  const struct rollout_progress *progress) {
    const Thorax__V1__RolloutStep *step = rollout_step(rollout);
    char *out = rollout->waiting_for;
    const size_t size = sizeof rollout->waiting_for;
    bool judged = step->kind != THORAX__V1__ROLLOUT_STEP_KIND__STEP_STAGE;
    uint64_t samples = rollout_samples(rollout);
    const struct rollout_gate *open = gate_that_is(rollout, THORAX__V1__GATE_VERDICT__GATE_INCONCLUSIVE);
    out[0] = '\0';
    if (!progress->ready)
        text_copy(out, size, progress->waiting);
    else if (judged && samples < step->min_requests)
        wait_for_pictures(rollout, view, step->min_requests - samples);
    else if (rollout->ready_ms < step->min_ms)
        snprintf(out, size, "%lld ms more", (long long)(step->min_ms - rollout->ready_ms));
    else if (judged && open)
        describe_gate(rollout, open, "is inconclusive", out, size);
    return out[0];
}

static void pass_time(struct rollout *rollout, const struct rollout_view *view, bool ready) {
    int64_t passed = rollout->looked_ms ? view->now_ms - rollout->looked_ms : 0;
    passed = passed > 0 ? passed : 0;
    rollout->watched_ms += passed;
    rollout->ready_ms += ready ? passed : 0;
}

/** Verdicts of the present step: a failure, an end of the step, or none. */
static unsigned judge(struct rollout *rollout, const struct rollout_view *view,
                      const struct rollout_progress *progress) {
    char reason[POOL_MAX_TEXT_BYTES + 1];
    const Thorax__V1__RolloutStep *step = rollout_step(rollout);
    Thorax__V1__GateVerdict verdict = rollout_judge(rollout);
    if (verdict == THORAX__V1__GATE_VERDICT__GATE_FAILED && rollout_samples(rollout) >= step->min_requests) {
        describe_gate(rollout, gate_that_is(rollout, verdict), "failed", reason, sizeof reason);
        return react(rollout, reason);
    }
    /* A gate that failed on fewer pictures than it is to be judged by waits for more of them. */
    if (!waits(rollout, view, progress) && verdict == THORAX__V1__GATE_VERDICT__GATE_PASSED)
        return next_step(rollout, view);
    if (step->max_ms && rollout->watched_ms > step->max_ms) {
        snprintf(reason, sizeof reason, "no verdict within %u ms; it waited for %.400s", step->max_ms,
                 rollout->waiting_for);
        return pause_it(rollout, reason);
    }
    return 0;
}

static bool nothing_to_compare(const struct rollout *rollout) {
    return rollout_step(rollout)->kind == THORAX__V1__ROLLOUT_STEP_KIND__STEP_SHADOW &&
           !rollout->has_incumbent;
}

static unsigned run_step(struct rollout *rollout, const struct rollout_view *view) {
    char reason[POOL_MAX_TEXT_BYTES + 1];
    struct rollout_progress progress;
    rollout_look(rollout, view);
    rollout_progress(rollout, view, &progress);
    int64_t before_ms = rollout->watched_ms;
    pass_time(rollout, view, progress.ready);
    if (nothing_to_compare(rollout))
        return next_step(rollout, view);
    if (rollout_refused(rollout, view, reason, sizeof reason))
        return react(rollout, reason);
    if (too_few(rollout, view, reason, sizeof reason))
        return pause_it(rollout, reason);
    unsigned change = rollout_assign(rollout, view) ? ROLLOUT_SAVE | ROLLOUT_TARGETS : 0;
    if (change)
        rollout_progress(rollout, view, &progress);
    change |= judge(rollout, view, &progress);
    return change | (before_ms / SAVE_MS != rollout->watched_ms / SAVE_MS ? ROLLOUT_SAVE : 0);
}

/** Over when nobody who is there runs the candidate any more. Without an incumbent there is nothing to go
 * back to. */
static unsigned finish_rolling_back(struct rollout *rollout, const struct rollout_view *view) {
    uint32_t assigned, running, alive;
    rollout_count(rollout, view, &assigned, &running, &alive);
    if (!rollout->has_incumbent)
        running = 0;
    if (running > 0) {
        snprintf(rollout->waiting_for, sizeof rollout->waiting_for, "%u of %u members to go back", running,
                 alive);
        return 0;
    }
    rollout->waiting_for[0] = '\0';
    rollout->state = THORAX__V1__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK;
    rollout->ended_ms = view->wall_ms;
    return ROLLOUT_SAVE;
}

unsigned rollout_tick(struct rollout *rollout, const struct rollout_view *view) {
    unsigned change = 0;
    if (rollout_live(rollout) && !view->settled)
        text_copy(rollout->waiting_for, sizeof rollout->waiting_for, "members to say that they are there");
    else if (rollout_decides(rollout) && rollout->state == THORAX__V1__ROLLOUT_STATE__ROLLOUT_RUNNING)
        change = run_step(rollout, view);
    else if (rollout_live(rollout) && rollout->state == THORAX__V1__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK)
        change = finish_rolling_back(rollout, view);
    rollout->looked_ms = view->settled ? view->now_ms : 0; /* time that nobody watched does not count */
    return change;
}

/* ---- what people ask ---- */

static void describe_command(const Thorax__V1__RolloutCommand *command, const char *what, char *out,
                             size_t size) {
    snprintf(out, size, "%s by %.100s%s%.380s", what, command->by, command->reason[0] ? ": " : "",
             command->reason);
}

bool rollout_command(struct rollout *rollout, const Thorax__V1__RolloutCommand *command,
                     const struct rollout_view *view, unsigned *change, struct error *err) {
    char reason[POOL_MAX_TEXT_BYTES + 1];
    *change = 0;
    if (!rollout_decides(rollout))
        return error_set(err, ERROR_STATE, "no rollout is under way");
    bool paused = rollout->state == THORAX__V1__ROLLOUT_STATE__ROLLOUT_PAUSED;
    if (command->action == THORAX__V1__ROLLOUT_ACTION__ACTION_ABORT) {
        describe_command(command, "aborted", reason, sizeof reason);
        *change = roll_back(rollout, reason);
    } else if (command->action == THORAX__V1__ROLLOUT_ACTION__ACTION_PAUSE) {
        if (paused)
            return error_set(err, ERROR_STATE, "the rollout is paused already: %.400s", rollout->reason);
        describe_command(command, "paused", reason, sizeof reason);
        *change = pause_it(rollout, reason);
    } else {
        if (!paused)
            return error_set(err, ERROR_STATE, "the rollout is not paused");
        rollout->state = THORAX__V1__ROLLOUT_STATE__ROLLOUT_RUNNING;
        rollout->reason[0] = '\0';
        begin_step(rollout, view);
        *change = ROLLOUT_SAVE;
    }
    return true;
}
