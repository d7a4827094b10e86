#include "inferd/handlers/handler.h"

static bool drain(struct service *service, struct request *request, struct bytes *reply, enum handled *how,
                  struct error *err) {
    struct drain_terms terms = {.what = "member",
                                .allowed = service->allow_drain,
                                .peer = &request->peer,
                                .in_flight = (uint32_t)pipeline_in_flight(service->pipeline),
                                .timeout_ms = (uint32_t)service->drain_timeout_ms};
    bool granted;
    bool ok = reply_to_drain(&terms, &granted, reply, err);
    if (granted) {
        service->draining = true; /* the daemon's loop sees it after this request */
    }
    *how = HANDLED_NOW;
    return ok;
}

const struct handler handler_drain = {
    .body = THORAX__V1__ENVELOPE__BODY_DRAIN_REQUEST, .name = "drain", .handle = drain};
