#pragma once
#include "common/store/store.h"

/**
 * A file that arrives in chunks, each checked against its digest before it is written. It can be closed at
 * any point and opened again later, by another process too: what is there is checked anew and cut back to the
 * last good chunk. Only commit, which checks the whole file's digest, makes it an object. One thread at a
 * time.
 */
struct partial;

struct partial_spec {
    struct digest digest;         /**< of the whole file */
    int64_t size_bytes;           /**< 1 to the store's limit */
    int64_t head_bytes;           /**< of the first chunk, where it differs from the others; 0: it does not */
    int64_t chunk_bytes;          /**< of every other chunk but the last; at least 1 */
    const uint8_t *chunk_digests; /**< copied: 32 bytes for each chunk */
};

/**
 * Opens a new file, or the one that an earlier open left. The room is reserved on disk at once, so that a
 * full disk is noticed before anything is transferred. Returns owned. ERROR_BUSY where it is open already.
 */
struct partial *partial_open(struct store *store, const struct partial_spec *spec, struct error *err);
/** Bytes that are here: where the next chunk starts. */
int64_t partial_offset(const struct partial *partial);
bool partial_complete(const struct partial *partial);
/** Appends exactly the next chunk. ERROR_FORMAT: wrong length or digest, and nothing was written; ERROR_IO:
 * disk. */
bool partial_append(struct partial *partial, const void *data, size_t size, struct error *err);
/**
 * Makes the complete file an object; then only close is left to call. ERROR_FORMAT: all chunks were right but
 * the whole is not what spec.digest says (a wrong descriptor); the file is then removed.
 */
bool partial_commit(struct partial *partial, struct error *err);
/** Frees; the bytes on disk stay for the next open. Takes NULL. */
void partial_close(struct partial *partial);
/** Frees and removes the bytes. Takes NULL. */
void partial_discard(struct partial *partial);
