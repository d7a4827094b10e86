#include "common/base/clock.h"
#include "common/base/log.h"
#include "inferd/subscriber_internal.h"

#include <stdlib.h>
#include <string.h>

enum { SILENT_HEARTBEATS = 3, COMPLAIN_AGAIN_MS = 60000, MAX_CHUNK_FRAME_BYTES = DESCRIPTOR_MAX_CHUNK_BYTES + 4096 };

/** Says what is wrong with the publisher: in the status, and in the log, the same thing once a minute. */
static void complain(struct subscriber *subscriber, const char *event, const struct error *err) {
    struct link *link = &subscriber->link;
    int64_t now_ms = clock_now_ms();
    subscriber->now.error = *err;
    if (strcmp(link->complaint.message, err->message) == 0 && now_ms - link->complaint_ms < COMPLAIN_AGAIN_MS)
        return;
    link->complaint = *err;
    link->complaint_ms = now_ms;
    log_error(event, err);
}

/** The publisher answers: what was wrong with it is no more. */
static void take_back_complaint(struct subscriber *subscriber) {
    const struct error *complaint = &subscriber->link.complaint;
    if (complaint->code && strcmp(subscriber->now.error.message, complaint->message) == 0)
        subscriber->now.error = (struct error){0};
}

void link_close(struct subscriber *subscriber) {
    wire_socket_close(subscriber->link.watch);
    subscriber->link.watch = NULL;
    for (int i = 0; i < SUBSCRIBER_SOCKETS; i++) {
        wire_socket_close(subscriber->link.sockets[i]);
        subscriber->link.sockets[i] = NULL;
    }
    subscriber->link.synced = false;
}

static bool open_socket(struct subscriber *subscriber, enum subscriber_socket which, struct error *err) {
    const char *const connect[] = {subscriber->endpoints[which], NULL};
    struct wire_socket_spec spec = {
        .kind = which == SUBSCRIBER_ANNOUNCE ? WIRE_SUB : WIRE_DEALER,
        .connect = connect,
        .security = subscriber->security,
        .server_key = subscriber->server_key,
        .max_frame_bytes = which == SUBSCRIBER_BLOBS ? MAX_CHUNK_FRAME_BYTES : POOL_MAX_MESSAGE_BYTES,
        .linger_ms = which == SUBSCRIBER_CONTROL ? 100 : 0,
        .watch = which == SUBSCRIBER_CONTROL ? &subscriber->link.watch : NULL,
    };
    subscriber->link.sockets[which] = wire_socket_open(subscriber->context, &spec, err);
    return subscriber->link.sockets[which];
}

static void ask_snapshot(struct subscriber *subscriber) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__SnapshotRequest snapshot;
    thorax__v1__control_request__init(&request);
    thorax__v1__snapshot_request__init(&snapshot);
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_SNAPSHOT;
    request.snapshot = &snapshot;
    link_send(subscriber, &request);
    backoff_fail(&subscriber->link.snapshot, clock_now_ms());
}

/** Subscribes first and asks for the snapshot then, so that no event falls between the two. */
static void link_open(struct subscriber *subscriber) {
    struct link *link = &subscriber->link;
    struct error err = {0};
    backoff_fail(&link->reopen, clock_now_ms());
    if (!open_socket(subscriber, SUBSCRIBER_ANNOUNCE, &err) ||
        !wire_subscribe(link->sockets[SUBSCRIBER_ANNOUNCE], "", &err) ||
        !open_socket(subscriber, SUBSCRIBER_CONTROL, &err) ||
        !open_socket(subscriber, SUBSCRIBER_BLOBS, &err)) {
        complain(subscriber, "publisher_unreachable", &err);
        link_close(subscriber);
        return;
    }
    link->heard_ms = clock_now_ms();
    link->handshake_failed = false;
    backoff_reset(&link->snapshot);
    ask_snapshot(subscriber);
    fetch_restart(subscriber);
}

void link_resync(struct subscriber *subscriber) {
    if (!subscriber->link.synced)
        return;
    subscriber->link.synced = false;
    subscriber->link.behind_ms = 0;
    backoff_reset(&subscriber->link.snapshot);
}

static void follow_connection(struct link *link) {
    enum wire_event event;
    while (wire_watch_next(link->watch, &event))
        link->handshake_failed = event == WIRE_HANDSHAKE_FAILED || (link->handshake_failed && event == WIRE_DISCONNECTED);
}

/** Nothing was heard for too long: why, as far as the connection tells. */
static void say_lost(struct subscriber *subscriber, int64_t silent_ms) {
    struct link *link = &subscriber->link;
    struct error err = {0};
    if (link->synced)
        log_event(LOG_WARNING, "publisher_lost", "silent_ms=%lld", (long long)silent_ms);
    if (!link->handshake_failed)
        return;
    const char *endpoint = subscriber->endpoints[SUBSCRIBER_CONTROL];
    if (subscriber->security)
        error_set(&err, ERROR_DENIED,
                  "%s: the handshake fails: publisher.server_key is not its key, or its allow-list does not have ours, %s, "
                  "as a member",
                  endpoint, wire_security_key(subscriber->security)->public_key);
    else
        error_set(&err, ERROR_DENIED, "%s: the handshake fails: it may want keys, and this member has none (security.key)",
                  endpoint);
    complain(subscriber, "publisher_handshake_failed", &err);
}

void link_tick(struct subscriber *subscriber) {
    struct link *link = &subscriber->link;
    int64_t now_ms = clock_now_ms();
    if (!link->sockets[0]) {
        if (now_ms >= link->reopen.due_ms)
            link_open(subscriber);
        return;
    }
    follow_connection(link);
    if (now_ms - link->heard_ms > (int64_t)subscriber->heartbeat_ms * SILENT_HEARTBEATS) {
        say_lost(subscriber, now_ms - link->heard_ms);
        link_close(subscriber);
        return;
    }
    if (link->behind_ms && now_ms - link->behind_ms > (int64_t)subscriber->heartbeat_ms * SILENT_HEARTBEATS)
        link_resync(subscriber);
    if (!link->synced && now_ms >= link->snapshot.due_ms)
        ask_snapshot(subscriber);
    else if (now_ms >= link->report_due_ms)
        link_send_report(subscriber);
}

int64_t link_left_ms(const struct subscriber *subscriber) {
    const struct link *link = &subscriber->link;
    if (!link->sockets[0])
        return clock_left_ms(link->reopen.due_ms);
    int64_t report_ms = clock_left_ms(link->report_due_ms);
    int64_t snapshot_ms = link->synced ? report_ms : clock_left_ms(link->snapshot.due_ms);
    return report_ms < snapshot_ms ? report_ms : snapshot_ms;
}

/* ---- sending ---- */

void link_send(struct subscriber *subscriber, Thorax__V1__ControlRequest *request) {
    struct link *link = &subscriber->link;
    if (!link->sockets[SUBSCRIBER_CONTROL])
        return;
    request->protocol_version = POOL_PROTOCOL_VERSION;
    request->report = report_fill(subscriber);
    struct packed packed = pool_pack(&request->base);
    struct wire_frame frame = {packed.data, packed.size};
    if (packed.data) /* what is lost is said again by the next report */
        wire_send(link->sockets[SUBSCRIBER_CONTROL], &frame, 1, 0, NULL);
    free(packed.data);
    link->report_due_ms = clock_now_ms() + subscriber->heartbeat_ms;
}

void link_send_report(struct subscriber *subscriber) {
    Thorax__V1__ControlRequest request;
    thorax__v1__control_request__init(&request);
    link_send(subscriber, &request);
}

/* ---- what the pool is to run ---- */

static void set_target(struct subscriber *subscriber, const struct descriptor *descriptor) {
    struct error err = {0};
    if (subscriber->target.packed && digest_equal(&subscriber->target.digest, &descriptor->digest))
        return;
    struct descriptor copy;
    if (!descriptor_copy(&copy, descriptor, &err)) {
        log_error("target_not_taken", &err);
        return;
    }
    descriptor_fini(&subscriber->target);
    subscriber->target = copy;
    subscriber->ask_due_ms = 0;
}

static void forget_staged(struct subscriber *subscriber) {
    while (subscriber->staged_count > 0)
        descriptor_fini(&subscriber->staged[--subscriber->staged_count]);
}

/** Takes a model that can be fetched into the list; the oldest makes room. */
static bool add_staged(struct subscriber *subscriber, const Thorax__V1__PublishedModel *model) {
    struct descriptor descriptor;
    if (!admit_parse(subscriber, model, &descriptor))
        return false;
    if (subscriber->staged_count == subscriber->staged_max) {
        descriptor_fini(&subscriber->staged[0]);
        memmove(&subscriber->staged[0], &subscriber->staged[1],
                (size_t)(subscriber->staged_max - 1) * sizeof subscriber->staged[0]);
        subscriber->staged_count--;
    }
    subscriber->staged[subscriber->staged_count++] = descriptor;
    return true;
}

/* ---- receiving ---- */

/** What this member is to run: none means that nothing changes. One that may not run here stays the target, so that the
 * publisher hears why it does not. */
static void take_target(struct subscriber *subscriber, const Thorax__V1__PublishedModel *model) {
    struct descriptor descriptor;
    struct error err = {0};
    if (!model)
        return;
    if (!descriptor_parse(&descriptor, model, subscriber->max_model_bytes, &err)) {
        log_error("model_refused", &err);
        return;
    }
    set_target(subscriber, &descriptor);
    subscriber->target_refusal = (struct error){0};
    subscriber->target_refused = !admit_check(subscriber, &descriptor, &subscriber->target_refusal);
    if (subscriber->target_refused) {
        log_error("model_refused", &subscriber->target_refusal);
        subscriber->now.error = subscriber->target_refusal;
    }
    descriptor_fini(&descriptor);
}

static void take_snapshot(struct subscriber *subscriber, const Thorax__V1__ControlReply *reply) {
    struct link *link = &subscriber->link;
    if (link->synced && reply->incarnation == link->incarnation && reply->number < link->number)
        return; /* the answer to an older question */
    struct error behind = {0};
    subscriber->publisher_behind = !epoch_check(subscriber, reply, &behind);
    if (subscriber->publisher_behind) { /* asked again with growing pauses */
        log_error("publisher_behind", &behind);
        subscriber->now.error = behind;
        return;
    }
    epoch_note(subscriber, reply);
    admit_take_revoked(subscriber, reply->snapshot);
    forget_staged(subscriber);
    for (size_t i = 0; i < reply->snapshot->n_staged; i++)
        add_staged(subscriber, reply->snapshot->staged[i]);
    take_target(subscriber, reply->snapshot->current);
    shadow_follow(subscriber, reply->snapshot->shadow);
    log_event(LOG_INFO, "publisher_snapshot", "incarnation=%016llx event=%llu staged=%d",
              (unsigned long long)reply->incarnation, (unsigned long long)reply->number,
              subscriber->staged_count);
    link->incarnation = reply->incarnation;
    link->number = reply->number;
    link->synced = true;
    backoff_reset(&link->snapshot);
    backoff_reset(&link->reopen);
    turn_tidy(subscriber);
}

/** A reply may overtake the events before it; where they do not come at all, the announce socket is deaf. */
static void note_number(struct link *link, const Thorax__V1__ControlReply *reply) {
    if (!link->synced || reply->incarnation != link->incarnation || reply->number <= link->number)
        link->behind_ms = 0;
    else if (!link->behind_ms)
        link->behind_ms = clock_now_ms();
}

static void take_refusal(struct subscriber *subscriber, const Thorax__V1__Refusal *refusal) {
    struct error err = {0};
    pool_refusal_error(refusal, &err);
    complain(subscriber, "publisher_refused", &err);
}

void link_receive_reply(struct subscriber *subscriber, const struct wire_message *message) {
    struct error err = {0};
    Thorax__V1__ControlReply *reply =
        message->count == 1 ? pool_unpack_reply(message->frames[0].data, message->frames[0].size, &err)
                            : NULL;
    if (!reply) {
        log_error("reply_refused", &err);
        return;
    }
    struct link *link = &subscriber->link;
    note_number(link, reply);
    if (reply->body_case != THORAX__V1__CONTROL_REPLY__BODY_REFUSAL)
        take_back_complaint(subscriber);
    if (reply->body_case == THORAX__V1__CONTROL_REPLY__BODY_SNAPSHOT)
        take_snapshot(subscriber, reply);
    else if (reply->incarnation != link->incarnation)
        link_resync(subscriber);
    else if (reply->body_case == THORAX__V1__CONTROL_REPLY__BODY_TURN)
        turn_receive(subscriber, reply->turn);
    else if (reply->body_case == THORAX__V1__CONTROL_REPLY__BODY_REFUSAL)
        take_refusal(subscriber, reply->refusal);
    pool_free(reply);
}

/** The event that follows the last one. One of a kind that is new to this program changes something all the same. */
static void apply(struct subscriber *subscriber, const Thorax__V1__Announcement *event) {
    subscriber->link.number = event->number;
    if (event->kind == THORAX__V1__EVENT_KIND__EVENT_STAGED) {
        add_staged(subscriber, event->model);
        turn_tidy(subscriber); /* the one that made room */
        return;
    }
    if (subscriber->target.packed)
        subscriber_forgive(subscriber, &subscriber->target.digest); /* said anew: worth another try at once */
    link_resync(subscriber);
}

void link_receive_event(struct subscriber *subscriber, const struct wire_message *message) {
    struct link *link = &subscriber->link;
    struct error err = {0};
    if (!link->synced)
        return; /* the snapshot that was asked for a moment ago has this event in it */
    Thorax__V1__Announcement *event =
        message->count == 1 ? pool_unpack_announcement(message->frames[0].data, message->frames[0].size, &err)
                            : NULL;
    if (!event) {
        log_error("announcement_refused", &err);
        return;
    }
    bool heartbeat = event->kind == THORAX__V1__EVENT_KIND__EVENT_HEARTBEAT;
    if (event->incarnation != link->incarnation)
        link_resync(subscriber);
    else if (event->number > link->number + !heartbeat)
        link_resync(subscriber);
    else if (event->number == link->number + 1)
        apply(subscriber, event);
    pool_free(event);
}
