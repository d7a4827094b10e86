#include "common/base/clock.h"
#include "common/base/log.h"
#include "trainerd/publisher_internal.h"

#include <stdlib.h>
#include <string.h>

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
    char text[POOL_MAX_TEXT_BYTES];
    thorax__v1__control_reply__init(&reply);
    thorax__v1__refusal__init(&refusal);
    refusal.code = pool_refusal_code(err->code);
    refusal.message = pool_text(text, sizeof text, err->message);
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

/** What the member is to run, and to have ready. Nothing to run while all is held: it keeps what it runs. */
static void fill_snapshot(struct publisher *publisher, Thorax__V1__Snapshot *snapshot,
                          Thorax__V1__PublishedModel models[REGISTRY_MAX_MODELS]) {
    for (int i = 0; i < registry_count(publisher->registry); i++) {
        const struct registry_model *model = registry_model(publisher->registry, i);
        descriptor_message(&model->descriptor, &models[i]);
        if (model->state == THORAX__V1__MODEL_STATE__MODEL_CURRENT) {
            snapshot->current = registry_held(publisher->registry)[0] ? NULL : &models[i];
            snapshot->stable_digest = pool_digest_field(&model->descriptor.digest);
        } else if ((model->state == THORAX__V1__MODEL_STATE__MODEL_STAGED ||
                    model->state == THORAX__V1__MODEL_STATE__MODEL_CANDIDATE) &&
                   !model->gate[0]) {
            snapshot->staged[snapshot->n_staged++] = &models[i];
        }
    }
}

static bool answer_snapshot(struct publisher *publisher, const struct control *control, struct error *err) {
    Thorax__V1__PublishedModel models[REGISTRY_MAX_MODELS], *staged[REGISTRY_MAX_MODELS];
    Thorax__V1__Snapshot snapshot;
    Thorax__V1__ControlReply reply;
    int revoked_count;
    const struct digest *revoked = registry_revoked(publisher->registry, &revoked_count);
    thorax__v1__snapshot__init(&snapshot);
    thorax__v1__control_reply__init(&reply);
    snapshot.staged = staged;
    fill_snapshot(publisher, &snapshot, models);
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

static void send_turn(struct publisher *publisher, const struct member *member) {
    Thorax__V1__ControlReply reply;
    Thorax__V1__Turn turn;
    thorax__v1__control_reply__init(&reply);
    thorax__v1__turn__init(&turn);
    turn.turn = publisher->members.turn;
    turn.digest = pool_digest_field(&publisher->members.turn_digest);
    turn.lease_ms = (uint32_t)publisher->members.spec.activation_timeout_ms;
    reply.body_case = THORAX__V1__CONTROL_REPLY__BODY_TURN;
    reply.turn = &turn;
    struct wire_frame route = {member->route, member->route_size};
    send_reply(publisher, &route, &reply);
}

void publisher_grant(struct publisher *publisher) {
    const struct registry_model *current = registry_stable(publisher->registry);
    struct member *member =
        current && !registry_held(publisher->registry)[0]
            ? members_next(&publisher->members, &current->descriptor.digest, clock_now_ms())
            : NULL;
    if (!member)
        return;
    char hex[DIGEST_HEX_SIZE];
    log_event(LOG_INFO, "turn_given", "member=%s turn=%llu digest=%.12s", member->name,
              (unsigned long long)publisher->members.turn, digest_hex(&current->descriptor.digest, hex));
    send_turn(publisher, member);
}

static bool answer_turn(struct publisher *publisher, const struct control *control, struct error *err) {
    struct digest digest;
    pool_digest(&control->request->turn->digest, &digest);
    if (members_holds(&publisher->members, control->member, &digest)) {
        send_turn(publisher, control->member); /* the first telling was lost */
        return true;
    }
    members_ask(&publisher->members, control->member, &digest, clock_now_ms());
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
    reply.body_case = THORAX__V1__CONTROL_REPLY__BODY_UPLOAD;
    reply.upload = &status;
    send_reply(publisher, &control->route, &reply);
}

static bool answer_upload(struct publisher *publisher, const struct control *control, struct error *err) {
    struct digest digest;
    int64_t offset;
    bool published;
    if (!publisher_upload_begin(publisher, control->request->upload->model, &digest, &offset, &published,
                                err))
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

/* One row per thing that can be asked. */
static const struct {
    Thorax__V1__ControlRequest__BodyCase body;
    bool (*answer)(struct publisher *publisher, const struct control *control, struct error *err);
} ANSWERS[] = {
    {THORAX__V1__CONTROL_REQUEST__BODY__NOT_SET, answer_heartbeat},
    {THORAX__V1__CONTROL_REQUEST__BODY_SNAPSHOT, answer_snapshot},
    {THORAX__V1__CONTROL_REQUEST__BODY_TURN, answer_turn},
    {THORAX__V1__CONTROL_REQUEST__BODY_OUTCOME, answer_outcome},
    {THORAX__V1__CONTROL_REQUEST__BODY_UPLOAD, answer_upload},
    {THORAX__V1__CONTROL_REQUEST__BODY_CHUNK, answer_chunk},
    {THORAX__V1__CONTROL_REQUEST__BODY_MODELS, publisher_answer_models},
    {THORAX__V1__CONTROL_REQUEST__BODY_APPROVE, publisher_answer_approve},
    {THORAX__V1__CONTROL_REQUEST__BODY_REVOKE, publisher_answer_revoke},
    {THORAX__V1__CONTROL_REQUEST__BODY_EVENTS, publisher_answer_events},
};

static bool answer(struct publisher *publisher, struct control *control, struct error *err) {
    const Thorax__V1__ControlRequest *request = control->request;
    if (request->report) {
        control->member = members_hear(&publisher->members, request->report, control->route.data,
                                       control->route.size, clock_now_ms(), err);
        if (!control->member)
            return false;
    }
    for (size_t i = 0; i < sizeof ANSWERS / sizeof *ANSWERS; i++) {
        if (ANSWERS[i].body == request->body_case)
            return ANSWERS[i].answer(publisher, control, err);
    }
    return error_set(err, ERROR_UNSUPPORTED, "a request of a kind that is not known here");
}

void publisher_serve_control(struct publisher *publisher, const struct wire_message *message) {
    struct error err = {0};
    if (message->count < 2)
        return;
    struct control control = {
        .route = message->frames[0],
        .data = message->count == 3 ? &message->frames[2] : NULL,
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
