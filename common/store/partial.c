#include "common/store/partial.h"

#include "common/store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct partial {
    struct store *store;
    struct partial_spec spec; /* chunk_digests points at the copy below */
    int descriptor;
    int64_t offset;
    struct digest_state whole; /* over the bytes in [0, offset) */
    bool committed;
    char path[STORE_PATH_SIZE];
    uint8_t chunk_digests[];
};

static int64_t chunk_count(const struct partial_spec *spec) {
    int64_t rest = spec->size_bytes - spec->head_bytes;
    return (spec->head_bytes > 0) + (rest + spec->chunk_bytes - 1) / spec->chunk_bytes;
}

static int64_t next_chunk_index(const struct partial *partial) {
    const struct partial_spec *spec = &partial->spec;
    if (partial->offset < spec->head_bytes)
        return 0;
    return (spec->head_bytes > 0) + (partial->offset - spec->head_bytes) / spec->chunk_bytes;
}

static int64_t next_chunk_bytes(const struct partial *partial) {
    int64_t left = partial->spec.size_bytes - partial->offset;
    if (partial->offset < partial->spec.head_bytes)
        return partial->spec.head_bytes;
    return left < partial->spec.chunk_bytes ? left : partial->spec.chunk_bytes;
}

/** True where data is the chunk that belongs at the offset. */
static bool is_next_chunk(const struct partial *partial, const void *data, size_t size) {
    if ((int64_t)size != next_chunk_bytes(partial))
        return false;
    struct digest found = digest_of(data, size);
    return memcmp(found.bytes, partial->spec.chunk_digests + next_chunk_index(partial) * 32, 32) == 0;
}

static void accept_chunk(struct partial *partial, const void *data, size_t size) {
    digest_update(&partial->whole, data, size);
    partial->offset += (int64_t)size;
}

/** pread of exactly size bytes. */
static bool read_at(int descriptor, uint8_t *data, size_t size, int64_t offset) {
    for (size_t done = 0; done < size;) {
        ssize_t got = pread(descriptor, data + done, size - done, offset + (int64_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

/** Takes over what an earlier open left, up to the first chunk that is not right, and cuts the rest off. */
static bool resume(struct partial *partial, struct error *err) {
    struct stat status;
    if (fstat(partial->descriptor, &status) != 0 || !S_ISREG(status.st_mode))
        return error_set(err, ERROR_INVALID, "%s: not a regular file", partial->path);
    int64_t largest = partial->spec.chunk_bytes > partial->spec.head_bytes ? partial->spec.chunk_bytes
                                                                           : partial->spec.head_bytes;
    uint8_t *chunk = malloc((size_t)largest);
    if (!chunk)
        return error_set(err, ERROR_MEMORY, "out of memory for a chunk");
    while (partial->offset < partial->spec.size_bytes) {
        size_t size = (size_t)next_chunk_bytes(partial);
        if (partial->offset + (int64_t)size > status.st_size ||
            !read_at(partial->descriptor, chunk, size, partial->offset) ||
            !is_next_chunk(partial, chunk, size))
            break;
        accept_chunk(partial, chunk, size);
    }
    free(chunk);
    if (ftruncate(partial->descriptor, partial->offset) != 0)
        return error_set_errno(err, "%s", partial->path);
    return true;
}

static bool open_file(struct partial *partial, struct error *err) {
    partial->descriptor = open(partial->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (partial->descriptor < 0)
        return error_set_errno(err, "%s", partial->path);
    if (flock(partial->descriptor, LOCK_EX | LOCK_NB) != 0)
        return error_set(err, ERROR_BUSY, "%s: already arriving", partial->path);
    if (!resume(partial, err))
        return false;
    /* KEEP_SIZE: the length goes on telling how far we are. File systems that cannot reserve are taken as
     * they are. */
    if (fallocate(partial->descriptor, FALLOC_FL_KEEP_SIZE, 0, partial->spec.size_bytes) != 0 &&
        errno == ENOSPC)
        return error_set_errno(err, "%s: %lld bytes", partial->path, (long long)partial->spec.size_bytes);
    return true;
}

struct partial *partial_open(struct store *store, const struct partial_spec *spec, struct error *err) {
    if (spec->size_bytes < 1 || spec->size_bytes > store->max_object_bytes || spec->chunk_bytes < 1 ||
        spec->head_bytes < 0 || spec->head_bytes > spec->size_bytes) {
        error_set(err, ERROR_TOO_LARGE, "a file of %lld bytes, the store takes 1 to %lld",
                  (long long)spec->size_bytes, (long long)store->max_object_bytes);
        return NULL;
    }
    size_t digest_bytes = (size_t)chunk_count(spec) * 32;
    struct partial *partial = calloc(1, sizeof *partial + digest_bytes);
    if (!partial) {
        error_set(err, ERROR_MEMORY, "out of memory for a partial file");
        return NULL;
    }
    partial->store = store;
    partial->spec = *spec;
    memcpy(partial->chunk_digests, spec->chunk_digests, digest_bytes);
    partial->spec.chunk_digests = partial->chunk_digests;
    if (partial->spec.chunk_bytes > spec->size_bytes)
        partial->spec.chunk_bytes = spec->size_bytes;
    digest_init(&partial->whole);
    store_object_path(store, "partial", &spec->digest, partial->path);
    if (!open_file(partial, err)) {
        partial_close(partial);
        return NULL;
    }
    return partial;
}

int64_t partial_offset(const struct partial *partial) {
    return partial->offset;
}

bool partial_complete(const struct partial *partial) {
    return partial->offset == partial->spec.size_bytes;
}

bool partial_append(struct partial *partial, const void *data, size_t size, struct error *err) {
    if (partial_complete(partial))
        return error_set(err, ERROR_STATE, "%s: complete already", partial->path);
    if (!is_next_chunk(partial, data, size))
        return error_set(err, ERROR_FORMAT, "the chunk at byte %lld (%zu bytes) does not match its digest",
                         (long long)partial->offset, size);
    if (lseek(partial->descriptor, partial->offset, SEEK_SET) < 0)
        return error_set_errno(err, "%s", partial->path);
    if (!file_write_all(partial->descriptor, data, size, err))
        return error_prefix(err, "%s", partial->path);
    accept_chunk(partial, data, size);
    return true;
}

bool partial_commit(struct partial *partial, struct error *err) {
    if (!partial_complete(partial) || partial->committed)
        return error_set(err, ERROR_STATE, "%s: not complete", partial->path);
    struct digest_state state = partial->whole;
    struct digest found = digest_final(&state);
    if (!digest_equal(&found, &partial->spec.digest)) {
        unlink(partial->path);
        return error_set(err, ERROR_FORMAT, "the file that arrived is not the one that was announced");
    }
    if (fsync(partial->descriptor) != 0)
        return error_set_errno(err, "%s: fsync", partial->path);
    partial->committed = store_publish_file(partial->store, partial->path, &partial->spec.digest, err);
    /* Only now: a read-only partial file, left by a crash in between, could not be opened again. */
    return partial->committed &&
           (fchmod(partial->descriptor, 0444) == 0 || error_set_errno(err, "%s", partial->path));
}

void partial_close(struct partial *partial) {
    if (!partial)
        return;
    if (partial->descriptor >= 0)
        close(partial->descriptor);
    free(partial);
}

void partial_discard(struct partial *partial) {
    if (partial && !partial->committed)
        unlink(partial->path);
    partial_close(partial);
}
