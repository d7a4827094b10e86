#include "common/pool/descriptor.h"

#include "common/base/clock.h"
#include "common/base/text.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* Larger files are only cut plainly, so that a snapshot of many models stays one message. */
enum { HEADED_MAX_CHUNKS = 2048 };
enum { PROVENANCE_BYTES = DESCRIPTOR_PROVENANCE_SIZE - 1, PRECISIONS_MAX = 8 };

/* Signatures cover these bytes, with their final NUL, and the packed descriptor: no signature of ours over
 * anything else can be passed off as one of a model. */
static const char signed_title[] = "thorax.v1.ModelDescriptor";

/** On the heap, so that descriptor_message may point into it wherever the descriptor itself is moved to. */
struct descriptor_signatures {
    int count;
    Thorax__V1__Signature messages[DESCRIPTOR_MAX_SIGNATURES], *list[DESCRIPTOR_MAX_SIGNATURES];
    uint8_t keys[DESCRIPTOR_MAX_SIGNATURES][SIGNATURE_PUBLIC_SIZE];
    uint8_t signatures[DESCRIPTOR_MAX_SIGNATURES][SIGNATURE_SIZE];
};

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

/** Into how many chunks a file is cut. */
static uint64_t chunks_of(uint64_t size, uint64_t head_bytes, uint64_t chunk_bytes) {
    return (head_bytes > 0) + (size - head_bytes + chunk_bytes - 1) / chunk_bytes;
}

static bool text_fits(const char *text, size_t limit) {
    size_t length = strnlen(text, limit + 1);
    return length <= limit && text_is_utf8(text, length);
}

/** Of the fields that say what the model is, not how it travels. */
static const char *fault_of_rest(const Thorax__V1__ModelDescriptor *message) {
    if ((message->weights_digest.len != 0 && message->weights_digest.len != 32) ||
        (message->parent_digest.len != 0 && message->parent_digest.len != 32))
        return "a digest has not 32 bytes";
    if (!text_fits(message->provenance, PROVENANCE_BYTES))
        return "its provenance is too long or no UTF-8";
    const Thorax__V1__ModelNeeds *needs = message->needs;
    if (!needs)
        return NULL;
    if (!text_fits(needs->architecture, DESCRIPTOR_NAME_SIZE) || needs->n_precisions > PRECISIONS_MAX)
        return "what it needs is too long";
    for (size_t i = 0; i < needs->n_precisions; i++) {
        if (!text_fits(needs->precisions[i], DESCRIPTOR_NAME_SIZE))
            return "what it needs is too long";
    }
    return NULL;
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
    if (message->head_bytes > DESCRIPTOR_MAX_CHUNK_BYTES || message->head_bytes >= message->size_bytes)
        return "its head is larger than a chunk may be, or than the file";
    uint64_t plain = chunks_of(message->size_bytes, 0, message->chunk_bytes);
    uint64_t headed = chunks_of(message->size_bytes, message->head_bytes, message->chunk_bytes);
    if (plain > DESCRIPTOR_MAX_CHUNKS || (message->head_bytes && headed > HEADED_MAX_CHUNKS))
        return "it has too many chunks";
    if (message->chunk_digests.len != plain * 32 ||
        message->headed_digests.len != (message->head_bytes ? headed * 32 : 0))
        return "its chunk digests do not fit its size";
    return fault_of_rest(message);
}

static struct descriptor_cut cut_of(const Thorax__V1__ModelDescriptor *message, int64_t head_bytes,
                                    const ProtobufCBinaryData *digests) {
    return (struct descriptor_cut){.size_bytes = (int64_t)message->size_bytes,
                                   .head_bytes = head_bytes,
                                   .chunk_bytes = message->chunk_bytes,
                                   .count = digests->len / 32,
                                   .digests = digests->data};
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
    descriptor->created_ms = message->created_ms;
    descriptor->plain = cut_of(message, 0, &message->chunk_digests);
    descriptor->cut = message->head_bytes ? cut_of(message, message->head_bytes, &message->headed_digests)
                                          : descriptor->plain;
    descriptor->packed_digest = digest_of(descriptor->packed, descriptor->packed_size);
    return true;
}

/* Largest packed descriptor: its digests, and room for the other fields. */
enum { PACKED_LIMIT_BYTES = (DESCRIPTOR_MAX_CHUNKS + HEADED_MAX_CHUNKS) * 32 + 4096 };

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

static bool add_signature(struct descriptor *descriptor, const uint8_t *key, const uint8_t *signature,
                          struct error *err) {
    if (!descriptor->signatures && !(descriptor->signatures = calloc(1, sizeof *descriptor->signatures)))
        return error_set(err, ERROR_MEMORY, "out of memory for a signature");
    struct descriptor_signatures *all = descriptor->signatures;
    if (all->count == DESCRIPTOR_MAX_SIGNATURES)
        return error_set(err, ERROR_TOO_LARGE, "a model has more than %d signatures",
                         DESCRIPTOR_MAX_SIGNATURES);
    int i = all->count++;
    memcpy(all->keys[i], key, SIGNATURE_PUBLIC_SIZE);
    memcpy(all->signatures[i], signature, SIGNATURE_SIZE);
    thorax__v1__signature__init(&all->messages[i]);
    all->messages[i].key = (ProtobufCBinaryData){SIGNATURE_PUBLIC_SIZE, all->keys[i]};
    all->messages[i].signature = (ProtobufCBinaryData){SIGNATURE_SIZE, all->signatures[i]};
    all->list[i] = &all->messages[i];
    return true;
}

static bool take_signatures(struct descriptor *descriptor, const Thorax__V1__PublishedModel *model,
                            struct error *err) {
    for (size_t i = 0; i < model->n_signatures; i++) {
        const Thorax__V1__Signature *signature = model->signatures[i];
        if (signature->key.len != SIGNATURE_PUBLIC_SIZE || signature->signature.len != SIGNATURE_SIZE)
            return error_set(err, ERROR_FORMAT, "a model's signature has not the length of one");
        if (!add_signature(descriptor, signature->key.data, signature->signature.data, err))
            return false;
    }
    return true;
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
    if (!adopt(descriptor, packed, model->descriptor.len, max_bytes, err))
        return false;
    if (take_signatures(descriptor, model, err))
        return true;
    descriptor_fini(descriptor);
    return false;
}

static size_t chunk_bytes_for(size_t size) {
    size_t chunk_bytes = DESCRIPTOR_CHUNK_BYTES;
    while (chunk_bytes < DESCRIPTOR_MAX_CHUNK_BYTES && size / chunk_bytes >= DESCRIPTOR_MAX_CHUNKS)
        chunk_bytes *= 2;
    return chunk_bytes;
}

/** Fills in out with owned memory: 32 bytes for each chunk of the file. False where memory ended. */
static bool digest_chunks(const struct descriptor_spec *spec, size_t head, size_t chunk_bytes,
                          ProtobufCBinaryData *out) {
    size_t count = chunks_of(spec->size, head, chunk_bytes), at = 0;
    *out = (ProtobufCBinaryData){count * 32, malloc(count * 32)};
    for (size_t i = 0; out->data && i < count; i++) {
        size_t left = spec->size - at, size = i == 0 && head ? head : chunk_bytes;
        size = left < size ? left : size;
        struct digest chunk = digest_of((const uint8_t *)spec->data + at, size);
        memcpy(out->data + i * 32, chunk.bytes, 32);
        at += size;
    }
    return out->data;
}

/** The header to cut at; 0: the file is only cut plainly. */
static size_t head_for(const struct descriptor_spec *spec, size_t chunk_bytes) {
    bool fits = spec->head_bytes > 0 && spec->head_bytes <= DESCRIPTOR_MAX_CHUNK_BYTES &&
                (size_t)spec->head_bytes < spec->size;
    return fits && chunks_of(spec->size, (uint64_t)spec->head_bytes, chunk_bytes) <= HEADED_MAX_CHUNKS
               ? (size_t)spec->head_bytes
               : 0;
}

static ProtobufCBinaryData digest_field(const struct digest *digest) {
    return digest ? (ProtobufCBinaryData){32, (uint8_t *)(uintptr_t)digest->bytes}
                  : (ProtobufCBinaryData){0, NULL};
}

/** Packs the descriptor of a file whose chunks are digested. Returns owned, NULL where memory ended. */
static uint8_t *pack(const struct descriptor_spec *spec, Thorax__V1__ModelDescriptor *message, size_t *size) {
    struct digest whole = digest_of(spec->data, spec->size);
    Thorax__V1__ModelNeeds needs;
    char *precision = text_for_packing(spec->precision);
    thorax__v1__model_needs__init(&needs);
    needs.architecture = text_for_packing(spec->architecture);
    needs.precisions = &precision;
    needs.n_precisions = spec->precision ? 1 : 0;
    needs.memory_bytes = spec->memory_bytes;
    message->name = text_for_packing(spec->name);
    message->version = text_for_packing(spec->version);
    message->digest = digest_field(&whole);
    message->size_bytes = spec->size;
    message->created_ms = clock_wall_ms();
    message->weights_digest = digest_field(spec->weights);
    message->parent_digest = digest_field(spec->parent);
    message->needs = spec->architecture ? &needs : NULL;
    message->provenance = text_for_packing(spec->provenance);
    *size = thorax__v1__model_descriptor__get_packed_size(message);
    uint8_t *packed = malloc(*size);
    if (packed)
        thorax__v1__model_descriptor__pack(message, packed);
    return packed;
}

bool descriptor_make(struct descriptor *descriptor, const struct descriptor_spec *spec, struct error *err) {
    *descriptor = (struct descriptor){0};
    if (!descriptor_name_ok(spec->name) || !descriptor_name_ok(spec->version))
        return error_set(err, ERROR_INVALID, "a model's name and version are 1 to 100 of [A-Za-z0-9._-]");
    if (spec->size < 1 || spec->size > INT64_MAX)
        return error_set(err, ERROR_INVALID, "an empty model file");
    Thorax__V1__ModelDescriptor message;
    thorax__v1__model_descriptor__init(&message);
    message.chunk_bytes = (uint32_t)chunk_bytes_for(spec->size);
    message.head_bytes = (uint32_t)head_for(spec, message.chunk_bytes);
    bool ok = digest_chunks(spec, 0, message.chunk_bytes, &message.chunk_digests) &&
              (!message.head_bytes ||
               digest_chunks(spec, message.head_bytes, message.chunk_bytes, &message.headed_digests));
    size_t packed_size = 0;
    uint8_t *packed = ok ? pack(spec, &message, &packed_size) : NULL;
    free(message.chunk_digests.data);
    free(message.headed_digests.data);
    return adopt(descriptor, packed, packed_size, (int64_t)spec->size, err);
}

void descriptor_message(const struct descriptor *descriptor, Thorax__V1__PublishedModel *out) {
    thorax__v1__published_model__init(out);
    out->descriptor = (ProtobufCBinaryData){descriptor->packed_size, descriptor->packed};
    out->descriptor_digest = (ProtobufCBinaryData){32, (uint8_t *)descriptor->packed_digest.bytes};
    if (descriptor->signatures) {
        out->n_signatures = (size_t)descriptor->signatures->count;
        out->signatures = descriptor->signatures->list;
    }
}

int64_t descriptor_chunk_index(const struct descriptor_cut *cut, int64_t offset) {
    int64_t head = cut->head_bytes;
    if (offset < 0 || offset >= cut->size_bytes)
        return -1;
    if (offset == 0)
        return 0;
    if (offset < head || (offset - head) % cut->chunk_bytes != 0)
        return -1;
    return (head > 0) + (offset - head) / cut->chunk_bytes;
}

int64_t descriptor_chunk_offset(const struct descriptor_cut *cut, int64_t index) {
    int64_t head = cut->head_bytes, whole = index - (head > 0);
    int64_t offset = index <= 0 ? 0 : head + whole * cut->chunk_bytes;
    return offset < cut->size_bytes ? offset : cut->size_bytes;
}

size_t descriptor_chunk_size(const struct descriptor_cut *cut, int64_t offset) {
    int64_t index = descriptor_chunk_index(cut, offset);
    return index < 0 ? 0 : (size_t)(descriptor_chunk_offset(cut, index + 1) - offset);
}

/* ---- signatures ---- */

/** What is signed: owned, *size bytes; NULL where memory ended. */
static uint8_t *signed_bytes(const struct descriptor *descriptor, size_t *size) {
    *size = sizeof signed_title + descriptor->packed_size;
    uint8_t *bytes = malloc(*size);
    if (bytes) {
        memcpy(bytes, signed_title, sizeof signed_title);
        memcpy(bytes + sizeof signed_title, descriptor->packed, descriptor->packed_size);
    }
    return bytes;
}

bool descriptor_sign(struct descriptor *descriptor, const struct signature_key *key, struct error *err) {
    uint8_t signature[SIGNATURE_SIZE];
    size_t size;
    uint8_t *bytes = signed_bytes(descriptor, &size);
    if (!bytes)
        return error_set(err, ERROR_MEMORY, "out of memory for a signature");
    signature_make(key, bytes, size, signature);
    free(bytes);
    return add_signature(descriptor, key->public_key, signature, err);
}

int descriptor_signature_count(const struct descriptor *descriptor) {
    return descriptor->signatures ? descriptor->signatures->count : 0;
}

const uint8_t *descriptor_signer(const struct descriptor *descriptor, int i) {
    return descriptor->signatures->keys[i];
}

bool descriptor_signature_good(const struct descriptor *descriptor, int i) {
    size_t size;
    uint8_t *bytes = signed_bytes(descriptor, &size);
    const struct descriptor_signatures *all = descriptor->signatures;
    bool good = bytes && signature_verify(all->keys[i], all->signatures[i], bytes, size);
    free(bytes);
    return good;
}

/* ---- life ---- */

bool descriptor_copy(struct descriptor *copy, const struct descriptor *from, struct error *err) {
    if (!adopt(copy, duplicate(from->packed, from->packed_size), from->packed_size, from->size_bytes, err))
        return false;
    for (int i = 0; i < descriptor_signature_count(from); i++) {
        if (!add_signature(copy, from->signatures->keys[i], from->signatures->signatures[i], err)) {
            descriptor_fini(copy);
            return false;
        }
    }
    return true;
}

void descriptor_fini(struct descriptor *descriptor) {
    if (descriptor->message)
        thorax__v1__model_descriptor__free_unpacked(descriptor->message, NULL);
    free(descriptor->packed);
    free(descriptor->signatures);
    *descriptor = (struct descriptor){0};
}
