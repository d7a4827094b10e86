#pragma once
#include "common/base/digest.h"
#include "common/base/error.h"
#include "proto/pool.pb-c.h"
#include <stddef.h>
#include <stdint.h>

/**
 * The messages of proto/pool.proto on their way in and out. Whatever comes in is hostile: the frame's size is
 * limited before it is parsed, the memory that parsing takes is limited too, and what is handed out has known
 * enums, digests of 0 or 32 bytes, names that are names, and texts that are short UTF-8 without control
 * characters (they reach terminals and logs). Descriptors inside are checked by descriptor_parse.
 */

enum {
    POOL_PROTOCOL_VERSION = 1,
    POOL_MAX_MESSAGE_BYTES = 8 << 20, /**< without an upload's chunk */
    POOL_MAX_TEXT_BYTES = 512,
    POOL_MAX_CREDIT = 64, /**< chunks that one BlobRequest may ask for */
};

/** Where a publisher listens unless told otherwise. */
#define POOL_DEFAULT_ANNOUNCE "tcp://127.0.0.1:5701"
#define POOL_DEFAULT_CONTROL  "tcp://127.0.0.1:5702"
#define POOL_DEFAULT_BLOBS    "tcp://127.0.0.1:5703"

/** A message as bytes, for a frame. data is owned (free); NULL where memory ended. */
struct packed {
    uint8_t *data;
    size_t size;
};
struct packed pool_pack(const ProtobufCMessage *message);

/**
 * Each returns an owned message (pool_free), or NULL: ERROR_TOO_LARGE, ERROR_FORMAT, and ERROR_UNSUPPORTED
 * where the other side speaks another version of the protocol.
 */
Thorax__V1__Announcement *pool_unpack_announcement(const void *data, size_t size, struct error *err);
Thorax__V1__ControlRequest *pool_unpack_request(const void *data, size_t size, struct error *err);
Thorax__V1__ControlReply *pool_unpack_reply(const void *data, size_t size, struct error *err);
Thorax__V1__BlobRequest *pool_unpack_blob_request(const void *data, size_t size, struct error *err);
Thorax__V1__BlobChunk *pool_unpack_blob_chunk(const void *data, size_t size, struct error *err);
/** No version inside: for PublisherState. */
Thorax__V1__PublisherState *pool_unpack_state(const void *data, size_t size, struct error *err);
/** No version inside, nor are its fields checked: the publisher's own record of a rollout. */
Thorax__V1__RolloutRecord *pool_unpack_rollout(const void *data, size_t size, struct error *err);
/** Takes NULL. */
void pool_free(void *message);

/** A digest field that was checked: false where it is empty. */
bool pool_digest(const ProtobufCBinaryData *field, struct digest *out);
/** A field that borrows digest. */
ProtobufCBinaryData pool_digest_field(const struct digest *digest);

/** Copies text as it may travel: printable ASCII, anything else as '?', cut to size - 1. Returns out. */
char *pool_text(char *out, size_t size, const char *text);

/** What a refusal becomes here, and the other way about. */
bool pool_refusal_error(const Thorax__V1__Refusal *refusal, struct error *err);
Thorax__V1__RefusalCode pool_refusal_code(enum error_code code);
