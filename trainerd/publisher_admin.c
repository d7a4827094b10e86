#include "common/base/clock.h"
#include "common/base/log.h"
#include "trainerd/publisher_internal.h"

#include <stdlib.h>

enum { DEFAULT_EVENTS = 100 };

void publisher_reply_done(struct publisher *publisher, const struct control *control, const char *message) {
    Thorax__V1__ControlReply reply;
    Thorax__V1__Done done;
    char text[POOL_MAX_TEXT_BYTES];
    thorax__v1__control_reply__init(&reply);
    thorax__v1__done__init(&done);
    done.message = pool_text(text, sizeof text, message);
    reply.body_case = THORAX__V1__CONTROL_REPLY__BODY_DONE;
    reply.done = &done;
    publisher_reply(publisher, control, &reply);
}

void publisher_model_row(Thorax__V1__ModelRow *row, const struct registry_model *model) {
    thorax__v1__model_row__init(row);
    row->name = (char *)model->descriptor.name;
    row->version = (char *)model->descriptor.version;
    row->digest = pool_digest_field(&model->descriptor.digest);
    row->size_bytes = (uint64_t)model->descriptor.size_bytes;
    row->state = model->state;
    row->published_ms = model->published_ms;
    row->activated_ms = model->activated_ms;
    row->approved_by = (char *)model->approved_by;
    row->gate = (char *)model->gate;
    row->signer = (char *)model->signer;
}

/** One row's three messages, so that they have somewhere to lie while the reply is packed. */
struct member_row {
    Thorax__V1__MemberRow row;
    Thorax__V1__MemberReport report;
    struct digest assigned;
};

static void fill_member_row(const struct publisher *publisher, struct member_row *out, const struct member *member,
                            int64_t now_ms) {
    thorax__v1__member_row__init(&out->row);
    thorax__v1__member_report__init(&out->report);
    out->report.member = (char *)member->name;
    out->report.state = member->state;
    if (member->has_active)
        out->report.active_digest = pool_digest_field(&member->active);
    if (member->has_target)
        out->report.target_digest = pool_digest_field(&member->target);
    out->report.fetched_bytes = member->fetched_bytes;
    out->report.error = (char *)member->error;
    out->report.software = (char *)member->software;
    out->report.incarnation = member->incarnation;
    if (member->has_shadow)
        out->report.shadow_digest = pool_digest_field(&member->shadow);
    if (member->has_refused) {
        out->report.refused_digest = pool_digest_field(&member->refused);
        out->report.refused_reason = (char *)member->refused_reason;
    }
    if (publisher_target(publisher, member->name, &out->assigned))
        out->row.assigned_digest = pool_digest_field(&out->assigned);
    out->row.report = &out->report;
    out->row.silent_ms = now_ms - member->heard_ms;
}

bool publisher_answer_models(struct publisher *publisher, const struct control *control, struct error *err) {
    size_t members = (size_t)publisher->members.count;
    struct member_row *rows = calloc(members + 1, sizeof *rows);
    Thorax__V1__MemberRow **member_rows = calloc(members + 1, sizeof(void *));
    Thorax__V1__ModelRow models[REGISTRY_MAX_MODELS], *model_rows[REGISTRY_MAX_MODELS];
    Thorax__V1__ModelsReply body;
    Thorax__V1__ControlReply reply;
    thorax__v1__models_reply__init(&body);
    thorax__v1__control_reply__init(&reply);
    bool ok = (rows && member_rows) || error_set(err, ERROR_MEMORY, "out of memory for the list of members");
    for (size_t i = 0; ok && i < members; i++) {
        fill_member_row(publisher, &rows[i], publisher->members.rows[i], clock_now_ms());
        member_rows[i] = &rows[i].row;
    }
    for (int i = 0; i < registry_count(publisher->registry); i++) {
        publisher_model_row(&models[i], registry_model(publisher->registry, i));
        model_rows[i] = &models[i];
    }
    body.n_members = members;
    body.members = member_rows;
    body.n_models = (size_t)registry_count(publisher->registry);
    body.models = model_rows;
    body.held = (char *)registry_held(publisher->registry);
    reply.body_case = THORAX__V1__CONTROL_REPLY__BODY_MODELS;
    reply.models = &body;
    if (ok)
        publisher_reply(publisher, control, &reply);
    free(member_rows);
    free(rows);
    return ok;
}

static void log_decision(const char *event, const struct digest *digest, const char *by) {
    char hex[DIGEST_HEX_SIZE], who[REGISTRY_BY_SIZE];
    log_event(LOG_INFO, event, "digest=%.12s by=\"%s\"", digest_hex(digest, hex),
              pool_text(who, sizeof who, by));
}

bool publisher_answer_approve(struct publisher *publisher, const struct control *control, struct error *err) {
    const Thorax__V1__ApproveRequest *ask = control->request->approve;
    struct digest digest;
    if (!registry_resolve(publisher->registry, ask->model, &digest, err))
        return false;
    uint64_t before = registry_number(publisher->registry);
    if (!registry_approve(publisher->registry, &digest, ask->by, ask->note, err))
        return false;
    log_decision("model_approved", &digest, ask->by);
    if (registry_number(publisher->registry) != before)
        publisher_announce_targets(publisher);
    publisher_reply_done(publisher, control, "approved");
    return true;
}

bool publisher_answer_revoke(struct publisher *publisher, const struct control *control, struct error *err) {
    const Thorax__V1__RevokeRequest *ask = control->request->revoke;
    struct digest digest;
    if (!registry_resolve(publisher->registry, ask->model, &digest, err) ||
        !registry_revoke(publisher->registry, &digest, ask->by, ask->reason, err))
        return false;
    log_decision("model_revoked", &digest, ask->by);
    publisher_announce_targets(publisher);
    publisher_reply_done(publisher, control, "revoked");
    return true;
}

static void fill_event(Thorax__V1__RegistryEvent *row, const struct registry_event *event) {
    thorax__v1__registry_event__init(row);
    row->id = event->id;
    row->at_ms = event->at_ms;
    row->kind = (char *)event->kind;
    if (event->has_digest)
        row->digest = pool_digest_field(&event->digest);
    row->by = (char *)event->by;
    row->detail = (char *)event->detail;
}

static void reply_events(struct publisher *publisher, const struct control *control,
                         const struct registry_event *events, Thorax__V1__RegistryEvent *rows,
                         Thorax__V1__RegistryEvent **pointers, int count) {
    Thorax__V1__EventsReply body;
    Thorax__V1__ControlReply reply;
    thorax__v1__events_reply__init(&body);
    thorax__v1__control_reply__init(&reply);
    for (int i = 0; i < count; i++) {
        fill_event(&rows[i], &events[i]);
        pointers[i] = &rows[i];
    }
    body.n_events = (size_t)count;
    body.events = pointers;
    reply.body_case = THORAX__V1__CONTROL_REPLY__BODY_EVENTS;
    reply.events = &body;
    publisher_reply(publisher, control, &reply);
}

bool publisher_answer_events(struct publisher *publisher, const struct control *control, struct error *err) {
    const Thorax__V1__EventsRequest *ask = control->request->events;
    size_t limit = ask->limit ? ask->limit : DEFAULT_EVENTS;
    struct registry_event *events = calloc(limit, sizeof *events);
    Thorax__V1__RegistryEvent *rows = calloc(limit, sizeof *rows),
                              **pointers = calloc(limit, sizeof *pointers);
    bool ok =
        (events && rows && pointers) || error_set(err, ERROR_MEMORY, "out of memory for the list of events");
    int count = ok ? registry_events(publisher->registry, ask->after, (int)limit, events, err) : -1;
    if (count >= 0)
        reply_events(publisher, control, events, rows, pointers, count);
    free(pointers);
    free(rows);
    free(events);
    return count >= 0;
}
