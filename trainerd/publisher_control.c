#include "common/base/clock.h"
#include "common/base/log.h"
#include "trainerd/publisher_internal.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DENIED_LOG_MS = 1000 };

static void send_reply(struct publisher *publisher, const struct wire_frame *route,
                       Thorax__V1__ControlReply *reply) {
    reply->protocol_version = POOL_PROTOCOL_VERSION;
    reply->incarnation = publisher->incarnation;
    reply->number = registry_number(publisher->registry);
    reply->registry_id =
        (ProtobufCBinaryData){REGISTRY_ID_BYTES, (uint8_t *)registry_id(publisher->registry)};
    struct packed packed = pool_pack(&reply->base);
    struct wire_frame frames[] = {*route, {packed.data, packed.size}};
    if (packed.data) /* a peer that is gone or does not read asks again when it is back */
        wire_send(publisher->sockets[PUBLISHER_CONTROL], frames, 2, 0, NULL);
    free(packed.data);
}

void publisher_reply(struct publisher *publisher, const struct control *control,
                     Thorax__V1__ControlReply *reply) {
    send_reply(publisher, &control->route, reply);
}

static void refuse(struct publisher *publisher, const struct wire_frame *route, const struct error *err) {
    Thorax__V1__ControlReply reply;
    Thorax__V1__Refusal refusal;
    char whole[POOL_MAX_TEXT_BYTES], text[POOL_MAX_TEXT_BYTES];
    snprintf(whole, sizeof whole, "%.300s%s%.200s", err->message, err->hint[0] ? "; " : "", err->hint);
    thorax__v1__control_reply__init(&reply);
    thorax__v1__refusal__init(&refusal);
    refusal.code = pool_refusal_code(err->code);
    refusal.message = pool_text(text, sizeof text, whole);
    reply.body_case = THORAX__V1__CONTROL_REPLY__BODY_REFUSAL;
    reply.refusal = &refusal;
    send_reply(publisher, route, &reply);
}

static bool answer_heartbeat(struct publisher *publisher, const struct control *control, struct error *err) {
    (void)err;
    Thorax__V1__ControlReply reply;
    thorax__v1__control_reply__init(&reply);
    send_reply(publisher, &control->route, &reply);
    return true;
}

/** What this member is to run, to compare, and to have ready. Nothing to run while all is held: it keeps what it
 * runs. */
static void fill_snapshot(struct publisher *publisher, const char *member, Thorax__V1__Snapshot *snapshot,
                          Thorax__V1__PublishedModel models[REGISTRY_MAX_MODELS]) {
    struct digest target, shadow;
    bool has_target = publisher_target(publisher, member, &target);
    uint32_t permille = publisher_shadow(publisher, member, &shadow);
    for (int i = 0; i < registry_count(publisher->registry); i++) {
        const struct registry_model *model = registry_model(publisher->registry, i);
        descriptor_message(&model->descriptor, &models[i]);
        if (has_target && digest_equal(&model->descriptor.digest, &target))
            snapshot->current = &models[i];
        if (permille && digest_equal(&model->descriptor.digest, &shadow)) {
            snapshot->shadow->model = &models[i];
            snapshot->shadow->permille = permille;
        }
        if (model->state == THORAX__V1__MODEL_STATE__MODEL_CURRENT) {
            snapshot->stable_digest = pool_digest_field(&model->descriptor.digest);
        } else if ((model->state == THORAX__V1__MODEL_STATE__MODEL_STAGED ||
                    model->state == THORAX__V1__MODEL_STATE__MODEL_CANDIDATE) &&
                   !model->gate[0]) {
            snapshot->staged[snapshot->n_staged++] = &models[i];
        }
    }
    if (!snapshot->shadow->model)
        snapshot->shadow = NULL;
}

static bool answer_snapshot(struct publisher *publisher, const struct control *control, struct error *err) {
    Thorax__V1__PublishedModel models[REGISTRY_MAX_MODELS], *staged[REGISTRY_MAX_MODELS];
    Thorax__V1__Snapshot snapshot;
    Thorax__V1__Shadow shadow;
    Thorax__V1__ControlReply reply;
    int revoked_count;
    const struct digest *revoked = registry_revoked(publisher->registry, &revoked_count);
    thorax__v1__snapshot__init(&snapshot);
    thorax__v1__control_reply__init(&reply);
    thorax__v1__shadow__init(&shadow);
    snapshot.staged = staged;
    snapshot.shadow = &shadow;
    fill_snapshot(publisher, control->member->name, &snapshot, models);
    snapshot.revoked = calloc((size_t)revoked_count + 1, sizeof *snapshot.revoked);
    if (!snapshot.revoked)
        return error_set(err, ERROR_MEMORY, "out of memory for a snapshot");
    for (int i = 0; i < revoked_count; i++)
        snapshot.revoked[snapshot.n_revoked++] = pool_digest_field(&revoked[i]);
    reply.body_case = THORAX__V1__CONTROL_REPLY__BODY_SNAPSHOT;
    reply.snapshot = &snapshot;
    send_reply(publisher, &control->route, &reply);
    free(snapshot.revoked);
    return true;
}

static void send_turn(struct publisher *publisher, const struct member *member, uint64_t number,
                      const struct digest *digest) {
    Thorax__V1__ControlReply reply;
    Thorax__V1__Turn turn;
    thorax__v1__control_reply__init(&reply);
    thorax__v1__turn__init(&turn);
    turn.turn = number;
    turn.digest = pool_digest_field(digest);
    turn.lease_ms = (uint32_t)publisher->members.spec.activation_timeout_ms;
    reply.body_case = THORAX__V1__CONTROL_REPLY__BODY_TURN;
    reply.turn = &turn;
    struct wire_frame route = {member->route, member->route_size};
    send_reply(publisher, &route, &reply);
}

static bool target_of(void *context, const struct member *member, struct digest *target) {
    return publisher_target(context, member->name, target);
}

void publisher_grant(struct publisher *publisher) {
    struct members *members = &publisher->members;
    struct member *member = members_next(members, target_of, publisher, clock_now_ms());
    if (!member)
        return;
    char hex[DIGEST_HEX_SIZE];
    log_event(LOG_INFO, "turn_given", "member=%s turn=%llu digest=%.12s", member->name,
              (unsigned long long)members->turn, digest_hex(&members->turn_digest, hex));
    send_turn(publisher, member, members->turn, &members->turn_digest);
}

/** What the member has loaded already takes no time to activate, and waits for nobody: a rollback is instant. */
static bool needs_no_turn(const struct publisher *publisher, const struct member *member,
                          const struct digest *digest) {
    struct digest target;
    return members_lists(&member->residents, digest) && publisher_target(publisher, member->name, &target) &&
           digest_equal(&target, digest);
}

static bool answer_turn(struct publisher *publisher, const struct control *control, struct error *err) {
    struct members *members = &publisher->members;
    struct digest digest;
    pool_digest(&control->request->turn->digest, &digest);
    if (members_holds(members, control->member, &digest)) {
        send_turn(publisher, control->member, members->turn, &digest); /* the first telling was lost */
        return true;
    }
    if (needs_no_turn(publisher, control->member, &digest)) {
        send_turn(publisher, control->member, ++members->last_turn, &digest);
        return true;
    }
    members_ask(members, control->member, &digest, clock_now_ms());
    return answer_heartbeat(publisher, control, err);
}

static bool answer_outcome(struct publisher *publisher, const struct control *control, struct error *err) {
    const Thorax__V1__TurnOutcome *outcome = control->request->outcome;
    static const char *const names[] = {"unspecified", "activated", "failed", "declined"};
    char hex[DIGEST_HEX_SIZE];
    struct digest digest;
    pool_digest(&outcome->digest, &digest);
    bool known = (size_t)outcome->result < sizeof names / sizeof *names;
    log_event(outcome->result == THORAX__V1__TURN_RESULT__TURN_FAILED ? LOG_WARNING : LOG_INFO, "turn_over",
              "member=%s turn=%llu digest=%.12s result=%s", control->member->name,
              (unsigned long long)outcome->turn, digest_hex(&digest, hex),
              known ? names[outcome->result] : "unknown");
    members_give_back(&publisher->members, control->member, outcome->turn);
    return answer_heartbeat(publisher, control, err);
}

static void reply_upload(struct publisher *publisher, const struct control *control,
                         const struct digest *digest, int64_t offset, bool published) {
    Thorax__V1__ControlReply reply;
    Thorax__V1__UploadStatus status;
    thorax__v1__control_reply__init(&reply);
    thorax__v1__upload_status__init(&status);
    status.digest = pool_digest_field(digest);
    status.offset = (uint64_t)offset;
    status.published = published;
    const struct registry_model *model = published ? registry_find(publisher->registry, digest) : NULL;
    if (model)
        status.gate = (char *)model->gate;
    reply.body_case = THORAX__V1__CONTROL_REPLY__BODY_UPLOAD;
    reply.upload = &status;
    send_reply(publisher, &control->route, &reply);
}

static bool answer_upload(struct publisher *publisher, const struct control *control, struct error *err) {
    struct digest digest;
    int64_t offset;
    bool published;
    if (!publisher_upload_begin(publisher, control->request->upload, &digest, &offset, &published, err))
        return false;
    reply_upload(publisher, control, &digest, offset, published);
    return true;
}

static bool answer_chunk(struct publisher *publisher, const struct control *control, struct error *err) {
    struct digest digest;
    int64_t offset;
    bool published;
    const Thorax__V1__UploadChunk *chunk = control->request->chunk;
    if (!control->data)
        return error_set(err, ERROR_FORMAT, "a chunk without its bytes");
    pool_digest(&chunk->digest, &digest);
    if (!publisher_upload_chunk(publisher, chunk, control->data, &offset, &published, err))
        return false;
    reply_upload(publisher, control, &digest, offset, published);
    return true;
}

enum { ANYBODY = WIRE_TRAINER | WIRE_MEMBER | WIRE_ADMIN, UPLOADERS = WIRE_TRAINER | WIRE_ADMIN };

#define BODY(NAME)  THORAX__V1__CONTROL_REQUEST__BODY_##NAME
#define BY(MESSAGE) offsetof(Thorax__V1__##MESSAGE, by)

/* One row per thing that can be asked, and by whom on a socket with keys. A request without a body is a member's report. */
static const struct answer {
    Thorax__V1__ControlRequest__BodyCase body;
    bool (*answer)(struct publisher *publisher, const struct control *control, struct error *err);
    unsigned roles;
    size_t by; /* where in the body it stands who asks; 0: it does not say */
} ANSWERS[] = {
    {BODY(_NOT_SET), answer_heartbeat, WIRE_MEMBER, 0},
    {BODY(SNAPSHOT), answer_snapshot, WIRE_MEMBER, 0},
    {BODY(TURN), answer_turn, WIRE_MEMBER, 0},
    {BODY(OUTCOME), answer_outcome, WIRE_MEMBER, 0},
    {BODY(UPLOAD), answer_upload, UPLOADERS, 0},
    {BODY(CHUNK), answer_chunk, UPLOADERS, 0},
    {BODY(MODELS), publisher_answer_models, ANYBODY, 0},
    {BODY(EVENTS), publisher_answer_events, ANYBODY, 0},
    {BODY(ROLLOUT_STATUS), publisher_answer_rollout_status, ANYBODY, 0},
    {BODY(APPROVE), publisher_answer_approve, WIRE_ADMIN, BY(ApproveRequest)},
    {BODY(REVOKE), publisher_answer_revoke, WIRE_ADMIN, BY(RevokeRequest)},
    {BODY(ROLLOUT_START), publisher_answer_rollout_start, WIRE_ADMIN, BY(RolloutStart)},
    {BODY(ROLLOUT_COMMAND), publisher_answer_rollout_command, WIRE_ADMIN, BY(RolloutCommand)},
    {BODY(ROLLBACK), publisher_answer_rollback, WIRE_ADMIN, BY(RollbackRequest)},
};

static const struct answer *find_answer(Thorax__V1__ControlRequest__BodyCase body) {
    for (size_t i = 0; i < sizeof ANSWERS / sizeof *ANSWERS; i++) {
        if (ANSWERS[i].body == body)
            return &ANSWERS[i];
    }
    return NULL;
}

/** A peer that is known asked for what it may not. At most one line a second: it may go on asking. */
static void note_denied(struct publisher *publisher, const struct wire_peer *peer, const struct error *err) {
    int64_t now_ms = clock_now_ms();
    if (publisher->denied_ms && now_ms - publisher->denied_ms < DENIED_LOG_MS)
        return;
    publisher->denied_ms = now_ms;
    log_event(LOG_WARNING, "request_denied", "peer=%s reason=\"%s\"", peer->name, err->message);
}

/** Whether who asks may, by the roles that its key has now, and is the member that it reports of. */
static bool permit(struct publisher *publisher, const struct wire_peer *peer, unsigned roles,
                   const Thorax__V1__MemberReport *report, struct error *err) {
    char text[WIRE_ROLES_SIZE];
    if (!peer->authenticated)
        return true;
    if (!(peer->roles & roles))
        error_set(err, ERROR_DENIED, "the key of %s may not ask for this: it takes the role %s", peer->name,
                  wire_roles_text(roles, text));
    else if (report && (!(peer->roles & WIRE_MEMBER) || strcmp(report->member, peer->name) != 0))
        error_set(err, ERROR_DENIED, "the key of %s does not speak for a member %s", peer->name, report->member);
    else
        return true;
    note_denied(publisher, peer, err);
    return false;
}

/**
 * Answers with what the record is to say of who asked, on a socket with keys: "Ann (key desk-2)". The name is what
 * somebody typed, the key is proven.
 */
static bool answer_signed(struct publisher *publisher, const struct answer *row, const struct control *control,
                          struct error *err) {
    char signed_by[REGISTRY_BY_SIZE];
    if (!row->by || !control->peer->authenticated)
        return row->answer(publisher, control, err);
    /* All bodies are pointers in one union. */
    char **by = (char **)((char *)control->request->approve + row->by), *given = *by;
    if ((size_t)snprintf(signed_by, sizeof signed_by, "%s (key %s)", given, control->peer->name) >= sizeof signed_by)
        return error_set(err, ERROR_INVALID, "who asks and the name of the key together: at most %d characters",
                         REGISTRY_BY_SIZE - 1 - (int)strlen(" (key )"));
    *by = signed_by;
    bool ok = row->answer(publisher, control, err);
    *by = given;
    return ok;
}

static bool answer(struct publisher *publisher, struct control *control, struct error *err) {
    const Thorax__V1__ControlRequest *request = control->request;
    const struct answer *row = find_answer(request->body_case);
    if (!permit(publisher, control->peer, row ? row->roles : ANYBODY, request->report, err))
        return false;
    if (request->report) {
        control->member = members_hear(&publisher->members, request->report, control->route.data,
                                       control->route.size, clock_now_ms(), err);
        if (!control->member)
            return false;
    }
    if (!row)
        return error_set(err, ERROR_UNSUPPORTED, "a request of a kind that is not known here");
    return answer_signed(publisher, row, control, err);
}

void publisher_serve_control(struct publisher *publisher, const struct wire_message *message) {
    struct error err = {0};
    if (message->count < 2)
        return;
    struct control control = {
        .route = message->frames[0],
        .data = message->count == 3 ? &message->frames[2] : NULL,
        .peer = &message->peer,
    };
    Thorax__V1__ControlRequest *request = NULL;
    if (message->count > 3)
        error_set(&err, ERROR_FORMAT, "a message of %d frames", message->count);
    else
        request = pool_unpack_request(message->frames[1].data, message->frames[1].size, &err);
    control.request = request;
    if (!request || !answer(publisher, &control, &err))
        refuse(publisher, &control.route, &err);
    pool_free(request);
}
