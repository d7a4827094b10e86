#pragma once
#include "common/base/file.h"
#include "common/wire/endpoint.h"
#include <protobuf-c/protobuf-c.h>

/** The version in every Envelope and pool message. */
enum { MESSAGE_PROTOCOL_VERSION = 1 };

/** What a message from outside may cost. Checked on the bytes, before anything is allocated. */
struct message_limits {
    size_t max_bytes; /**< of the packed message */
    int max_fields;   /**< fields in all of it, repeated, nested and unknown ones counted: each costs memory
                         when unpacked */
    int max_depth;    /**< messages inside one another; 1: none inside the outermost */
};

/**
 * Checks packed bytes against a type, without allocating: well-formed, within the limits, no field or oneof
 * given twice (which parsers resolve in different ways: two pictures in one request must not be a matter of
 * taste), strings UTF-8 without NUL, enums among their values: protobuf-c looks at none of these. Unknown
 * fields are let pass. Errors: FORMAT (empty and malformed), INVALID (naming the field), TOO_LARGE.
 * Thread-safe. Source: protobuf.dev, "Encoding".
 */
bool message_check(const ProtobufCMessageDescriptor *type, struct wire_frame frame,
                   const struct message_limits *limits, struct error *err);

/** message_check, then unpacks. Returns owned (message_free), NULL on error. Cast it to the type's struct. */
ProtobufCMessage *message_unpack(const ProtobufCMessageDescriptor *type, struct wire_frame frame,
                                 const struct message_limits *limits, struct error *err);

/** Takes NULL. */
void message_free(ProtobufCMessage *message);

/** Packs into owned memory (free(out->data)). */
bool message_pack(const ProtobufCMessage *message, struct bytes *out, struct error *err);

/**
 * The number in an outermost varint field, 0 where it is absent: so that a protocol version can be read from
 * a message of a version that we do not know otherwise. False where the outermost fields are malformed.
 */
bool message_peek(struct wire_frame frame, uint32_t field, uint64_t *out);
