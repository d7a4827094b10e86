#pragma once
#include "trainerd/rollout.h"

/* Between the parts of rollout.h. */

static inline const Thorax__V1__RolloutStep *rollout_step(const struct rollout *rollout) {
    return rollout->plan->steps[rollout->step];
}

/** The candidate is for every member, known or not. */
bool rollout_for_all(const struct rollout *rollout);
struct rollout_row *rollout_row(const struct rollout *rollout, const char *member);
/** Adds a row; NULL where there is no place or memory. */
struct rollout_row *rollout_add_row(struct rollout *rollout, const struct rollout_view *view,
                                    const char *member);

/** Chooses members for the present step, and members that compare. True where anything changed. */
bool rollout_assign(struct rollout *rollout, const struct rollout_view *view);
/** Nobody runs or compares it from now on. */
void rollout_unassign(struct rollout *rollout);

/** What the step wants of the members; `ready` where it is there, else `waiting` says what is missing. */
struct rollout_progress {
    bool ready;
    char waiting[POOL_MAX_TEXT_BYTES + 1];
};
void rollout_progress(const struct rollout *rollout, const struct rollout_view *view,
                      struct rollout_progress *out);
/** Members that are told to run the candidate and whose older program counts nothing: no gate hears of them. */
int rollout_count_silent(const struct rollout *rollout, const struct rollout_view *view);
/** True where a member that is told to cannot run or compare the candidate; writes who and why. */
bool rollout_refused(const struct rollout *rollout, const struct rollout_view *view, char *reason,
                     size_t size);

/** Notes the members' counts, and adds what is new since the last look to the step's. */
void rollout_look(struct rollout *rollout, const struct rollout_view *view);
/** The step's counts start from zero with what the members say now. */
void rollout_begin_counts(struct rollout *rollout, const struct rollout_view *view);

/** Pictures that the present step has judged the candidate by. */
uint64_t rollout_samples(const struct rollout *rollout);
/** Brings rollout->gates up to date. Returns GATE_PASSED where all pass (or there are none), GATE_FAILED
 * where one fails for certain, else GATE_INCONCLUSIVE. */
Thorax__V1__GateVerdict rollout_judge(struct rollout *rollout);
