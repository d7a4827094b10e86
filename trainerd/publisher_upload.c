#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "trainerd/publisher_internal.h"

#include <string.h>

/* An upload that says nothing for so long gives its place to another; it can go on later where it stopped. */
enum { UPLOAD_SILENCE_MS = 30000 };

static void close_upload(struct publisher_upload *upload) {
    partial_close(upload->partial);
    descriptor_fini(&upload->descriptor);
    *upload = (struct publisher_upload){0};
}

void publisher_close_uploads(struct publisher *publisher, bool all) {
    int64_t now_ms = clock_now_ms();
    for (int i = 0; i < PUBLISHER_UPLOADS; i++) {
        struct publisher_upload *upload = &publisher->uploads[i];
        if (upload->partial && (all || now_ms - upload->heard_ms > UPLOAD_SILENCE_MS))
            close_upload(upload);
    }
}

static struct publisher_upload *find(struct publisher *publisher, const struct digest *digest) {
    for (int i = 0; i < PUBLISHER_UPLOADS; i++) {
        if (publisher->uploads[i].partial && digest_equal(&publisher->uploads[i].descriptor.digest, digest))
            return &publisher->uploads[i];
    }
    return NULL;
}

/** All bytes are here: makes them an object, looks into it, publishes it. Ends the upload, well or not. */
static bool complete(struct publisher *publisher, struct publisher_upload *upload, struct error *err) {
    struct descriptor descriptor = upload->descriptor;
    struct publisher_findings findings = {0};
    text_copy(findings.name, sizeof findings.name, descriptor.name);
    text_copy(findings.version, sizeof findings.version, descriptor.version);
    bool ok = partial_commit(upload->partial, err);
    upload->descriptor = (struct descriptor){0};
    close_upload(upload);
    if (!ok || !publisher_inspect(publisher, &descriptor.digest, &findings, err)) {
        if (ok)
            store_remove(publisher->store, &descriptor.digest, NULL);
        descriptor_fini(&descriptor);
        return false;
    }
    if (!publisher_accept(publisher, &descriptor, &findings, err))
        return false;
    publisher->uploads_accepted++;
    return true;
}

/** A place for a new upload. Takes descriptor. */
static struct publisher_upload *open_upload(struct publisher *publisher, struct descriptor *descriptor,
                                            struct error *err) {
    struct publisher_upload *upload = NULL;
    for (int i = 0; i < PUBLISHER_UPLOADS && !upload; i++)
        upload = publisher->uploads[i].partial ? NULL : &publisher->uploads[i];
    struct partial_spec spec = {
        .digest = descriptor->digest,
        .size_bytes = descriptor->size_bytes,
        .head_bytes = descriptor->cut.head_bytes,
        .chunk_bytes = descriptor->cut.chunk_bytes,
        .chunk_digests = descriptor->cut.digests,
    };
    struct partial *partial = NULL;
    if (!upload)
        error_set(err, ERROR_BUSY, "%d uploads are under way; try again later", PUBLISHER_UPLOADS);
    else
        partial = partial_open(publisher->store, &spec, err);
    if (!partial) {
        descriptor_fini(descriptor);
        return NULL;
    }
    *upload = (struct publisher_upload){.descriptor = *descriptor, .partial = partial};
    return upload;
}

/** A crash came between a model's arrival and the start of its rollout: nothing came after it, and it never ran. */
static bool still_to_start(const struct publisher *publisher, const struct registry_model *model) {
    const struct rollout *rollout = &publisher->rollout;
    const struct digest *digest = &model->descriptor.digest;
    return model == registry_model(publisher->registry, registry_count(publisher->registry) - 1) &&
           model->state == THORAX__V1__MODEL_STATE__MODEL_STAGED && model->activated_ms == 0 &&
           !(rollout->id && digest_equal(&rollout->candidate, digest));
}

/** Takes descriptor. */
static bool begin_again(struct publisher *publisher, struct descriptor *descriptor, bool once, struct error *err) {
    const struct registry_model *known = registry_find(publisher->registry, &descriptor->digest);
    if (!once || still_to_start(publisher, known))
        return publisher_accept(publisher, descriptor, &(struct publisher_findings){0}, err);
    descriptor_fini(descriptor);
    return true;
}

bool publisher_upload_begin(struct publisher *publisher, const Thorax__V1__UploadRequest *request,
                            struct digest *digest, int64_t *offset, bool *published, struct error *err) {
    struct descriptor descriptor;
    if (!descriptor_parse(&descriptor, request->model, publisher->max_model_bytes, err))
        return false;
    *digest = descriptor.digest;
    *offset = descriptor.size_bytes;
    *published = true;
    if (registry_find(publisher->registry, digest))
        return begin_again(publisher, &descriptor, request->once, err);
    struct publisher_upload *upload = find(publisher, digest);
    if (upload)
        descriptor_fini(&descriptor);
    else if (!(upload = open_upload(publisher, &descriptor, err)))
        return false;
    upload->heard_ms = clock_now_ms();
    if (partial_complete(upload->partial))
        return complete(publisher, upload, err);
    *offset = partial_offset(upload->partial);
    *published = false;
    return true;
}

bool publisher_upload_chunk(struct publisher *publisher, const Thorax__V1__UploadChunk *chunk,
                            const struct wire_frame *data, int64_t *offset, bool *published,
                            struct error *err) {
    struct digest digest;
    pool_digest(&chunk->digest, &digest);
    struct publisher_upload *upload = find(publisher, &digest);
    if (!upload)
        return error_set(err, ERROR_NOT_FOUND, "no such upload is under way; begin it first");
    upload->heard_ms = clock_now_ms();
    *published = false;
    if (chunk->offset == (uint64_t)partial_offset(upload->partial) &&
        !partial_append(upload->partial, data->data, data->size, err))
        return false;
    *offset = partial_offset(upload->partial);
    if (!partial_complete(upload->partial))
        return true;
    *published = true;
    return complete(publisher, upload, err);
}
