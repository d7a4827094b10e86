#include "common/base/text.h"
#include "common/pool/message_check.h"
#include "trainerd/rollout_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A rollout to and from its RolloutRecord. What is read back was written here, and is checked all the same: a
 * disk may have anything on it. */

enum { FORMAT_VERSION = 1 };

/* ---- to disk ---- */

/** A ModelStats with room for what it points at. */
struct stats_message {
    Thorax__V1__ModelStats message;
    uint32_t buckets[HISTOGRAM_BUCKETS];
    uint64_t counts[HISTOGRAM_BUCKETS];
};

static Thorax__V1__ModelStats *write_stats(struct stats_message *out, const struct member_stats *stats) {
    thorax__v1__model_stats__init(&out->message);
    out->message.digest = pool_digest_field(&stats->digest);
    out->message.answered = stats->answered;
    out->message.failed = stats->failed;
    out->message.compared = stats->compared;
    out->message.agreed = stats->agreed;
    out->message.shadow_failed = stats->shadow_failed;
    out->message.drift_sum = stats->drift_sum;
    out->message.drift_square_sum = stats->drift_square_sum;
    size_t used = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t count = stats->latency.counts[i];
        if (!count)
            continue;
        out->buckets[used] = i;
        out->counts[used++] = count;
    }
    out->message.latency_bucket = out->buckets;
    out->message.latency_count = out->counts;
    out->message.n_latency_bucket = out->message.n_latency_count = used;
    return &out->message;
}

/** All that a record points at. */
struct record {
    Thorax__V1__RolloutRecord message;
    struct stats_message totals, others, reference;
    Thorax__V1__RolloutMemberRecord members[ROLLOUT_ROWS_MAX], *pointers[ROLLOUT_ROWS_MAX];
    struct stats_message stats[][2]; /* (rows, 2): of candidate and incumbent */
};

static void write_member(struct record *record, int i, const struct rollout_row *row) {
    Thorax__V1__RolloutMemberRecord *member = &record->members[i];
    thorax__v1__rollout_member_record__init(member);
    member->member = (char *)row->name;
    member->incarnation = row->incarnation;
    member->assigned = row->assigned;
    member->shadows = row->shadows;
    member->candidate = row->candidate ? write_stats(&record->stats[i][0], row->candidate) : NULL;
    member->incumbent = row->incumbent ? write_stats(&record->stats[i][1], row->incumbent) : NULL;
    record->pointers[i] = member;
}

static void write_head(Thorax__V1__RolloutRecord *message, const struct rollout *rollout) {
    thorax__v1__rollout_record__init(message);
    message->format_version = FORMAT_VERSION;
    message->id = rollout->id;
    message->candidate_digest = pool_digest_field(&rollout->candidate);
    if (rollout->has_incumbent)
        message->incumbent_digest = pool_digest_field(&rollout->incumbent);
    message->plan = rollout->plan;
    message->state = rollout->state;
    message->reason = (char *)rollout->reason;
    message->by = (char *)rollout->by;
    message->step = rollout->step;
    message->started_ms = rollout->started_ms;
    message->step_ms = rollout->step_ms;
    message->ended_ms = rollout->ended_ms;
    message->watched_ms = rollout->watched_ms;
    message->ready_ms = rollout->ready_ms;
}

struct packed rollout_pack(const struct rollout *rollout) {
    struct record *record = calloc(1, sizeof *record + (size_t)rollout->row_count * sizeof record->stats[0]);
    if (!record)
        return (struct packed){0};
    write_head(&record->message, rollout);
    for (int i = 0; i < rollout->row_count; i++)
        write_member(record, i, rollout->rows[i]);
    record->message.members = record->pointers;
    record->message.n_members = (size_t)rollout->row_count;
    record->message.candidate = write_stats(&record->totals, &rollout->totals);
    record->message.incumbent = write_stats(&record->others, &rollout->others);
    record->message.reference = write_stats(&record->reference, &rollout->reference);
    struct packed packed = pool_pack(&record->message.base);
    free(record);
    return packed;
}

/* ---- from disk ---- */

static bool read_stats(struct member_stats *out, const Thorax__V1__ModelStats *message) {
    if (!message)
        return true;
    if (!pool_digest(&message->digest, &out->digest) ||
        message->n_latency_bucket != message->n_latency_count || !isfinite(message->drift_sum) ||
        !isfinite(message->drift_square_sum))
        return false;
    out->answered = message->answered;
    out->failed = message->failed;
    out->compared = message->compared;
    out->agreed = message->agreed;
    out->shadow_failed = message->shadow_failed;
    out->drift_sum = message->drift_sum;
    out->drift_square_sum = message->drift_square_sum;
    for (size_t i = 0; i < message->n_latency_bucket; i++)
        histogram_add_bucket(&out->latency, message->latency_bucket[i], message->latency_count[i]);
    return true;
}

/** *out: owned; NULL where the record has none. */
static bool read_owned_stats(struct member_stats **out, const Thorax__V1__ModelStats *message) {
    *out = message ? calloc(1, sizeof **out) : NULL;
    return !message || (*out && read_stats(*out, message));
}

static bool read_member(struct rollout *rollout, const Thorax__V1__RolloutMemberRecord *message) {
    struct rollout_row *row = descriptor_name_ok(message->member) ? calloc(1, sizeof *row) : NULL;
    if (!row)
        return false;
    rollout->rows[rollout->row_count++] = row;
    text_copy(row->name, sizeof row->name, message->member);
    row->incarnation = message->incarnation;
    row->assigned = message->assigned;
    row->shadows = message->shadows;
    return read_owned_stats(&row->candidate, message->candidate) &&
           read_owned_stats(&row->incumbent, message->incumbent);
}

static bool read_head(struct rollout *rollout, const Thorax__V1__RolloutRecord *message) {
    bool ok = message->format_version == FORMAT_VERSION && message->id &&
              pool_digest(&message->candidate_digest, &rollout->candidate) && message->plan &&
              !pool_plan_fault(message->plan) && message->step < message->plan->n_steps &&
              message->state >= THORAX__V1__ROLLOUT_STATE__ROLLOUT_RUNNING &&
              message->state <= THORAX__V1__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK &&
              message->n_members <= ROLLOUT_ROWS_MAX && message->watched_ms >= 0 && message->ready_ms >= 0;
    if (!ok || !(rollout->plan = rollout_copy_plan(message->plan)))
        return false;
    rollout->has_incumbent = pool_digest(&message->incumbent_digest, &rollout->incumbent);
    rollout->id = message->id;
    rollout->state = message->state;
    rollout->step = message->step;
    rollout->started_ms = message->started_ms;
    rollout->step_ms = message->step_ms;
    rollout->ended_ms = message->ended_ms;
    rollout->watched_ms = message->watched_ms;
    rollout->ready_ms = message->ready_ms;
    pool_text(rollout->reason, sizeof rollout->reason, message->reason);
    return text_copy(rollout->by, sizeof rollout->by, message->by) &&
           text_is_utf8(rollout->by, strlen(rollout->by));
}

bool rollout_load(struct rollout *rollout, const void *data, size_t size, struct error *err) {
    struct rollout *loaded = calloc(1, sizeof *loaded);
    Thorax__V1__RolloutRecord *message = pool_unpack_rollout(data, size, err);
    bool ok = loaded && message && read_head(loaded, message);
    for (size_t i = 0; ok && i < message->n_members; i++)
        ok = read_member(loaded, message->members[i]);
    ok = ok && read_stats(&loaded->totals, message->candidate) &&
         read_stats(&loaded->others, message->incumbent) &&
         read_stats(&loaded->reference, message->reference);
    if (ok) {
        rollout_fini(rollout);
        memcpy(rollout, loaded, sizeof *rollout);
    } else if (loaded) {
        rollout_fini(loaded);
    }
    pool_free(message);
    free(loaded);
    return ok || error_set(err, ERROR_FORMAT, "not a rollout that this version wrote");
}
