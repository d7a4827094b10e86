#include "common/wire/message.h"
#include "inferd/handlers/handler.h"

static bool drain(struct service *service, struct request *request, struct bytes *reply, enum handled *how,
                  struct error *err) {
    (void)request;
    Thorax__V1__DrainReply body = THORAX__V1__DRAIN_REPLY__INIT;
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    body.in_flight = (uint32_t)pipeline_in_flight(service->pipeline);
    body.timeout_ms = (uint32_t)service->drain_timeout_ms;
    if (service->allow_drain) {
        service->draining = true; /* the daemon's loop sees it after this request */
        body.status = THORAX__V1__STATUS__STATUS_OK;
    } else {
        body.status = THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT;
        body.message = "this member does not drain on request; SIGTERM does the same";
    }
    envelope.protocol_version = MESSAGE_PROTOCOL_VERSION;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_DRAIN_REPLY;
    envelope.drain_reply = &body;
    *how = HANDLED_NOW;
    return message_pack(&envelope.base, reply, err);
}

const struct handler handler_drain = {
    .body = THORAX__V1__ENVELOPE__BODY_DRAIN_REQUEST, .name = "drain", .handle = drain};
