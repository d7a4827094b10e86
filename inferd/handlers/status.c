#include "common/base/clock.h"
#include "common/base/text.h"
#include "common/wire/message.h"
#include "inferd/handlers/handler.h"

/** What a status reply points to while it is packed. */
struct parts {
    Thorax__V1__StatusCount counts[COUNTERS_STATUSES], *count_list[COUNTERS_STATUSES];
    Thorax__V1__ModelIdentity identity;
    char *points[MODEL_MAX_POINTS];
    int resident_count;
    struct model *models[SLOT_MODELS]; /* referenced; the active one first */
    Thorax__V1__ModelIdentity residents[SLOT_MODELS], *resident_list[SLOT_MODELS];
    Thorax__V1__InstanceStatus instances[INSTANCES_MAX], *instance_list[INSTANCES_MAX];
};

static void fill_counts(struct service *service, struct parts *parts, Thorax__V1__StatusReply *reply) {
    for (int status = 0; status < COUNTERS_STATUSES; status++) {
        uint64_t count = atomic_load(&service->counters.by_status[status]);
        if (count > 0) {
            Thorax__V1__StatusCount *row = &parts->counts[reply->n_counts];
            thorax__v1__status_count__init(row);
            row->status = (Thorax__V1__Status)status;
            row->count = count;
            parts->count_list[reply->n_counts++] = row;
        }
    }
    reply->counts = parts->count_list;
    reply->batches = atomic_load(&service->counters.batches);
    reply->images = atomic_load(&service->counters.images);
    reply->compute_us = atomic_load(&service->counters.compute_us);
    reply->undelivered = atomic_load(&service->counters.undelivered);
    reply->swaps = slot_swaps(service->slot);
}

static void fill_instances(const struct counters *counters, struct parts *parts, Thorax__V1__StatusReply *reply) {
    for (int i = 0; i < counters->instance_count; i++) {
        thorax__v1__instance_status__init(&parts->instances[i]);
        parts->instances[i].batches = atomic_load(&counters->instances[i].batches);
        parts->instances[i].busy_us = atomic_load(&counters->instances[i].busy_us);
        parts->instances[i].device = text_for_packing(counters->instances[i].device);
        parts->instance_list[i] = &parts->instances[i];
    }
    reply->instances = parts->instance_list;
    reply->n_instances = (size_t)counters->instance_count;
}

static void fill_model(struct model *model, struct parts *parts, Thorax__V1__StatusReply *reply) {
    reply_identify(&model->info, &parts->identity);
    reply->model = &parts->identity;
    for (int i = 0; i < model->info.point_count; i++) {
        parts->points[i] = model->info.points[i].name;
    }
    reply->operating_points = parts->points;
    reply->n_operating_points = (size_t)model->info.point_count;
}

static void fill_residents(struct parts *parts, Thorax__V1__StatusReply *reply) {
    for (int i = 0; i < parts->resident_count; i++) {
        reply_identify(&parts->models[i]->info, &parts->residents[i]);
        parts->resident_list[i] = &parts->residents[i];
    }
    reply->resident = parts->resident_list;
    reply->n_resident = (size_t)parts->resident_count;
}

static Thorax__V1__MemberCondition condition(const struct service *service, const struct model *model) {
    if (service->draining || atomic_load(&service->counters.lost) > 0) {
        return THORAX__V1__MEMBER_CONDITION__CONDITION_DRAINING;
    }
    return model ? THORAX__V1__MEMBER_CONDITION__CONDITION_READY
                 : THORAX__V1__MEMBER_CONDITION__CONDITION_NO_MODEL;
}

static bool status(struct service *service, struct request *request, struct bytes *reply, enum handled *how,
                   struct error *err) {
    (void)request;
    struct parts parts;
    Thorax__V1__StatusReply body = THORAX__V1__STATUS_REPLY__INIT;
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    parts.resident_count = slot_residents(service->slot, parts.models);
    struct model *model = parts.resident_count > 0 ? parts.models[0] : NULL;
    if (model) {
        fill_model(model, &parts, &body);
        fill_residents(&parts, &body);
    }
    fill_counts(service, &parts, &body);
    fill_instances(&service->counters, &parts, &body);
    body.member = text_for_packing(service->member);
    body.version = text_for_packing(service->version);
    body.condition = condition(service, model);
    body.uptime_ms = (uint64_t)(clock_now_ms() - service->started_ms);
    body.in_flight = (uint32_t)pipeline_in_flight(service->pipeline);
    body.incarnation = service->incarnation;
    body.queue_limit = (uint32_t)service->max_jobs;
    envelope.protocol_version = MESSAGE_PROTOCOL_VERSION;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_STATUS_REPLY;
    envelope.status_reply = &body;
    bool ok = message_pack(&envelope.base, reply, err);
    for (int i = 0; i < parts.resident_count; i++) {
        model_release(parts.models[i]);
    }
    *how = HANDLED_NOW;
    return ok;
}

const struct handler handler_status = {
    .body = THORAX__V1__ENVELOPE__BODY_STATUS_REQUEST, .name = "status", .handle = status};
