#include "inferd/subscriber_internal.h"

#include <string.h>

static Thorax__V1__MemberState member_state(enum subscriber_phase phase) {
    static const Thorax__V1__MemberState states[] = {
        [SUBSCRIBER_IDLE] = THORAX__V1__MEMBER_STATE__MEMBER_IDLE,
        [SUBSCRIBER_FETCHING] = THORAX__V1__MEMBER_STATE__MEMBER_FETCHING,
        [SUBSCRIBER_WAITING] = THORAX__V1__MEMBER_STATE__MEMBER_WAITING,
        [SUBSCRIBER_ACTIVATING] = THORAX__V1__MEMBER_STATE__MEMBER_ACTIVATING,
        [SUBSCRIBER_FAILED] = THORAX__V1__MEMBER_STATE__MEMBER_FAILED,
    };
    return states[phase];
}

static void fill_latency(const struct histogram *latency, struct report_stats *out) {
    out->message.latency_bucket = out->buckets;
    out->message.latency_count = out->counts;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (latency->counts[i]) {
            out->buckets[out->message.n_latency_bucket++] = i;
            out->counts[out->message.n_latency_count++] = latency->counts[i];
        }
    }
}

static void fill_stats(const struct model_record *record, struct report_stats *out) {
    thorax__v1__model_stats__init(&out->message);
    out->message.digest = pool_digest_field(&record->digest);
    out->message.answered = record->answered;
    out->message.failed = record->failed;
    out->message.compared = record->compared;
    out->message.agreed = record->agreed;
    out->message.shadow_failed = record->shadow_failed;
    out->message.drift_sum = record->drift_sum;
    out->message.drift_square_sum = record->drift_square_sum;
    fill_latency(&record->latency, out);
}

/** What the daemon knows: what it could answer with, and how its models fare. */
static void fill_facts(struct report *report) {
    const struct subscriber_facts *facts = &report->facts;
    Thorax__V1__MemberReport *message = &report->message;
    for (int i = 0; i < facts->resident_count; i++)
        report->residents[i] = pool_digest_field(&facts->residents[i]);
    message->resident_digests = report->residents;
    message->n_resident_digests = (size_t)facts->resident_count;
    if (facts->has_shadow)
        message->shadow_digest = pool_digest_field(&facts->shadow);
    for (int i = 0; i < facts->stats_count; i++) {
        fill_stats(&facts->stats[i], &report->stats[i]);
        report->stats_list[i] = &report->stats[i].message;
    }
    message->stats = report->stats_list;
    message->n_stats = (size_t)facts->stats_count;
}

static bool is_listed(const struct report *report, const struct digest *digest) {
    for (size_t i = 0; i < report->message.n_staged_digests; i++) {
        if (memcmp(report->staged[i].data, digest->bytes, sizeof digest->bytes) == 0)
            return true;
    }
    return false;
}

static void add_staged(struct subscriber *subscriber, const struct descriptor *descriptor) {
    struct report *report = &subscriber->report;
    if (descriptor->packed && !is_listed(report, &descriptor->digest) &&
        store_has(subscriber->store, &descriptor->digest))
        report->staged[report->message.n_staged_digests++] = pool_digest_field(&descriptor->digest);
}

/** What is here whole of all that the publisher names: partial_commit checked each before it became an
 * object. */
static void fill_staged(struct subscriber *subscriber) {
    subscriber->report.message.staged_digests = subscriber->report.staged;
    add_staged(subscriber, &subscriber->target);
    add_staged(subscriber, &subscriber->shadow);
    for (int i = 0; i < subscriber->staged_count; i++)
        add_staged(subscriber, &subscriber->staged[i]);
}

Thorax__V1__MemberReport *report_fill(struct subscriber *subscriber) {
    struct report *report = &subscriber->report;
    Thorax__V1__MemberReport *message = &report->message;
    const struct subscriber_status *now = &subscriber->now;
    thorax__v1__member_report__init(message);
    message->member = subscriber->member;
    message->state = member_state(now->phase);
    if (now->has_active)
        message->active_digest = pool_digest_field(&now->active);
    if (subscriber->target.packed)
        message->target_digest = pool_digest_field(&subscriber->target.digest);
    message->fetched_bytes = (uint64_t)now->fetched_bytes;
    message->software = (char *)THORAX_VERSION;
    message->incarnation = subscriber->incarnation;
    if (now->phase == SUBSCRIBER_FAILED)
        message->error = pool_text(report->error, sizeof report->error, now->error.message);
    if (subscriber->has_refused) {
        message->refused_digest = pool_digest_field(&subscriber->refused);
        message->refused_reason =
            pool_text(report->reason, sizeof report->reason, subscriber->refusal.message);
    }
    if (subscriber->describe) {
        subscriber->describe(subscriber->context_of_daemon, &report->facts);
        admit_residents(subscriber, &report->facts);
        fill_facts(report);
    }
    fill_staged(subscriber);
    return message;
}
