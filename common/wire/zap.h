#pragma once
#include "common/wire/security.h"

/**
 * The authentication handler of one ZeroMQ context (RFC 27/ZAP): a thread that answers for each connection
 * whether its key is in the allow-list with a role that the socket takes. Inside common/wire only.
 */
struct zap;

enum { ZAP_DOMAIN_SIZE = 16 };

/** Binds inproc://zeromq.zap.01 of the context and starts the thread. Borrows security. Returns owned. */
struct zap *zap_start(void *zmq_context, struct wire_security *security, struct error *err);
/** After zmq_ctx_shutdown, which ends the thread. Takes NULL. */
void zap_join(struct zap *zap);
/** What it answers for. */
const struct wire_security *zap_security(const struct zap *zap);
/** The ZAP domain of a socket that takes these roles. Returns out. */
const char *zap_domain(unsigned roles, char out[ZAP_DOMAIN_SIZE]);
