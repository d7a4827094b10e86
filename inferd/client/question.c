#include "inferd/client/question.h"
#include "common/wire/message.h"
#include <stdlib.h>
#include <string.h>

enum {
    HEAD_ROOM = 128, /* five heads of at most MESSAGE_FIELD_HEAD_MAX bytes, and a digest */
    FIELD_VERSION = 1,
    FIELD_REQUEST = 2, /* of Envelope */
    FIELD_TIMEOUT = 5,
    FIELD_PIN = 12, /* of DiagnosisRequest */
};

static ProtobufCBinaryData picture_of(const Thorax__V1__DiagnosisRequest *request) {
    switch (request->image_case) {
    case THORAX__V1__DIAGNOSIS_REQUEST__IMAGE_ENCODED:
        return request->encoded;
    case THORAX__V1__DIAGNOSIS_REQUEST__IMAGE_RAW:
        return request->raw->data;
    default:
        return (ProtobufCBinaryData){0, NULL};
    }
}

static bool check(const Thorax__V1__DiagnosisRequest *request, struct error *err) {
    size_t id = strlen(request->request_id), key = request->routing_key.len, pin = request->pinned_model.len;
    if (id == 0 || id >= QUESTION_ID_SIZE) {
        return error_set(err, ERROR_INVALID, "request_id: %zu bytes; expected 1 to %d", id,
                         QUESTION_ID_SIZE - 1);
    }
    if (key > QUESTION_KEY_MAX) {
        return error_set(err, ERROR_INVALID, "routing_key: more than %d bytes", QUESTION_KEY_MAX);
    }
    if (pin != 0 && pin != sizeof(struct digest)) {
        return error_set(err, ERROR_INVALID, "pinned_model: %zu bytes; expected none or %zu", pin,
                         sizeof(struct digest));
    }
    return picture_of(request).len > 0 ||
           error_set(err, ERROR_INVALID, "image: expected encoded or raw, not empty");
}

/** A question about the request, with room for its packed fields. */
static struct question *create(const Thorax__V1__DiagnosisRequest *request, size_t packed_bytes,
                               struct error *err) {
    if (!check(request, err)) {
        return NULL;
    }
    struct question *question = calloc(1, sizeof *question);
    if (!question || !(question->buffer = malloc(HEAD_ROOM + packed_bytes))) {
        error_set(err, ERROR_MEMORY, "no memory for a request of %zu bytes", packed_bytes);
        question_destroy(question);
        return NULL;
    }
    ProtobufCBinaryData picture = picture_of(request);
    memcpy(question->request_id, request->request_id, strlen(request->request_id) + 1);
    question->image = digest_of(picture.data, picture.len);
    question->routing_key_size = request->routing_key.len;
    if (request->routing_key.len) {
        memcpy(question->routing_key, request->routing_key.data, request->routing_key.len);
    }
    question->particular = *request->model && strcmp(request->model, "stable") != 0;
    question->urgent = request->priority == THORAX__V1__PRIORITY__PRIORITY_STAT;
    question->has_pin = request->pinned_model.len > 0 && !question->particular;
    if (question->has_pin) {
        memcpy(question->pin.bytes, request->pinned_model.data, sizeof question->pin.bytes);
    }
    return question;
}

struct question *question_pack(const Thorax__V1__DiagnosisRequest *request, struct error *err) {
    Thorax__V1__DiagnosisRequest lasting = *request; /* what does not change between sendings */
    lasting.timeout_ms = 0;
    lasting.pinned_model = (ProtobufCBinaryData){0, NULL};
    size_t size = thorax__v1__diagnosis_request__get_packed_size(&lasting);
    struct question *question = create(request, size, err);
    if (question) {
        question->size_bytes = thorax__v1__diagnosis_request__pack(&lasting, question->buffer + HEAD_ROOM);
    }
    return question;
}

struct question *question_take(struct wire_frame packed, const Thorax__V1__DiagnosisRequest *request,
                               struct error *err) {
    static const uint32_t changing[] = {FIELD_TIMEOUT, FIELD_PIN};
    struct question *question = create(request, packed.size, err);
    if (question) {
        question->size_bytes = message_copy_without(packed, changing, 2, question->buffer + HEAD_ROOM);
    }
    return question;
}

void question_destroy(struct question *question) {
    if (question) {
        free(question->buffer);
        free(question);
    }
}

struct wire_frame question_envelope(struct question *question, uint32_t timeout_ms) {
    uint8_t fields[HEAD_ROOM], head[2 * MESSAGE_FIELD_HEAD_MAX];
    size_t field_size = message_put_varint(FIELD_TIMEOUT, timeout_ms, fields);
    if (question->has_pin) {
        field_size += message_put_head(FIELD_PIN, sizeof question->pin.bytes, fields + field_size);
        memcpy(fields + field_size, question->pin.bytes, sizeof question->pin.bytes);
        field_size += sizeof question->pin.bytes;
    }
    size_t head_size = message_put_varint(FIELD_VERSION, MESSAGE_PROTOCOL_VERSION, head);
    head_size += message_put_head(FIELD_REQUEST, field_size + question->size_bytes, head + head_size);
    uint8_t *start = question->buffer + HEAD_ROOM - field_size - head_size;
    memcpy(start, head, head_size);
    memcpy(start + head_size, fields, field_size);
    return (struct wire_frame){start, head_size + field_size + question->size_bytes};
}
