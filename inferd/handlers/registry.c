#include "inferd/handlers/handler.h"

static const struct handler *const rows[] = {&handler_diagnose, &handler_status};

const struct handler *handler_find(Thorax__V1__Envelope__BodyCase body) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i]->body == body) {
            return rows[i];
        }
    }
    return NULL;
}

bool service_refuse(struct service *service, const struct refusal *refusal, struct bytes *reply,
                    struct error *err) {
    atomic_fetch_add(&service->counters.by_status[refusal->status], 1);
    return reply_refuse(refusal, service->member, reply, err);
}

bool service_conclude(struct service *service, const struct job *job, struct bytes *reply,
                      struct error *err) {
    atomic_fetch_add(&service->counters.by_status[job->status], 1);
    return reply_to_job(job, service->member, reply, err);
}
