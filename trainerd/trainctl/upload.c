#include "trainerd/trainctl/upload.h"

/** Takes what an UploadStatus says. *next: the byte to go on with; the file's size where all is there. */
static bool take_status(const Thorax__V1__ControlReply *reply, const struct descriptor *descriptor,
                        int64_t *next, struct error *err) {
    struct digest digest;
    if (reply->body_case != THORAX__V1__CONTROL_REPLY__BODY_UPLOAD ||
        !pool_digest(&reply->upload->digest, &digest) || !digest_equal(&digest, &descriptor->digest))
        return error_set(err, ERROR_FORMAT, "the publisher's answer is about something else");
    if (reply->upload->gate[0])
        return error_set(err, ERROR_INVALID, "refused by the publisher's gate, and kept there: %.400s", reply->upload->gate);
    *next = reply->upload->published ? descriptor->size_bytes : (int64_t)reply->upload->offset;
    if (!reply->upload->published && descriptor_chunk_size(&descriptor->cut, *next) == 0)
        return error_set(err, ERROR_FORMAT, "the publisher asks for a chunk that the file does not have");
    return true;
}

static bool begin(struct control *control, const struct descriptor *descriptor, int64_t *next,
                  struct error *err) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__UploadRequest upload;
    Thorax__V1__PublishedModel model;
    thorax__v1__control_request__init(&request);
    thorax__v1__upload_request__init(&upload);
    descriptor_message(descriptor, &model);
    upload.model = &model;
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_UPLOAD;
    request.upload = &upload;
    Thorax__V1__ControlReply *reply = control_ask(control, &request, NULL, err);
    bool ok = reply && take_status(reply, descriptor, next, err);
    pool_free(reply);
    return ok;
}

/** Sends the chunk at *next and moves on to the one that the publisher wants then. */
static bool send_chunk(struct control *control, const struct descriptor *descriptor, const uint8_t *data,
                       int64_t *next, struct error *err) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__UploadChunk chunk;
    thorax__v1__control_request__init(&request);
    thorax__v1__upload_chunk__init(&chunk);
    chunk.digest = pool_digest_field(&descriptor->digest);
    chunk.offset = (uint64_t)*next;
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_CHUNK;
    request.chunk = &chunk;
    struct wire_frame frame = {data + *next, descriptor_chunk_size(&descriptor->cut, *next)};
    Thorax__V1__ControlReply *reply = control_ask(control, &request, &frame, err);
    bool ok = reply && take_status(reply, descriptor, next, err);
    pool_free(reply);
    return ok;
}

bool upload_model(struct control *control, const struct descriptor *descriptor, const void *data,
                  struct error *err) {
    int64_t next = 0, limit = 2 * (int64_t)descriptor->cut.count +
                              16; /* a publisher that is never content ends too */
    bool ok = begin(control, descriptor, &next, err);
    for (int64_t i = 0; ok && next < descriptor->size_bytes; i++)
        ok = i < limit ? send_chunk(control, descriptor, data, &next, err)
                       : error_set(err, ERROR_PEER, "the publisher keeps asking for the same bytes");
    return ok;
}
