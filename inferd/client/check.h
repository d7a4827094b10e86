#pragma once
#include "common/base/digest.h"
#include "common/wire/message.h"
#include "proto/envelope.pb-c.h"

/**
 * Unpacks what a member sent, with limits. Its version is ours and its form that of a reply. Returns owned
 * (message_free), NULL on error.
 */
Thorax__V1__Envelope *client_unpack(struct wire_frame payload, struct error *err);

/**
 * Checks a diagnosis reply against what was asked: that it has a status, that an OK is complete, is to that
 * request and about that image, and that nothing else comes with an answer. ERROR_PEER says what is wrong.
 */
bool client_check(const Thorax__V1__DiagnosisReply *reply, const char *request_id, const struct digest *image,
                  struct error *err);

/** What to look at where nobody answers: with_keys: we have some; refused: somebody was there and the handshake
 * failed. */
const char *client_hint(bool with_keys, bool refused);

/** "OK", "BUSY" and so on. Never NULL. */
const char *client_status_name(Thorax__V1__Status status);
/** "RULE_IN" and so on. Never NULL. */
const char *client_decision_name(Thorax__V1__Decision decision);
