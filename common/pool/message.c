#include "common/pool/message.h"

#include "common/pool/message_check.h"

#include <stdlib.h>
#include <string.h>

/* Small repeated messages grow when they are unpacked: the most that a frame may grow to, per byte of its own
 * limit. */
enum { GROWTH_LIMIT = 4, MAX_STATE_BYTES = 64 << 20 };

struct budget {
    size_t left;
};

static void *budget_alloc(void *context, size_t size) {
    struct budget *budget = context;
    if (size > budget->left)
        return NULL;
    budget->left -= size;
    return malloc(size);
}

static void budget_free(void *context, void *memory) {
    (void)context;
    free(memory);
}

struct packed pool_pack(const ProtobufCMessage *message) {
    struct packed packed = {.size = protobuf_c_message_get_packed_size(message)};
    packed.data = malloc(packed.size ? packed.size : 1);
    if (packed.data)
        protobuf_c_message_pack(message, packed.data);
    return packed;
}

void pool_free(void *message) {
    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
}

static void *unpack_up_to(size_t limit, const ProtobufCMessageDescriptor *type, const void *data, size_t size,
                          struct error *err) {
    if (size == 0 || size > limit) {
        error_set(err, size ? ERROR_TOO_LARGE : ERROR_FORMAT, "a %s of %zu bytes", type->short_name, size);
        return NULL;
    }
    struct budget budget = {limit * GROWTH_LIMIT};
    ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
    void *message = protobuf_c_message_unpack(type, &allocator, size, data);
    if (!message)
        error_set(err, ERROR_FORMAT, "%zu bytes that are no %s", size, type->short_name);
    return message;
}

static void *unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t size,
                    struct error *err) {
    return unpack_up_to(POOL_MAX_MESSAGE_BYTES, type, data, size, err);
}

/** Hands message on where nothing is wrong with it, else frees it and says what is. */
static void *checked(ProtobufCMessage *message, uint32_t version, const char *wrong, struct error *err) {
    if (version == POOL_PROTOCOL_VERSION && !wrong)
        return message;
    if (version != POOL_PROTOCOL_VERSION)
        error_set(err, ERROR_UNSUPPORTED, "protocol version %u, this program speaks %d", version,
                  POOL_PROTOCOL_VERSION);
    else
        error_set(err, ERROR_FORMAT, "a %s: %s", message->descriptor->short_name, wrong);
    pool_free(message);
    return NULL;
}

Thorax__V1__Announcement *pool_unpack_announcement(const void *data, size_t size, struct error *err) {
    Thorax__V1__Announcement *message = unpack(&thorax__v1__announcement__descriptor, data, size, err);
    return message ? checked(&message->base, message->protocol_version, pool_announcement_fault(message), err)
                   : NULL;
}

Thorax__V1__ControlRequest *pool_unpack_request(const void *data, size_t size, struct error *err) {
    Thorax__V1__ControlRequest *message = unpack(&thorax__v1__control_request__descriptor, data, size, err);
    return message ? checked(&message->base, message->protocol_version, pool_request_fault(message), err) : NULL;
}

Thorax__V1__ControlReply *pool_unpack_reply(const void *data, size_t size, struct error *err) {
    Thorax__V1__ControlReply *message = unpack(&thorax__v1__control_reply__descriptor, data, size, err);
    return message ? checked(&message->base, message->protocol_version, pool_reply_fault(message), err) : NULL;
}

Thorax__V1__BlobRequest *pool_unpack_blob_request(const void *data, size_t size, struct error *err) {
    Thorax__V1__BlobRequest *message = unpack(&thorax__v1__blob_request__descriptor, data, size, err);
    return message ? checked(&message->base, message->protocol_version, pool_blob_request_fault(message), err) : NULL;
}

Thorax__V1__BlobChunk *pool_unpack_blob_chunk(const void *data, size_t size, struct error *err) {
    Thorax__V1__BlobChunk *message = unpack(&thorax__v1__blob_chunk__descriptor, data, size, err);
    return message ? checked(&message->base, message->protocol_version, pool_blob_chunk_fault(message), err) : NULL;
}

Thorax__V1__RolloutRecord *pool_unpack_rollout(const void *data, size_t size, struct error *err) {
    return unpack_up_to(MAX_STATE_BYTES, &thorax__v1__rollout_record__descriptor, data, size, err);
}

Thorax__V1__PublisherState *pool_unpack_state(const void *data, size_t size, struct error *err) {
    return unpack_up_to(MAX_STATE_BYTES, &thorax__v1__publisher_state__descriptor, data, size, err);
}

char *pool_text(char *out, size_t size, const char *text) {
    size_t used = 0;
    for (; text[used] && used + 1 < size; used++)
        out[used] = text[used] >= 0x20 && text[used] < 0x7f ? text[used] : '?';
    out[used] = '\0';
    return out;
}

bool pool_digest(const ProtobufCBinaryData *field, struct digest *out) {
    if (field->len != sizeof out->bytes)
        return false;
    memcpy(out->bytes, field->data, sizeof out->bytes);
    return true;
}

ProtobufCBinaryData pool_digest_field(const struct digest *digest) {
    return (ProtobufCBinaryData){sizeof digest->bytes, (uint8_t *)digest->bytes};
}

/* One row per code that travels; the others become INTERNAL. */
static const struct {
    enum error_code error;
    Thorax__V1__RefusalCode refusal;
} REFUSALS[] = {
    {ERROR_INTERNAL, THORAX__V1__REFUSAL_CODE__REFUSAL_INTERNAL},
    {ERROR_INVALID, THORAX__V1__REFUSAL_CODE__REFUSAL_INVALID},
    {ERROR_FORMAT, THORAX__V1__REFUSAL_CODE__REFUSAL_INVALID},
    {ERROR_STATE, THORAX__V1__REFUSAL_CODE__REFUSAL_INVALID},
    {ERROR_UNSUPPORTED, THORAX__V1__REFUSAL_CODE__REFUSAL_UNSUPPORTED_VERSION},
    {ERROR_TOO_LARGE, THORAX__V1__REFUSAL_CODE__REFUSAL_TOO_LARGE},
    {ERROR_BUSY, THORAX__V1__REFUSAL_CODE__REFUSAL_BUSY},
    {ERROR_NOT_FOUND, THORAX__V1__REFUSAL_CODE__REFUSAL_NOT_FOUND},
    {ERROR_DENIED, THORAX__V1__REFUSAL_CODE__REFUSAL_DENIED},
};

bool pool_refusal_error(const Thorax__V1__Refusal *refusal, struct error *err) {
    enum error_code code = ERROR_INTERNAL;
    for (size_t i = 0; i < sizeof REFUSALS / sizeof *REFUSALS; i++) {
        if (REFUSALS[i].refusal == refusal->code) {
            code = REFUSALS[i].error;
            break;
        }
    }
    return error_set(err, code, "the other side refused: %s", refusal->message);
}

Thorax__V1__RefusalCode pool_refusal_code(enum error_code code) {
    for (size_t i = 0; i < sizeof REFUSALS / sizeof *REFUSALS; i++) {
        if (REFUSALS[i].error == code)
            return REFUSALS[i].refusal;
    }
    return THORAX__V1__REFUSAL_CODE__REFUSAL_INTERNAL;
}
