#include "common/base/clock.h"
#include "common/base/log.h"
#include "trainerd/publisher_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void close_blob(struct publisher_blob *blob) {
    if (blob->descriptor.packed)
        close(blob->file);
    free(blob->checked);
    descriptor_fini(&blob->descriptor);
    *blob = (struct publisher_blob){0};
}

void publisher_close_blobs(struct publisher *publisher) {
    for (int i = 0; i < PUBLISHER_BLOBS_OPEN; i++)
        close_blob(&publisher->blobs[i]);
}

/** Opens a published model's file in an unused place. */
static bool open_file(struct publisher *publisher, struct publisher_blob *blob,
                      const struct descriptor *descriptor, struct error *err) {
    char path[4096];
    if (!store_path(publisher->store, &descriptor->digest, path, sizeof path, NULL))
        return error_set(err, ERROR_INTERNAL, "the publisher's own file is gone; publish the model again");
    if (!(blob->checked = calloc(descriptor->cut.count, 1)))
        return error_set(err, ERROR_MEMORY, "out of memory for a model's chunks");
    blob->file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (blob->file < 0)
        return error_set(err, ERROR_INTERNAL, "the publisher's own file cannot be opened");
    if (descriptor_copy(&blob->descriptor, descriptor, err))
        return true;
    close(blob->file);
    return false;
}

/** The open model, opened where it is not, in place of the one that was used longest ago. */
static struct publisher_blob *open_blob(struct publisher *publisher, const struct digest *digest,
                                        struct error *err) {
    struct publisher_blob *oldest = &publisher->blobs[0];
    for (int i = 0; i < PUBLISHER_BLOBS_OPEN; i++) {
        struct publisher_blob *blob = &publisher->blobs[i];
        if (blob->descriptor.packed && digest_equal(&blob->descriptor.digest, digest))
            return blob;
        if (blob->used_ms < oldest->used_ms)
            oldest = blob;
    }
    const struct registry_model *model = registry_find(publisher->registry, digest);
    if (!model) {
        error_set(err, ERROR_NOT_FOUND, "no such model is published here");
        return NULL;
    }
    close_blob(oldest);
    if (open_file(publisher, oldest, &model->descriptor, err))
        return oldest;
    close_blob(oldest);
    return NULL;
}

/** The file does not hold what it should: it goes to quarantine, and members hear why they get nothing. */
static bool lose_file(struct publisher *publisher, struct publisher_blob *blob, struct error *err) {
    struct error reason = {0};
    if (store_verify(publisher->store, &blob->descriptor.digest, &reason))
        error_set(&reason, ERROR_IO, "a model's file could not be read, and then it could");
    log_error("model_file_lost", &reason); /* with its path, which is nobody else's business */
    close_blob(blob);
    return error_set(err, ERROR_INTERNAL, "the publisher's own file is damaged; publish the model again");
}

/**
 * Reads a chunk into publisher->chunk. It is read and not mapped, so that a file that is cut short or a disk
 * that fails is an error and not a signal; its digest is looked at the first time only, since every member
 * looks at it again (of the plain cut, which only older members ask for, each time).
 */
static bool read_chunk(struct publisher *publisher, struct publisher_blob *blob,
                       const struct descriptor_cut *cut, int64_t offset, struct error *err) {
    size_t size = descriptor_chunk_size(cut, offset);
    for (size_t done = 0; done < size;) {
        ssize_t got = pread(blob->file, publisher->chunk + done, size - done, offset + (int64_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return lose_file(publisher, blob, err);
        done += (size_t)got;
    }
    int64_t index = descriptor_chunk_index(cut, offset);
    bool usual = cut == &blob->descriptor.cut;
    if (usual && blob->checked[index])
        return true;
    struct digest found = digest_of(publisher->chunk, size);
    if (memcmp(found.bytes, cut->digests + index * 32, 32) != 0)
        return lose_file(publisher, blob, err);
    if (usual)
        blob->checked[index] = true;
    return true;
}

static bool send_chunk(struct publisher *publisher, const struct wire_frame *route,
                       const struct publisher_blob *blob, int64_t offset, size_t size) {
    Thorax__V1__BlobChunk header;
    thorax__v1__blob_chunk__init(&header);
    header.protocol_version = POOL_PROTOCOL_VERSION;
    header.digest = pool_digest_field(&blob->descriptor.digest);
    header.offset = (uint64_t)offset;
    struct packed packed = pool_pack(&header.base);
    struct wire_frame frames[] = {*route, {packed.data, packed.size}, {publisher->chunk, size}};
    /* A member that does not read loses chunks here, not our memory: it asks for them again. */
    bool ok = packed.data && wire_send(publisher->sockets[PUBLISHER_BLOBS], frames, 3, 0, NULL);
    free(packed.data);
    publisher->sent_bytes += ok ? size : 0;
    return ok;
}

static void refuse(struct publisher *publisher, const struct wire_frame *route, const struct digest *digest,
                   const struct error *err) {
    Thorax__V1__BlobChunk header;
    Thorax__V1__Refusal refusal;
    char text[POOL_MAX_TEXT_BYTES];
    thorax__v1__blob_chunk__init(&header);
    thorax__v1__refusal__init(&refusal);
    header.protocol_version = POOL_PROTOCOL_VERSION;
    header.digest = pool_digest_field(digest);
    header.refusal = &refusal;
    refusal.code = pool_refusal_code(err->code);
    refusal.message = pool_text(text, sizeof text, err->message);
    struct packed packed = pool_pack(&header.base);
    struct wire_frame frames[] = {*route, {packed.data, packed.size}};
    if (packed.data)
        wire_send(publisher->sockets[PUBLISHER_BLOBS], frames, 2, 0, NULL);
    free(packed.data);
}

/** Sends what the credit allows. False: there is a reason to tell. */
static bool send_chunks(struct publisher *publisher, const struct wire_frame *route,
                        const struct digest *digest, const Thorax__V1__BlobRequest *request,
                        struct error *err) {
    struct publisher_blob *blob = open_blob(publisher, digest, err);
    if (!blob)
        return false;
    bool usual = request->headed || blob->descriptor.cut.head_bytes == 0;
    const struct descriptor_cut *cut = usual ? &blob->descriptor.cut : &blob->descriptor.plain;
    int64_t offset = (int64_t)request->offset;
    size_t size = descriptor_chunk_size(cut, offset);
    if (size == 0)
        return error_set(err, ERROR_INVALID, "no chunk starts at that offset");
    blob->used_ms = clock_now_ms();
    for (uint32_t i = 0; i < request->chunks && size > 0; i++) {
        if (!read_chunk(publisher, blob, cut, offset, err))
            return false;
        if (!send_chunk(publisher, route, blob, offset, size))
            return true;
        offset += (int64_t)size;
        size = descriptor_chunk_size(cut, offset);
    }
    return true;
}

void publisher_serve_blob(struct publisher *publisher, const struct wire_message *message) {
    struct error err = {0};
    struct digest digest = {{0}};
    if (message->count != 2)
        return;
    Thorax__V1__BlobRequest *request =
        pool_unpack_blob_request(message->frames[1].data, message->frames[1].size, &err);
    if (request)
        pool_digest(&request->digest, &digest);
    if (!request || !send_chunks(publisher, &message->frames[0], &digest, request, &err))
        refuse(publisher, &message->frames[0], &digest, &err);
    pool_free(request);
}
