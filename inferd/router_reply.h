#pragma once
#include "common/base/file.h"
#include "inferd/client/exchange.h"

/** What a router says of itself. */
struct router_about {
    const char *name, *version;
    bool draining;
    uint32_t in_flight, queue_limit;
    int64_t started_ms;
    uint64_t incarnation, undelivered;
    const _Atomic uint64_t *by_status; /**< (COUNTERS_STATUSES) */
};

/** Packs a status reply: READY while a member is, with the models that members have. out->data is owned. */
bool router_status(const struct router_about *about, const struct exchange *exchange, struct bytes *out,
                   struct error *err);

/** Packs an answer anew, with the warning and the digest that say that another model answered than the one
 * that the question is pinned to; for members that do not say so themselves. out->data is owned. */
bool router_warn(const struct question *question, const Thorax__V1__Envelope *envelope, struct bytes *out,
                 struct error *err);
