#pragma once
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/pool/signature.h"
#include "proto/model.pb-c.h"
#include <stddef.h>
#include <stdint.h>

enum {
    DESCRIPTOR_NAME_SIZE = 101,          /**< of names and versions, with the final NUL */
    DESCRIPTOR_CHUNK_BYTES = 256 * 1024, /**< where the file is not so large that chunks must be larger */
    DESCRIPTOR_MIN_CHUNK_BYTES = 4096,
    DESCRIPTOR_MAX_CHUNK_BYTES = 1024 * 1024,
    DESCRIPTOR_PROVENANCE_SIZE = 513,
    DESCRIPTOR_MAX_SIGNATURES = 4,
    DESCRIPTOR_MAX_CHUNKS =
        8192, /**< keeps a descriptor under 257 KiB, and a snapshot of many in one message */
};

/** A way to cut a file into chunks. */
struct descriptor_cut {
    int64_t size_bytes;  /**< of the file */
    int64_t head_bytes;  /**< of the first chunk, where it differs from the others; 0: it does not */
    int64_t chunk_bytes; /**< of every other chunk but the last */
    size_t count;
    const uint8_t *digests; /**< 32 x count, inside the descriptor's own memory */
};

/** Who signed a descriptor. Opaque; owned by it. */
struct descriptor_signatures;

/** A model file as it is announced and transferred: thorax.v1.ModelDescriptor, checked. */
struct descriptor {
    char name[DESCRIPTOR_NAME_SIZE], version[DESCRIPTOR_NAME_SIZE];
    struct digest digest; /**< of the file */
    int64_t size_bytes;
    struct descriptor_cut cut;   /**< how the file is fetched: at the end of its header, where it can be */
    struct descriptor_cut plain; /**< how version 0.1 fetches it: in chunks that are all alike; else as cut */
    int64_t created_ms;
    uint8_t *packed; /**< owned: the ModelDescriptor as bytes, exactly as it arrived */
    size_t packed_size;
    struct digest packed_digest;
    struct Thorax__V1__ModelDescriptor *message; /**< owned: all fields; what the cuts point into */
    struct descriptor_signatures *signatures;    /**< owned; NULL: unsigned */
};

/** True for a name of a model, a version or a member: 1 to 100 of [A-Za-z0-9._-], a letter or digit first. */
bool descriptor_name_ok(const char *text);

/** What a descriptor says of a file. Borrows everything. */
struct descriptor_spec {
    const char *name, *version;
    const void *data; /**< the file's bytes */
    size_t size;
    int64_t head_bytes; /**< as in struct descriptor; one that is too large for a chunk is taken as 0 */
    const struct digest *weights;         /**< NULL: unknown */
    const struct digest *parent;          /**< NULL: none, or unknown */
    const char *architecture, *precision; /**< what it takes to run; NULL: nothing is said */
    uint64_t memory_bytes;
    const char *provenance; /**< for people, at most 512 bytes of UTF-8; NULL: nothing */
};

/** Describes a model file, now. descriptor_fini it. */
bool descriptor_make(struct descriptor *descriptor, const struct descriptor_spec *spec, struct error *err);

/**
 * Checks what arrived from the network or the disk: its digest, every field's range, and that the chunks add
 * up to a file of at most max_bytes. Fills in descriptor (descriptor_fini it), or leaves it zeroed and says
 * what is wrong.
 */
bool descriptor_parse(struct descriptor *descriptor, const Thorax__V1__PublishedModel *model,
                      int64_t max_bytes, struct error *err);

/** The message to send. Borrows from descriptor. */
void descriptor_message(const struct descriptor *descriptor, Thorax__V1__PublishedModel *out);

/** The length of the chunk at offset; 0 where no chunk starts there. */
size_t descriptor_chunk_size(const struct descriptor_cut *cut, int64_t offset);
/** Which chunk starts at offset, from 0; -1: none. */
int64_t descriptor_chunk_index(const struct descriptor_cut *cut, int64_t offset);
/** Where chunk index starts; the file's size for index count. */
int64_t descriptor_chunk_offset(const struct descriptor_cut *cut, int64_t index);

/** Adds a signature. ERROR_TOO_LARGE: there are DESCRIPTOR_MAX_SIGNATURES already. */
bool descriptor_sign(struct descriptor *descriptor, const struct signature_key *key, struct error *err);
/** How many signatures there are, good or bad. */
int descriptor_signature_count(const struct descriptor *descriptor);
/** The i-th signature's public key. */
const uint8_t *descriptor_signer(const struct descriptor *descriptor, int i);
/** Whether the i-th signature is one of exactly this descriptor by the key that it names. */
bool descriptor_signature_good(const struct descriptor *descriptor, int i);

bool descriptor_copy(struct descriptor *copy, const struct descriptor *from, struct error *err);
/** Takes a zeroed one. */
void descriptor_fini(struct descriptor *descriptor);
