#include "trainerd/publisher_members.h"

#include "common/base/text.h"

#include <stdlib.h>
#include <string.h>

/* How many silences a member that is gone stays in the list, for people to see that it is missing. */
enum { FORGET_SILENCES = 200 };

void members_init(struct members *members, const struct members_spec *spec) {
    *members = (struct members){.spec = *spec};
}

static void member_destroy(struct member *member) {
    if (member)
        free(member->stats);
    free(member);
}

void members_fini(struct members *members) {
    for (int i = 0; i < members->count; i++)
        member_destroy(members->rows[i]);
    members->count = 0;
}

static struct member *find(const struct members *members, const char *name) {
    for (int i = 0; i < members->count; i++) {
        if (strcmp(members->rows[i]->name, name) == 0)
            return members->rows[i];
    }
    return NULL;
}

bool members_alive(const struct members *members, const struct member *member, int64_t now_ms) {
    return now_ms - member->heard_ms <= members->spec.silence_ms;
}

/** A place for a new member; the one longest gone makes room where the list is full. */
static struct member **place(struct members *members, int64_t now_ms) {
    if (members->count < MEMBERS_MAX)
        return &members->rows[members->count++];
    struct member **oldest = &members->rows[0];
    for (int i = 1; i < members->count; i++) {
        if (members->rows[i]->heard_ms < (*oldest)->heard_ms)
            oldest = &members->rows[i];
    }
    if (members_alive(members, *oldest, now_ms))
        return NULL;
    member_destroy(*oldest);
    return oldest;
}

static struct member *find_or_add(struct members *members, const char *name, int64_t now_ms,
                                  struct error *err) {
    struct member *member = find(members, name);
    if (member)
        return member;
    member = calloc(1, sizeof *member);
    struct member **row = member ? place(members, now_ms) : NULL;
    if (!row) {
        free(member);
        error_set(err, ERROR_BUSY, "the pool has %d members already", MEMBERS_MAX);
        return NULL;
    }
    text_copy(member->name, sizeof member->name, name);
    return *row = member;
}

static void copy_digests(struct member_digests *out, const ProtobufCBinaryData *digests, size_t count) {
    out->count = 0;
    for (size_t i = 0; i < count && out->count < MEMBER_DIGESTS_MAX; i++)
        out->count += pool_digest(&digests[i], &out->digests[out->count]) ? 1 : 0;
}

static void copy_stats(struct member_stats *out, const Thorax__V1__ModelStats *from) {
    pool_digest(&from->digest, &out->digest);
    out->answered = from->answered;
    out->failed = from->failed;
    out->compared = from->compared;
    out->agreed = from->agreed;
    out->shadow_failed = from->shadow_failed;
    out->drift_sum = from->drift_sum;
    out->drift_square_sum = from->drift_square_sum;
    size_t buckets = from->n_latency_bucket < HISTOGRAM_BUCKETS ? from->n_latency_bucket : HISTOGRAM_BUCKETS;
    for (size_t i = 0; i < buckets && i < from->n_latency_count; i++)
        histogram_add_bucket(&out->latency, from->latency_bucket[i], from->latency_count[i]);
}

/** Keeps the statistics of the newest report alone. Where memory ends there are none until the next one. */
static void hear_stats(struct member *member, const Thorax__V1__MemberReport *report) {
    size_t count = report->n_stats < MEMBER_STATS_MAX ? report->n_stats : MEMBER_STATS_MAX;
    free(member->stats);
    member->stats = count ? calloc(count, sizeof *member->stats) : NULL;
    member->stats_count = member->stats ? (int)count : 0;
    for (int i = 0; i < member->stats_count; i++)
        copy_stats(&member->stats[i], report->stats[i]);
}

/** What a report says of models besides the active one and the target. */
static void hear_models(struct member *member, const Thorax__V1__MemberReport *report) {
    member->incarnation = report->incarnation;
    copy_digests(&member->residents, report->resident_digests, report->n_resident_digests);
    copy_digests(&member->staged, report->staged_digests, report->n_staged_digests);
    member->has_shadow = pool_digest(&report->shadow_digest, &member->shadow);
    member->has_refused = pool_digest(&report->refused_digest, &member->refused);
    text_copy(member->refused_reason, sizeof member->refused_reason, report->refused_reason);
    hear_stats(member, report);
}

const struct member_stats *members_stats(const struct member *member, const struct digest *model) {
    for (int i = 0; i < member->stats_count; i++) {
        if (digest_equal(&member->stats[i].digest, model))
            return &member->stats[i];
    }
    return NULL;
}

bool members_lists(const struct member_digests *list, const struct digest *digest) {
    for (int i = 0; i < list->count; i++) {
        if (digest_equal(&list->digests[i], digest))
            return true;
    }
    return false;
}

struct member *members_hear(struct members *members, const Thorax__V1__MemberReport *report,
                            const void *route, size_t route_size, int64_t now_ms, struct error *err) {
    if (route_size > MEMBER_ROUTE_BYTES) {
        error_set(err, ERROR_INVALID, "a routing id of %zu bytes", route_size);
        return NULL;
    }
    struct member *member = find_or_add(members, report->member, now_ms, err);
    if (!member)
        return NULL;
    /* Another connection: the member started anew, and its turn died with it (or its state says that it is
     * still at it). */
    if (member->route_size != route_size || memcmp(member->route, route, route_size) != 0)
        members_give_back(members, member, members->turn);
    memcpy(member->route, route, route_size);
    member->route_size = route_size;
    member->heard_ms = now_ms;
    member->state = report->state;
    member->has_active = pool_digest(&report->active_digest, &member->active);
    member->has_target = pool_digest(&report->target_digest, &member->target);
    member->fetched_bytes = report->fetched_bytes;
    text_copy(member->error, sizeof member->error, report->error);
    text_copy(member->software, sizeof member->software, report->software);
    hear_models(member, report);
    if (member->state != THORAX__V1__MEMBER_STATE__MEMBER_ACTIVATING)
        member->activating_ms = 0;
    else if (!member->activating_ms)
        member->activating_ms = now_ms;
    if (member->state != THORAX__V1__MEMBER_STATE__MEMBER_WAITING)
        member->asks = false;
    /* An outcome that was lost shows here: the member stands where it stands after a turn. */
    bool settled = (member->has_active && digest_equal(&member->active, &members->turn_digest)) ||
                   member->state == THORAX__V1__MEMBER_STATE__MEMBER_FAILED;
    if (settled && strcmp(member->name, members->holder) == 0)
        members_give_back(members, member, members->turn);
    return member;
}

void members_ask(struct members *members, struct member *member, const struct digest *digest,
                 int64_t now_ms) {
    (void)members;
    if (!member->asks)
        member->asked_ms = now_ms;
    member->asks = true;
    member->asked = *digest;
}

void members_give_back(struct members *members, const struct member *member, uint64_t turn) {
    if (!members->turn || turn != members->turn || strcmp(member->name, members->holder) != 0)
        return;
    members->turn = 0;
    members->holder[0] = '\0';
}

bool members_holds(const struct members *members, const struct member *member, const struct digest *digest) {
    return members->turn && strcmp(member->name, members->holder) == 0 &&
           digest_equal(digest, &members->turn_digest);
}

uint64_t members_expire(struct members *members, int64_t now_ms) {
    uint64_t taken = 0;
    const struct member *holder = members->turn ? find(members, members->holder) : NULL;
    bool over = now_ms - members->turn_ms > members->spec.activation_timeout_ms;
    if (members->turn && (!holder || over || !members_alive(members, holder, now_ms))) {
        taken = members->turn;
        members->turn = 0;
        members->holder[0] = '\0';
    }
    for (int i = members->count - 1; i >= 0; i--) {
        if (now_ms - members->rows[i]->heard_ms <= FORGET_SILENCES * members->spec.silence_ms)
            continue;
        member_destroy(members->rows[i]);
        members->rows[i] = members->rows[--members->count];
    }
    return taken;
}

/** Some member is at it, by its own word: one that an earlier publisher gave a turn to. One that takes too
 * long is passed over. */
static bool anyone_activating(const struct members *members, int64_t now_ms) {
    for (int i = 0; i < members->count; i++) {
        const struct member *member = members->rows[i];
        if (member->activating_ms && members_alive(members, member, now_ms) &&
            now_ms - member->activating_ms <= members->spec.activation_timeout_ms)
            return true;
    }
    return false;
}

struct member *members_next(struct members *members, members_target target, void *context, int64_t now_ms) {
    if (members->turn || now_ms < members->spec.quiet_until_ms || anyone_activating(members, now_ms))
        return NULL;
    struct member *first = NULL;
    for (int i = 0; i < members->count; i++) {
        struct member *member = members->rows[i];
        struct digest wanted;
        if (member->asks && members_alive(members, member, now_ms) &&
            (!first || member->asked_ms < first->asked_ms) && target(context, member, &wanted) &&
            digest_equal(&member->asked, &wanted))
            first = member;
    }
    if (!first)
        return NULL;
    first->asks = false;
    members->turn = ++members->last_turn;
    text_copy(members->holder, sizeof members->holder, first->name);
    members->turn_digest = first->asked;
    members->turn_ms = now_ms;
    return first;
}
