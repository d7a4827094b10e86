#pragma once
#include "common/base/digest.h"
#include "common/base/error.h"
#include "proto/model.pb-c.h"
#include <stddef.h>
#include <stdint.h>

enum {
    DESCRIPTOR_NAME_SIZE = 101,          /**< of names and versions, with the final NUL */
    DESCRIPTOR_CHUNK_BYTES = 256 * 1024, /**< where the file is not so large that chunks must be larger */
    DESCRIPTOR_MIN_CHUNK_BYTES = 4096,
    DESCRIPTOR_MAX_CHUNK_BYTES = 1024 * 1024,
    DESCRIPTOR_MAX_CHUNKS =
        8192, /**< keeps a descriptor under 257 KiB, and a snapshot of many in one message */
};

/** A model file as it is announced and transferred: thorax.v1.ModelDescriptor, checked. */
struct descriptor {
    char name[DESCRIPTOR_NAME_SIZE], version[DESCRIPTOR_NAME_SIZE];
    struct digest digest; /**< of the file */
    int64_t size_bytes;
    int64_t chunk_bytes;
    int64_t created_ms;
    size_t chunk_count;
    uint8_t *packed; /**< owned: the ModelDescriptor as bytes, exactly as it arrived */
    size_t packed_size;
    struct digest packed_digest;
    const uint8_t *chunk_digests;                /**< 32 x chunk_count, inside the descriptor's own memory */
    struct Thorax__V1__ModelDescriptor *message; /**< owned: what chunk_digests points into */
};

/** True for a name of a model, a version or a member: 1 to 100 of [A-Za-z0-9._-], a letter or digit first. */
bool descriptor_name_ok(const char *text);

/** Describes the bytes of a model file. created_ms: since 1970. descriptor_fini it. */
bool descriptor_make(struct descriptor *descriptor, const char *name, const char *version, const void *data,
                     size_t size, struct error *err);

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
size_t descriptor_chunk_size(const struct descriptor *descriptor, int64_t offset);

bool descriptor_copy(struct descriptor *copy, const struct descriptor *from, struct error *err);
/** Takes a zeroed one. */
void descriptor_fini(struct descriptor *descriptor);
