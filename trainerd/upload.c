#include "trainerd/upload.h"

#include "common/base/file.h"
#include "common/base/text.h"
#include "trainerd/publisher_inspect.h"

/** An upload under way. */
struct transfer {
    struct control *control;
    const struct descriptor *descriptor;
    const uint8_t *data;
    int64_t next; /* the byte to go on with; the file's size where all is there */
    char *gate;   /* (REGISTRY_TEXT_SIZE) */
};

/** Takes what an UploadStatus says. */
static bool take_status(struct transfer *transfer, const Thorax__V1__ControlReply *reply, struct error *err) {
    const struct descriptor *descriptor = transfer->descriptor;
    struct digest digest;
    if (reply->body_case != THORAX__V1__CONTROL_REPLY__BODY_UPLOAD ||
        !pool_digest(&reply->upload->digest, &digest) || !digest_equal(&digest, &descriptor->digest))
        return error_set(err, ERROR_FORMAT, "the publisher's answer is about something else");
    text_copy(transfer->gate, REGISTRY_TEXT_SIZE, reply->upload->gate);
    transfer->next = reply->upload->published ? descriptor->size_bytes : (int64_t)reply->upload->offset;
    if (!reply->upload->published && descriptor_chunk_size(&descriptor->cut, transfer->next) == 0)
        return error_set(err, ERROR_FORMAT, "the publisher asks for a chunk that the file does not have");
    return true;
}

static bool ask(struct transfer *transfer, Thorax__V1__ControlRequest *request, const struct wire_frame *data,
                struct error *err) {
    Thorax__V1__ControlReply *reply = control_ask(transfer->control, request, data, err);
    bool ok = reply && take_status(transfer, reply, err);
    pool_free(reply);
    return ok;
}

static bool begin(struct transfer *transfer, bool once, struct error *err) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__UploadRequest upload;
    Thorax__V1__PublishedModel model;
    thorax__v1__control_request__init(&request);
    thorax__v1__upload_request__init(&upload);
    descriptor_message(transfer->descriptor, &model);
    upload.model = &model;
    upload.once = once;
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_UPLOAD;
    request.upload = &upload;
    return ask(transfer, &request, NULL, err);
}

/** Sends the chunk that the publisher wants, and moves on to the one that it wants then. */
static bool send_chunk(struct transfer *transfer, struct error *err) {
    Thorax__V1__ControlRequest request;
    Thorax__V1__UploadChunk chunk;
    thorax__v1__control_request__init(&request);
    thorax__v1__upload_chunk__init(&chunk);
    chunk.digest = pool_digest_field(&transfer->descriptor->digest);
    chunk.offset = (uint64_t)transfer->next;
    request.body_case = THORAX__V1__CONTROL_REQUEST__BODY_CHUNK;
    request.chunk = &chunk;
    struct wire_frame frame = {transfer->data + transfer->next,
                               descriptor_chunk_size(&transfer->descriptor->cut, transfer->next)};
    return ask(transfer, &request, &frame, err);
}

bool upload_model(struct control *control, const struct descriptor *descriptor, const void *data, bool once,
                  char gate[REGISTRY_TEXT_SIZE], struct error *err) {
    struct transfer transfer = {.control = control, .descriptor = descriptor, .data = data, .gate = gate};
    int64_t limit = 2 * (int64_t)descriptor->cut.count + 16; /* a publisher that is never content ends too */
    bool ok = begin(&transfer, once, err);
    for (int64_t i = 0; ok && transfer.next < descriptor->size_bytes; i++)
        ok = i < limit ? send_chunk(&transfer, err)
                       : error_set(err, ERROR_PEER, "the publisher keeps asking for the same bytes");
    return ok;
}

static bool sign(struct descriptor *descriptor, const char *path, struct error *err) {
    struct signature_key key;
    if (!path || !*path)
        return true;
    bool ok = signature_key_load(path, &key, err) && descriptor_sign(descriptor, &key, err);
    signature_key_wipe(&key);
    return ok;
}

bool upload_file(struct control *control, const struct upload_spec *spec, struct upload_done *done,
                 struct error *err) {
    struct publisher_findings findings;
    struct file_map map;
    struct descriptor descriptor = {0};
    *done = (struct upload_done){0};
    if (!publisher_inspect_model(NULL, spec->path, &findings, err) || !file_map_open(spec->path, &map, err))
        return false;
    struct descriptor_spec says = publisher_describe(&findings, map.data, map.size);
    bool ok = descriptor_make(&descriptor, &says, err) && sign(&descriptor, spec->sign_key, err) &&
              upload_model(control, &descriptor, map.data, spec->once, done->gate, err);
    text_copy(done->name, sizeof done->name, findings.name);
    text_copy(done->version, sizeof done->version, findings.version);
    done->digest = descriptor.digest;
    done->size_bytes = map.size;
    descriptor_fini(&descriptor);
    file_map_close(&map);
    return ok;
}
