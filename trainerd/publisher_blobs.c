#include "common/base/clock.h"
#include "common/base/log.h"
#include "trainerd/publisher_internal.h"

#include <stdlib.h>
#include <string.h>

static void close_blob(struct publisher_blob *blob) {
    file_map_close(&blob->map);
    descriptor_fini(&blob->descriptor);
    blob->used_ms = 0;
}

void publisher_close_blobs(struct publisher *publisher) {
    for (int i = 0; i < PUBLISHER_BLOBS_OPEN; i++)
        close_blob(&publisher->blobs[i]);
}

/** The mapped model, opened and checked where it is not open yet, in place of the one that was used longest ago. */
static struct publisher_blob *open_blob(struct publisher *publisher, const struct digest *digest, struct error *err) {
    struct publisher_blob *oldest = &publisher->blobs[0];
    for (int i = 0; i < PUBLISHER_BLOBS_OPEN; i++) {
        struct publisher_blob *blob = &publisher->blobs[i];
        if (blob->descriptor.packed && digest_equal(&blob->descriptor.digest, digest))
            return blob;
        if (blob->used_ms < oldest->used_ms)
            oldest = blob;
    }
    const struct catalogue_model *model = catalogue_find(&publisher->catalogue, digest);
    if (!model) {
        error_set(err, ERROR_NOT_FOUND, "no such model is published here");
        return NULL;
    }
    close_blob(oldest);
    if (!descriptor_copy(&oldest->descriptor, &model->descriptor, err))
        return NULL;
    struct error reason = {0};
    if (!store_get(publisher->store, digest, &oldest->map, &reason)) {
        close_blob(oldest);
        log_error("model_file_lost", &reason); /* with its path, which is nobody else's business */
        error_set(err, ERROR_INTERNAL, "the publisher's own file is damaged or gone; publish the model again");
        return NULL;
    }
    return oldest;
}

static bool send_chunk(struct publisher *publisher, const struct wire_frame *route, const struct publisher_blob *blob,
                       int64_t offset, size_t size) {
    Thorax__V1__BlobChunk header;
    thorax__v1__blob_chunk__init(&header);
    header.protocol_version = POOL_PROTOCOL_VERSION;
    header.digest = pool_digest_field(&blob->descriptor.digest);
    header.offset = (uint64_t)offset;
    struct packed packed = pool_pack(&header.base);
    struct wire_frame frames[] = {*route, {packed.data, packed.size}, {blob->map.data + offset, size}};
    /* A member that does not read loses chunks here, not our memory: it asks for them again. */
    bool ok = packed.data && wire_send(publisher->sockets[PUBLISHER_BLOBS], frames, 3, 0, NULL);
    free(packed.data);
    return ok;
}

static void refuse(struct publisher *publisher, const struct wire_frame *route, const struct digest *digest,
                   const struct error *err) {
    Thorax__V1__BlobChunk header;
    Thorax__V1__Refusal refusal;
    thorax__v1__blob_chunk__init(&header);
    thorax__v1__refusal__init(&refusal);
    header.protocol_version = POOL_PROTOCOL_VERSION;
    header.digest = pool_digest_field(digest);
    header.refusal = &refusal;
    refusal.code = pool_refusal_code(err->code);
    refusal.message = (char *)err->message;
    struct packed packed = pool_pack(&header.base);
    struct wire_frame frames[] = {*route, {packed.data, packed.size}};
    if (packed.data)
        wire_send(publisher->sockets[PUBLISHER_BLOBS], frames, 2, 0, NULL);
    free(packed.data);
}

void publisher_serve_blob(struct publisher *publisher, const struct wire_message *message) {
    struct error err = {0};
    struct digest digest = {{0}};
    if (message->count != 2)
        return;
    const struct wire_frame *route = &message->frames[0];
    Thorax__V1__BlobRequest *request = pool_unpack_blob_request(message->frames[1].data, message->frames[1].size, &err);
    struct publisher_blob *blob = NULL;
    if (request) {
        pool_digest(&request->digest, &digest);
        blob = open_blob(publisher, &digest, &err);
    }
    if (blob && descriptor_chunk_size(&blob->descriptor, (int64_t)request->offset) == 0) {
        error_set(&err, ERROR_INVALID, "no chunk starts at that offset");
        blob = NULL;
    }
    if (!blob)
        refuse(publisher, route, &digest, &err);
    else
        blob->used_ms = clock_now_ms();
    size_t size;
    int64_t offset = blob ? (int64_t)request->offset : 0;
    for (uint32_t i = 0; blob && i < request->chunks && (size = descriptor_chunk_size(&blob->descriptor, offset)); i++) {
        if (!send_chunk(publisher, route, blob, offset, size))
            break;
        offset += (int64_t)size;
    }
    pool_free(request);
}
