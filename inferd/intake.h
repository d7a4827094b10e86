#pragma once
#include "common/base/error.h"
#include "common/wire/endpoint.h"
#include "proto/envelope.pb-c.h"

/**
 * Reads what an asker sent, the same way at a member and at a router: the protocol version before anything
 * else, then limits and form, then the fields. Returns owned (message_free), NULL on error, for which
 * intake_status has a status.
 */
Thorax__V1__Envelope *intake_unpack(struct wire_frame payload, size_t max_bytes, struct error *err);

/** The status that says to an asker why its message could not be read. */
Thorax__V1__Status intake_status(enum error_code code);
