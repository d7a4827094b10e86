#include "common/base/clock.h"
#include "inferd/handlers/handler.h"
#include <string.h>

enum {
    ID_MAX_BYTES = 128,
    ROUTING_KEY_MAX_BYTES = 128,
    RETRY_FIRST_MS = 100,
    RETRY_MIN_MS = 10,
    RETRY_MAX_MS = 10000
};

/** Checks what protobuf cannot: the fields' own rules. */
static bool check_fields(const Thorax__V1__DiagnosisRequest *ask, struct error *err) {
    size_t id = strlen(ask->request_id);
    if (id == 0 || id > ID_MAX_BYTES) {
        return error_set(err, ERROR_INVALID, "request_id: %zu bytes; expected 1 to %d", id, ID_MAX_BYTES);
    }
    if (ask->routing_key.len > ROUTING_KEY_MAX_BYTES) {
        return error_set(err, ERROR_INVALID, "routing_key: more than %d bytes", ROUTING_KEY_MAX_BYTES);
    }
    if (ask->pinned_model.len != 0 && ask->pinned_model.len != sizeof(struct digest)) {
        return error_set(err, ERROR_INVALID, "pinned_model: expected a digest of %zu bytes",
                         sizeof(struct digest));
    }
    if (ask->age && !(ask->age->years >= 0 && ask->age->years <= 150)) {
        return error_set(err, ERROR_INVALID, "age.years: expected 0 to 150");
    }
    if (ask->image_case == THORAX__V1__DIAGNOSIS_REQUEST__IMAGE__NOT_SET) {
        return error_set(err, ERROR_INVALID, "image: expected encoded or raw");
    }
    struct job job = {.ask = ask};
    return job_image_bytes(&job).len > 0 || error_set(err, ERROR_INVALID, "image: it is empty");
}

/** What the request's routing key is pinned to: its own word for it, else what this member remembers. */
static bool find_pin(const struct service *service, const Thorax__V1__DiagnosisRequest *ask,
                     struct digest *out) {
    if (ask->pinned_model.len == sizeof out->bytes) {
        memcpy(out->bytes, ask->pinned_model.data, sizeof out->bytes);
        return true;
    }
    return pins_get(service->pins, ask->routing_key.data, ask->routing_key.len, clock_now_ms(), out);
}

static bool names_a_model(const Thorax__V1__DiagnosisRequest *ask) {
    return *ask->model && strcmp(ask->model, "stable") != 0;
}

/** The model that a request gets, with a reference: the one that it names, else the one that its key is
 * pinned to where that is here, else the active one. */
static struct model *choose_model(const struct service *service, struct job *job, struct error *err) {
    const Thorax__V1__DiagnosisRequest *ask = job->ask;
    struct digest pinned;
    if (names_a_model(ask) || !find_pin(service, ask, &pinned)) {
        return slot_choose(service->slot, ask->model, err);
    }
    struct model *model = slot_find(service->slot, &pinned);
    if (!model) {
        job->model_changed = true;
        job->pinned = pinned;
        model = slot_choose(service->slot, "", err);
    }
    return model;
}

/**
 * The request was accepted: its key stays with its model from now on, so that a swap between two pictures of
 * one study, both under way, does not part them. A request that names a model says nothing of what the others
 * of its key are to get.
 */
static void pin(const struct service *service, const struct job *job) {
    const Thorax__V1__DiagnosisRequest *ask = job->ask;
    if (!names_a_model(ask)) {
        const struct digest *model = job->model_changed ? &job->pinned : &job->model->info.digest;
        pins_put(service->pins, ask->routing_key.data, ask->routing_key.len, model, clock_now_ms());
    }
}

static void set_deadline(const struct service *service, struct job *job) {
    int64_t timeout_ms = job->ask->timeout_ms ? job->ask->timeout_ms : service->default_timeout_ms;
    timeout_ms = timeout_ms < service->max_timeout_ms ? timeout_ms : service->max_timeout_ms;
    job->arrived_ns = clock_now_ns();
    job->deadline_ns = job->arrived_ns + timeout_ms * 1000000;
}

/** About how long what waits will take all instances, from the mean cost of an image so far. */
static uint32_t retry_after_ms(const struct service *service) {
    uint64_t images = atomic_load(&service->counters.images);
    if (images == 0) {
        return RETRY_FIRST_MS;
    }
    uint64_t waiting = (uint64_t)pipeline_in_flight(service->pipeline);
    uint64_t instances = (uint64_t)service->counters.instance_count;
    uint64_t ms = atomic_load(&service->counters.compute_us) / images * waiting / instances / 1000;
    return ms < RETRY_MIN_MS ? RETRY_MIN_MS : ms > RETRY_MAX_MS ? RETRY_MAX_MS : (uint32_t)ms;
}

/** A shadow is compared with the active model only. */
static bool is_active(const struct service *service, const struct model *model) {
    struct model *active = slot_acquire(service->slot);
    bool same = active == model;
    model_release(active);
    return same;
}

/** Makes the job ready for the pipeline. ERROR_STATE: not ready; ERROR_INVALID: a field. */
static bool admit(const struct service *service, struct job *job, struct error *err) {
    if (!check_fields(job->ask, err)) {
        return false;
    }
    if (service->draining) {
        return error_set(err, ERROR_STATE, "this member is shutting down");
    }
    job->model = choose_model(service, job, err);
    if (!job->model) {
        return false;
    }
    job->shadow = is_active(service, job->model) ? service->shadow : NULL;
    job->point = model_point(job->model, job->ask->operating_point, err);
    return job->point != NULL;
}

static Thorax__V1__Status status_of(enum error_code code) {
    switch (code) {
    case ERROR_STATE:
        return THORAX__V1__STATUS__STATUS_NOT_READY;
    case ERROR_BUSY:
        return THORAX__V1__STATUS__STATUS_BUSY;
    case ERROR_INVALID:
        return THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT;
    default:
        return THORAX__V1__STATUS__STATUS_INTERNAL;
    }
}

static bool diagnose(struct service *service, struct request *request, struct bytes *reply, enum handled *how,
                     struct error *err) {
    struct error reason = {0};
    struct job *job = &request->job;
    job->ask = request->envelope->diagnosis_request;
    job->urgent = job->ask->priority == THORAX__V1__PRIORITY__PRIORITY_STAT;
    set_deadline(service, job);
    if (admit(service, job, &reason) && pipeline_submit(service->pipeline, job, &reason)) {
        pin(service, job); /* still whole: jobs come back to this thread only */
        *how = HANDLED_LATER;
        return true;
    }
    *how = HANDLED_NOW;
    struct refusal refusal = {
        .request_id = strlen(job->ask->request_id) <= ID_MAX_BYTES ? job->ask->request_id : "",
        .status = status_of(reason.code),
        .message = reason.message,
        .retry_after_ms = reason.code == ERROR_BUSY ? retry_after_ms(service) : 0,
    };
    return service_refuse(service, &refusal, reply, err);
}

const struct handler handler_diagnose = {
    .body = THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REQUEST, .name = "diagnose", .handle = diagnose};
