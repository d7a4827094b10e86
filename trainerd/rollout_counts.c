#include "trainerd/rollout_internal.h"

#include <stdlib.h>
#include <string.h>

/* Members count since their process started. What belongs to a step is what came on top since the last look,
 * and all of it where the process is another one. */

enum { ENOUGH_FOR_REFERENCE = 1000 };

static uint64_t more(uint64_t now, uint64_t before) {
    return now > before ? now - before : 0; /* a count that fell is no news */
}

static void add_difference(struct member_stats *total, const struct member_stats *now,
                           const struct member_stats *before) {
    static const struct member_stats nothing;
    before = before ? before : &nothing;
    total->answered += more(now->answered, before->answered);
    total->failed += more(now->failed, before->failed);
    total->compared += more(now->compared, before->compared);
    total->agreed += more(now->agreed, before->agreed);
    total->shadow_failed += more(now->shadow_failed, before->shadow_failed);
    total->drift_sum += now->drift_sum - before->drift_sum;
    total->drift_square_sum += now->drift_square_sum - before->drift_square_sum;
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t count = more(now->latency.counts[i], before->latency.counts[i]);
        if (count)
            histogram_add_bucket(&total->latency, (uint32_t)i, count);
    }
}

/** Keeps what the member says of one model. Where memory ends the last look stays, and the next one counts
 * more. */
static void look_at(struct member_stats **last, const struct member_stats *now, struct member_stats *total) {
    if (!now)
        return;
    struct member_stats *kept = *last ? *last : calloc(1, sizeof **last);
    if (!kept)
        return;
    if (total)
        add_difference(total, now, *last);
    memcpy(kept, now, sizeof *kept);
    *last = kept;
}

static void forget(struct rollout_row *row) {
    free(row->candidate);
    free(row->incumbent);
    row->candidate = row->incumbent = NULL;
}

static void look_at_member(struct rollout *rollout, const struct rollout_view *view,
                           const struct member *member) {
    struct rollout_row *row = rollout_row(rollout, member->name);
    bool known = row;
    if (!row && !(row = rollout_add_row(rollout, view, member->name)))
        return;
    if (row->incarnation != member->incarnation)
        forget(row);
    row->incarnation = member->incarnation;
    bool told = row->assigned || rollout_for_all(rollout);
    look_at(&row->candidate, members_stats(member, &rollout->candidate), known ? &rollout->totals : NULL);
    if (rollout->has_incumbent)
        look_at(&row->incumbent, members_stats(member, &rollout->incumbent),
                known && !told ? &rollout->others : NULL);
}

void rollout_look(struct rollout *rollout, const struct rollout_view *view) {
    for (int i = 0; i < view->members->count; i++) {
        if (view->members->rows[i]->incarnation) /* an older program counts nothing */
            look_at_member(rollout, view, view->members->rows[i]);
    }
}

void rollout_begin_counts(struct rollout *rollout, const struct rollout_view *view) {
    rollout_look(rollout, view);
    uint64_t count = rollout->others.latency.total;
    if (count >= ENOUGH_FOR_REFERENCE || count > rollout->reference.latency.total)
        memcpy(&rollout->reference, &rollout->others, sizeof rollout->reference);
    memset(&rollout->totals, 0, sizeof rollout->totals);
    memset(&rollout->others, 0, sizeof rollout->others);
}
