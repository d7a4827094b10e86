#include "common/pool/descriptor.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LIMIT_BYTES = 1 << 30 };

static void must(bool holds) {
    if (!holds)
        abort();
}

/** The chunks of what was accepted lie one after the other and are the whole file. */
static void check_cut(const struct descriptor *descriptor, const struct descriptor_cut *cut) {
    int64_t offset = 0;
    must(descriptor->size_bytes >= 1 && descriptor->size_bytes <= LIMIT_BYTES);
    for (size_t i = 0; i < cut->count; i++) {
        size_t chunk = descriptor_chunk_size(cut, offset);
        must(chunk >= 1 && chunk <= DESCRIPTOR_MAX_CHUNK_BYTES);
        must(descriptor_chunk_index(cut, offset) == (int64_t)i);
        must(descriptor_chunk_offset(cut, (int64_t)i) == offset);
        offset += (int64_t)chunk;
    }
    must(offset == descriptor->size_bytes && descriptor_chunk_size(cut, offset) == 0);
}

static void check_chunks(const struct descriptor *descriptor) {
    check_cut(descriptor, &descriptor->cut);
    check_cut(descriptor, &descriptor->plain);
}

/** What was accepted is handed on as it came, with its signatures, and no signature is good by chance. */
static void check_copy(const struct descriptor *descriptor) {
    struct descriptor copy;
    if (!descriptor_copy(&copy, descriptor, NULL))
        abort();
    must(copy.packed_size == descriptor->packed_size &&
         memcmp(copy.packed, descriptor->packed, copy.packed_size) == 0);
    must(descriptor_signature_count(&copy) == descriptor_signature_count(descriptor));
    for (int i = 0; i < descriptor_signature_count(&copy); i++)
        must(descriptor_signature_good(&copy, i) == descriptor_signature_good(descriptor, i));
    descriptor_fini(&copy);
}

/** The bytes are a PublishedModel whose descriptor has the digest that it should have. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct descriptor descriptor;
    Thorax__V1__PublishedModel *model = thorax__v1__published_model__unpack(NULL, size, data);
    if (!model)
        return 0;
    struct digest right = digest_of(model->descriptor.data, model->descriptor.len);
    ProtobufCBinaryData came = model->descriptor_digest;
    model->descriptor_digest = (ProtobufCBinaryData){sizeof right.bytes, right.bytes};
    if (descriptor_parse(&descriptor, model, LIMIT_BYTES, NULL)) {
        check_chunks(&descriptor);
        check_copy(&descriptor);
        descriptor_fini(&descriptor);
    }
    model->descriptor_digest = came;
    thorax__v1__published_model__free_unpacked(model, NULL);
    return 0;
}
