#include "trainerd/rollout_internal.h"

#include "common/base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Who runs, and who compares, the candidate. Members are taken in the order of their names, so that the
 * choice is the same each time and a person can say who is next. */

enum { TASTERS = 1 /* members that load the candidate in the step that stages it, to see that it runs */ };

static Thorax__V1__RolloutStepKind kind_of(const struct rollout *rollout) {
    return rollout_step(rollout)->kind;
}

bool rollout_for_all(const struct rollout *rollout) {
    return kind_of(rollout) == THORAX__V1__ROLLOUT_STEP_KIND__STEP_WAVE &&
           rollout_step(rollout)->percent >= 100;
}

struct rollout_row *rollout_row(const struct rollout *rollout, const char *member) {
    for (int i = 0; i < rollout->row_count; i++) {
        if (strcmp(rollout->rows[i]->name, member) == 0)
            return rollout->rows[i];
    }
    return NULL;
}

static const struct member *find_member(const struct rollout_view *view, const char *name) {
    for (int i = 0; i < view->members->count; i++) {
        if (strcmp(view->members->rows[i]->name, name) == 0)
            return view->members->rows[i];
    }
    return NULL;
}

static bool alive(const struct rollout_view *view, const struct member *member) {
    return member && members_alive(view->members, member, view->now_ms);
}

static bool row_alive(const struct rollout_view *view, const struct rollout_row *row) {
    return alive(view, find_member(view, row->name));
}

/** A place for one more row: where all are taken, that of a member that is gone. */
static struct rollout_row **place(struct rollout *rollout, const struct rollout_view *view) {
    if (rollout->row_count < ROLLOUT_ROWS_MAX)
        return &rollout->rows[rollout->row_count];
    for (int i = 0; i < rollout->row_count; i++) {
        if (!row_alive(view, rollout->rows[i]) && !rollout->rows[i]->assigned)
            return &rollout->rows[i];
    }
    return NULL;
}

struct rollout_row *rollout_add_row(struct rollout *rollout, const struct rollout_view *view,
                                    const char *member) {
    struct rollout_row **where = place(rollout, view), *row = where ? calloc(1, sizeof *row) : NULL;
    if (!row)
        return NULL;
    text_copy(row->name, sizeof row->name, member);
    if (where == &rollout->rows[rollout->row_count]) {
        rollout->row_count++;
    } else {
        free((*where)->candidate);
        free((*where)->incumbent);
        free(*where);
    }
    return *where = row;
}

static bool is(bool has, const struct digest *a, const struct digest *b) {
    return has && digest_equal(a, b);
}

static bool runs(const struct rollout *rollout, const struct member *member) {
    return is(member->has_active, &member->active, &rollout->candidate);
}

/** Knows shadows, and has what the candidate is compared with. */
static bool can_compare(const struct rollout *rollout, const struct member *member) {
    return member->incarnation && rollout->has_incumbent &&
           is(member->has_active, &member->active, &rollout->incumbent);
}

static bool compares(const struct rollout *rollout, const struct member *member) {
    return is(member->has_shadow, &member->shadow, &rollout->candidate);
}

/** Has it whole. An older program cannot say so, and is taken at its silence. */
static bool has_it(const struct rollout *rollout, const struct member *member) {
    const struct digest *candidate = &rollout->candidate;
    return !member->incarnation || members_lists(&member->staged, candidate) ||
           members_lists(&member->residents, candidate) || runs(rollout, member) || compares(rollout, member);
}

static int count_alive(const struct rollout_view *view) {
    int count = 0;
    for (int i = 0; i < view->members->count; i++)
        count += alive(view, view->members->rows[i]);
    return count;
}

bool rollout_hears_enough(const struct rollout *rollout, const struct rollout_view *view) {
    for (int i = 0; i < rollout->row_count; i++) {
        const struct rollout_row *row = rollout->rows[i];
        if ((row->assigned || row->shadows) && !row_alive(view, row))
            return false;
    }
    return !rollout->plan || (uint32_t)count_alive(view) >= rollout->plan->min_healthy;
}

/** How many of the members that are there the step wants to run the candidate. */
static int wanted(const struct rollout *rollout, int members) {
    const Thorax__V1__RolloutStep *step = rollout_step(rollout);
    if (step->kind == THORAX__V1__ROLLOUT_STEP_KIND__STEP_CANARY)
        return step->members < (uint32_t)members ? (int)step->members : members;
    if (step->kind == THORAX__V1__ROLLOUT_STEP_KIND__STEP_WAVE)
        return (int)(((int64_t)members * step->percent + 99) / 100);
    return 0;
}

static int assigned_alive(const struct rollout *rollout, const struct rollout_view *view) {
    int count = 0;
    for (int i = 0; i < rollout->row_count; i++)
        count += rollout->rows[i]->assigned && row_alive(view, rollout->rows[i]);
    return count;
}

/** Who is better told first: the well before the failed, those that count before older programs, then by
 * name. */
static bool before(const struct member *a, const struct member *b) {
    bool a_well = a->state != THORAX__V1__MEMBER_STATE__MEMBER_FAILED;
    bool b_well = b->state != THORAX__V1__MEMBER_STATE__MEMBER_FAILED;
    if (a_well != b_well)
        return a_well;
    if (!a->incarnation != !b->incarnation)
        return a->incarnation;
    return strcmp(a->name, b->name) < 0;
}

/** The next to be told: alive, and not told yet. */
static struct rollout_row *choose(struct rollout *rollout, const struct rollout_view *view) {
    const struct member *best = NULL;
    for (int i = 0; i < view->members->count; i++) {
        const struct member *member = view->members->rows[i];
        const struct rollout_row *row = rollout_row(rollout, member->name);
        if (!alive(view, member) || (row && row->assigned))
            continue;
        if (!best || before(member, best))
            best = member;
    }
    struct rollout_row *row = best ? rollout_row(rollout, best->name) : NULL;
    return row || !best ? row : rollout_add_row(rollout, view, best->name);
}

/** One that is gone makes room for the one that takes its place: when it is back there are not too many. */
static void drop_one_that_is_gone(struct rollout *rollout, const struct rollout_view *view) {
    for (int i = 0; i < rollout->row_count; i++) {
        struct rollout_row *row = rollout->rows[i];
        if (row->assigned && !row_alive(view, row)) {
            row->assigned = false;
            return;
        }
    }
}

static bool assign_everybody(struct rollout *rollout, const struct rollout_view *view) {
    bool changed = false;
    for (struct rollout_row *row; (row = choose(rollout, view)); changed = true)
        row->assigned = true;
    return changed;
}

static bool assign_some(struct rollout *rollout, const struct rollout_view *view) {
    int want = wanted(rollout, count_alive(view));
    bool changed = false;
    while (assigned_alive(rollout, view) < want) {
        struct rollout_row *row = choose(rollout, view);
        if (!row)
            break;
        drop_one_that_is_gone(rollout, view);
        row->assigned = true;
        changed = true;
    }
    return changed;
}

/** Members load it to compare one after the other: loading takes time from serving. */
static bool assign_shadows(struct rollout *rollout, const struct rollout_view *view) {
    bool all = kind_of(rollout) == THORAX__V1__ROLLOUT_STEP_KIND__STEP_SHADOW;
    const struct member *next = NULL;
    int told = 0;
    for (int i = 0; i < view->members->count; i++) {
        const struct member *member = view->members->rows[i];
        struct rollout_row *row = rollout_row(rollout, member->name);
        if (row && row->shadows && alive(view, member) && can_compare(rollout, member)) {
            told++;
            if (!compares(rollout, member))
                return false;
        } else if (alive(view, member) && can_compare(rollout, member) && has_it(rollout, member)) {
            next = next && strcmp(next->name, member->name) < 0 ? next : member;
        }
    }
    struct rollout_row *row = next && (all || told < TASTERS) ? rollout_row(rollout, next->name) : NULL;
    if (row)
        row->shadows = true;
    return row;
}

bool rollout_assign(struct rollout *rollout, const struct rollout_view *view) {
    if (rollout_for_all(rollout))
        return assign_everybody(rollout, view);
    return wanted(rollout, MEMBERS_MAX) ? assign_some(rollout, view) : assign_shadows(rollout, view);
}

void rollout_unassign(struct rollout *rollout) {
    for (int i = 0; i < rollout->row_count; i++)
        rollout->rows[i]->assigned = rollout->rows[i]->shadows = false;
}

bool rollout_target(const struct rollout *rollout, const char *member, struct digest *target) {
    const struct rollout_row *row = rollout_row(rollout, member);
    if (rollout_decides(rollout) && (rollout_for_all(rollout) || (row && row->assigned))) {
        *target = rollout->candidate;
        return true;
    }
    *target = rollout->incumbent;
    return rollout->has_incumbent;
}

uint32_t rollout_shadow(const struct rollout *rollout, const char *member) {
    const struct rollout_row *row = rollout_row(rollout, member);
    if (!rollout_decides(rollout) || !row || !row->shadows)
        return 0;
    bool compares = kind_of(rollout) == THORAX__V1__ROLLOUT_STEP_KIND__STEP_SHADOW;
    return compares ? rollout_step(rollout)->shadow_permille : 1;
}

void rollout_count(const struct rollout *rollout, const struct rollout_view *view, uint32_t *assigned,
                   uint32_t *running, uint32_t *members) {
    *assigned = *running = *members = 0;
    for (int i = 0; i < view->members->count; i++) {
        const struct member *member = view->members->rows[i];
        struct digest target;
        if (!alive(view, member))
            continue;
        ++*members;
        *running += runs(rollout, member);
        *assigned += rollout_decides(rollout) && rollout_target(rollout, member->name, &target) &&
                     digest_equal(&target, &rollout->candidate);
    }
}

/* ---- what is there, and what is missing ---- */

static void progress_of_stage(const struct rollout *rollout, const struct rollout_view *view,
                              struct rollout_progress *out) {
    int members = count_alive(view), have = 0, can = 0, tasted = 0;
    for (int i = 0; i < view->members->count; i++) {
        const struct member *member = view->members->rows[i];
        if (!alive(view, member))
            continue;
        have += has_it(rollout, member);
        can += can_compare(rollout, member);
        tasted += compares(rollout, member);
    }
    out->ready = have == members && (!can || tasted >= TASTERS);
    if (have < members)
        snprintf(out->waiting, sizeof out->waiting, "%d of %d members have not fetched it", members - have,
                 members);
    else
        snprintf(out->waiting, sizeof out->waiting, "one member to load it and answer its golden images");
}

static void progress_of_shadow(const struct rollout *rollout, const struct rollout_view *view,
                               struct rollout_progress *out) {
    int can = 0, compare = 0, older = 0;
    for (int i = 0; i < view->members->count; i++) {
        const struct member *member = view->members->rows[i];
        if (!alive(view, member))
            continue;
        can += can_compare(rollout, member);
        compare += can_compare(rollout, member) && compares(rollout, member);
        older += !member->incarnation;
    }
    /* Without an incumbent there is nothing to compare with, and nothing to wait for. */
    out->ready = !rollout->has_incumbent || (can > 0 && compare == can);
    if (can == 0)
        snprintf(out->waiting, sizeof out->waiting, "a member that can compare (%d run an older program)",
                 older);
    else
        snprintf(out->waiting, sizeof out->waiting, "%d of %d members have not loaded it to compare",
                 can - compare, can);
}

static void progress_of_serving(const struct rollout *rollout, const struct rollout_view *view,
                                struct rollout_progress *out) {
    int want = wanted(rollout, count_alive(view)), run = 0;
    for (int i = 0; i < view->members->count; i++) {
        const struct member *member = view->members->rows[i];
        struct digest target;
        run += alive(view, member) && runs(rollout, member) &&
               rollout_target(rollout, member->name, &target) && digest_equal(&target, &rollout->candidate);
    }
    out->ready = run >= want;
    snprintf(out->waiting, sizeof out->waiting, "%d of %d members to run it", want - run, want);
}

int rollout_count_silent(const struct rollout *rollout, const struct rollout_view *view) {
    int count = 0;
    for (int i = 0; i < view->members->count; i++) {
        const struct member *member = view->members->rows[i];
        struct digest target;
        count += alive(view, member) && !member->incarnation &&
                 rollout_target(rollout, member->name, &target) && digest_equal(&target, &rollout->candidate);
    }
    return count;
}

void rollout_progress(const struct rollout *rollout, const struct rollout_view *view,
                      struct rollout_progress *out) {
    *out = (struct rollout_progress){0};
    if (!view->settled || count_alive(view) == 0) {
        snprintf(out->waiting, sizeof out->waiting,
                 view->settled ? "members: there are none" : "members to say that they are there");
        return;
    }
    if (kind_of(rollout) == THORAX__V1__ROLLOUT_STEP_KIND__STEP_STAGE)
        progress_of_stage(rollout, view, out);
    else if (kind_of(rollout) == THORAX__V1__ROLLOUT_STEP_KIND__STEP_SHADOW)
        progress_of_shadow(rollout, view, out);
    else
        progress_of_serving(rollout, view, out);
}

bool rollout_refused(const struct rollout *rollout, const struct rollout_view *view, char *reason,
                     size_t size) {
    for (int i = 0; i < view->members->count; i++) {
        const struct member *member = view->members->rows[i];
        struct digest target;
        if (!alive(view, member))
            continue;
        bool told =
            rollout_target(rollout, member->name, &target) && digest_equal(&target, &rollout->candidate);
        bool fails = member->state == THORAX__V1__MEMBER_STATE__MEMBER_FAILED &&
                     is(member->has_target, &member->target, &rollout->candidate);
        bool refuses = is(member->has_refused, &member->refused, &rollout->candidate);
        if ((told && fails) || (!told && refuses && !wanted(rollout, MEMBERS_MAX))) {
            snprintf(reason, size, "member %s cannot run it: %.400s", member->name,
                     told ? member->error : member->refused_reason);
            return true;
        }
    }
    return false;
}
