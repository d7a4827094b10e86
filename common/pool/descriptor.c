#include "common/pool/descriptor.h"

#include "common/base/clock.h"
#include "common/base/text.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

bool descriptor_name_ok(const char *text) {
    size_t length = strlen(text);
    if (length < 1 || length >= DESCRIPTOR_NAME_SIZE || !isalnum((unsigned char)text[0]))
        return false;
    for (size_t i = 1; i < length; i++) {
        if (!isalnum((unsigned char)text[i]) && !strchr("._-", text[i]))
            return false;
    }
    return true;
}

/** What is wrong with a message's fields, or NULL. */
static const char *fault(const Thorax__V1__ModelDescriptor *message, int64_t max_bytes) {
    if (!descriptor_name_ok(message->name))
        return "its name is not 1 to 100 of [A-Za-z0-9._-]";
    if (!descriptor_name_ok(message->version))
        return "its version is not 1 to 100 of [A-Za-z0-9._-]";
    if (message->digest.len != 32)
        return "its digest has not 32 bytes";
    if (message->size_bytes < 1 || message->size_bytes > (uint64_t)max_bytes)
        return "its size is 0 or over the limit";
    if (message->chunk_bytes < DESCRIPTOR_MIN_CHUNK_BYTES ||
        message->chunk_bytes > DESCRIPTOR_MAX_CHUNK_BYTES)
        return "its chunk size is out of range";
    uint64_t count = (message->size_bytes + message->chunk_bytes - 1) / message->chunk_bytes;
    if (count > DESCRIPTOR_MAX_CHUNKS)
        return "it has too many chunks";
    if (message->chunk_digests.len != count * 32)
        return "its chunk digests do not fit its size";
    return NULL;
}

/** Fills in descriptor from its packed bytes, which it owns already. */
static bool unpack(struct descriptor *descriptor, int64_t max_bytes, struct error *err) {
    Thorax__V1__ModelDescriptor *message =
        thorax__v1__model_descriptor__unpack(NULL, descriptor->packed_size, descriptor->packed);
    if (!message)
        return error_set(err, ERROR_FORMAT, "a model's descriptor is not a ModelDescriptor");
    descriptor->message = message;
    const char *wrong = fault(message, max_bytes);
    if (wrong)
        return error_set(err, ERROR_FORMAT, "a model's descriptor: %s", wrong);
    text_copy(descriptor->name, sizeof descriptor->name, message->name);
    text_copy(descriptor->version, sizeof descriptor->version, message->version);
    memcpy(descriptor->digest.bytes, message->digest.data, 32);
    descriptor->size_bytes = (int64_t)message->size_bytes;
    descriptor->chunk_bytes = message->chunk_bytes;
    descriptor->created_ms = message->created_ms;
    descriptor->chunk_count = message->chunk_digests.len / 32;
    descriptor->chunk_digests = message->chunk_digests.data;
    descriptor->packed_digest = digest_of(descriptor->packed, descriptor->packed_size);
    return true;
}

/* Largest packed descriptor: its digests, and room for the other fields. */
enum { PACKED_LIMIT_BYTES = DESCRIPTOR_MAX_CHUNKS * 32 + 1024 };

/** Takes packed (from malloc), which may be NULL. */
static bool adopt(struct descriptor *descriptor, uint8_t *packed, size_t size, int64_t max_bytes,
                  struct error *err) {
    *descriptor = (struct descriptor){.packed = packed, .packed_size = size};
    if (!packed)
        return error_set(err, ERROR_MEMORY, "out of memory for a model's descriptor");
    if (unpack(descriptor, max_bytes, err))
        return true;
    descriptor_fini(descriptor);
    return false;
}

static uint8_t *duplicate(const void *data, size_t size) {
    uint8_t *copy = malloc(size ? size : 1);
    if (copy)
        memcpy(copy, data, size);
    return copy;
}

bool descriptor_parse(struct descriptor *descriptor, const Thorax__V1__PublishedModel *model,
                      int64_t max_bytes, struct error *err) {
    *descriptor = (struct descriptor){0};
    if (!model || model->descriptor_digest.len != 32 || model->descriptor.len == 0)
        return error_set(err, ERROR_FORMAT, "a model without a descriptor and its digest");
    if (model->descriptor.len > PACKED_LIMIT_BYTES)
        return error_set(err, ERROR_TOO_LARGE, "a model's descriptor of %zu bytes", model->descriptor.len);
    struct digest found = digest_of(model->descriptor.data, model->descriptor.len);
    if (memcmp(found.bytes, model->descriptor_digest.data, 32) != 0)
        return error_set(err, ERROR_FORMAT, "a model's descriptor does not match its digest");
    uint8_t *packed = duplicate(model->descriptor.data, model->descriptor.len);
    return adopt(descriptor, packed, model->descriptor.len, max_bytes, err);
}

static size_t chunk_bytes_for(size_t size) {
    size_t chunk_bytes = DESCRIPTOR_CHUNK_BYTES;
    while (chunk_bytes < DESCRIPTOR_MAX_CHUNK_BYTES && size / chunk_bytes >= DESCRIPTOR_MAX_CHUNKS)
        chunk_bytes *= 2;
    return chunk_bytes;
}

/** Returns owned: 32 bytes for each chunk of data, or NULL where memory ended. */
static uint8_t *digest_chunks(const uint8_t *data, size_t size, size_t chunk_bytes, size_t count) {
    uint8_t *digests = malloc(count * 32);
    for (size_t i = 0; digests && i < count; i++) {
        size_t at = i * chunk_bytes, left = size - at;
        struct digest chunk = digest_of(data + at, left < chunk_bytes ? left : chunk_bytes);
        memcpy(digests + i * 32, chunk.bytes, 32);
    }
    return digests;
}

bool descriptor_make(struct descriptor *descriptor, const char *name, const char *version, const void *data,
                     size_t size, struct error *err) {
    *descriptor = (struct descriptor){0};
    if (!descriptor_name_ok(name) || !descriptor_name_ok(version))
        return error_set(err, ERROR_INVALID, "a model's name and version are 1 to 100 of [A-Za-z0-9._-]");
    if (size < 1 || size > INT64_MAX)
        return error_set(err, ERROR_INVALID, "an empty model file");
    size_t chunk_bytes = chunk_bytes_for(size), count = (size + chunk_bytes - 1) / chunk_bytes;
    uint8_t *digests = digest_chunks(data, size, chunk_bytes, count);
    if (!digests)
        return error_set(err, ERROR_MEMORY, "out of memory for a model's descriptor");
    struct digest whole = digest_of(data, size);
    Thorax__V1__ModelDescriptor message;
    thorax__v1__model_descriptor__init(&message);
    message.name = (char *)name;
    message.version = (char *)version;
    message.digest = (ProtobufCBinaryData){32, whole.bytes};
    message.size_bytes = size;
    message.chunk_bytes = (uint32_t)chunk_bytes;
    message.chunk_digests = (ProtobufCBinaryData){count * 32, digests};
    message.created_ms = clock_wall_ms();
    size_t packed_size = thorax__v1__model_descriptor__get_packed_size(&message);
    uint8_t *packed = malloc(packed_size);
    if (packed)
        thorax__v1__model_descriptor__pack(&message, packed);
    free(digests);
    return adopt(descriptor, packed, packed_size, (int64_t)size, err);
}

void descriptor_message(const struct descriptor *descriptor, Thorax__V1__PublishedModel *out) {
    thorax__v1__published_model__init(out);
    out->descriptor = (ProtobufCBinaryData){descriptor->packed_size, descriptor->packed};
    out->descriptor_digest = (ProtobufCBinaryData){32, (uint8_t *)descriptor->packed_digest.bytes};
}

size_t descriptor_chunk_size(const struct descriptor *descriptor, int64_t offset) {
    if (offset < 0 || offset >= descriptor->size_bytes || offset % descriptor->chunk_bytes != 0)
        return 0;
    int64_t left = descriptor->size_bytes - offset;
    return (size_t)(left < descriptor->chunk_bytes ? left : descriptor->chunk_bytes);
}

bool descriptor_copy(struct descriptor *copy, const struct descriptor *from, struct error *err) {
    return adopt(copy, duplicate(from->packed, from->packed_size), from->packed_size, from->size_bytes, err);
}

void descriptor_fini(struct descriptor *descriptor) {
    if (descriptor->message)
        thorax__v1__model_descriptor__free_unpacked(descriptor->message, NULL);
    free(descriptor->packed);
    *descriptor = (struct descriptor){0};
}
