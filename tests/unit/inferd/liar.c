#include "tests/unit/inferd/liar.h"
#include "common/wire/message.h"
#include "inferd/client/check.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void reply_with(struct liar *liar, const struct wire_message *message, struct wire_frame payload) {
    struct wire_frame frames[WIRE_MAX_FRAMES];
    memcpy(frames, message->frames, sizeof frames);
    frames[message->count - 1] = payload;
    wire_send(liar->socket, frames, message->count, 0, NULL);
}

static void pack_and_send(struct liar *liar, const struct wire_message *message,
                          Thorax__V1__Envelope *envelope) {
    struct bytes packed;
    envelope->protocol_version = MESSAGE_PROTOCOL_VERSION;
    assert_true(message_pack(&envelope->base, &packed, NULL));
    reply_with(liar, message, (struct wire_frame){packed.data, packed.size});
    free(packed.data);
}

static void say_status(struct liar *liar, const struct wire_message *message) {
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    Thorax__V1__StatusReply status = THORAX__V1__STATUS_REPLY__INIT;
    status.condition = THORAX__V1__MEMBER_CONDITION__CONDITION_READY;
    status.queue_limit = 100;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_STATUS_REPLY;
    envelope.status_reply = &status;
    pack_and_send(liar, message, &envelope);
}

/** An answer that is complete, but for what the habit spoils. */
static void say_answer(struct liar *liar, const struct wire_message *message,
                       const Thorax__V1__DiagnosisRequest *request) {
    struct digest image = digest_of(request->encoded.data, request->encoded.len), model = {{42}};
    image.bytes[0] ^= liar->habit == LIAR_OTHER_IMAGE;
    Thorax__V1__ClassProbability rows[2] = {THORAX__V1__CLASS_PROBABILITY__INIT,
                                            THORAX__V1__CLASS_PROBABILITY__INIT};
    Thorax__V1__ClassProbability *list[] = {&rows[0], &rows[1]};
    Thorax__V1__ModelIdentity identity = THORAX__V1__MODEL_IDENTITY__INIT;
    Thorax__V1__DiagnosisReply reply = THORAX__V1__DIAGNOSIS_REPLY__INIT;
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    rows[0].label = "NORMAL";
    rows[1].label = "PNEUMONIA";
    rows[1].probability = 1;
    identity.name = "liar";
    identity.digest = (ProtobufCBinaryData){sizeof model, model.bytes};
    reply.request_id = liar->habit == LIAR_OTHER_REQUEST ? "another" : request->request_id;
    reply.image_sha256 = (ProtobufCBinaryData){sizeof image, image.bytes};
    reply.status = THORAX__V1__STATUS__STATUS_OK;
    reply.decision = THORAX__V1__DECISION__DECISION_RULE_OUT;
    reply.model = &identity;
    reply.probabilities = list;
    reply.n_probabilities = liar->habit == LIAR_EMPTY ? 0 : 2;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REPLY;
    envelope.diagnosis_reply = &reply;
    pack_and_send(liar, message, &envelope);
    if (liar->habit == LIAR_TWICE) {
        pack_and_send(liar, message, &envelope);
    }
}

static void answer(struct liar *liar, const struct wire_message *message) {
    struct message_limits limits = {1 << 20, 64, 3};
    Thorax__V1__Envelope *envelope = (Thorax__V1__Envelope *)message_unpack(
        &thorax__v1__envelope__descriptor, message->frames[message->count - 1], &limits, NULL);
    assert_non_null(envelope);
    if (envelope->body_case == THORAX__V1__ENVELOPE__BODY_STATUS_REQUEST) {
        say_status(liar, message);
    } else {
        atomic_fetch_add(&liar->asked, 1);
        if (liar->habit == LIAR_GARBAGE) {
            reply_with(liar, message, (struct wire_frame){"\xff\xff\xff", 3});
        } else if (liar->habit != LIAR_SILENT) {
            say_answer(liar, message, envelope->diagnosis_request);
        }
    }
    message_free(&envelope->base);
}

static void *run(void *argument) {
    struct liar *liar = argument;
    struct wire_message message = {0};
    while (!atomic_load(&liar->stop)) {
        if (wire_receive(liar->socket, &message, 10, NULL)) {
            answer(liar, &message);
            wire_message_fini(&message);
        }
    }
    return NULL;
}

void liar_start(struct liar *liar, enum liar_habit habit) {
    static const char *const bind[] = {"tcp://127.0.0.1:*", NULL};
    struct wire_socket_spec spec = {.kind = WIRE_ROUTER, .bind = bind};
    memset(liar, 0, sizeof *liar);
    liar->habit = habit;
    assert_true(digest_start(NULL));
    liar->context = wire_context_create(1, NULL);
    assert_non_null(liar->context);
    liar->socket = wire_socket_open(liar->context, &spec, NULL);
    assert_non_null(liar->socket);
    assert_non_null(wire_socket_bound(liar->socket, 0, liar->endpoint, sizeof liar->endpoint));
    assert_int_equal(pthread_create(&liar->thread, NULL, run, liar), 0);
}

void liar_stop(struct liar *liar) {
    atomic_store(&liar->stop, true);
    pthread_join(liar->thread, NULL);
    wire_socket_close(liar->socket);
    wire_context_destroy(liar->context);
}
