#include "common/base/clock.h"
#include "inferd/handlers/handler.h"

static const struct handler *const rows[] = {&handler_diagnose, &handler_status, &handler_drain};

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

static void count_times(struct counters *counters, const struct job *job) {
    histogram_record(&counters->request, (uint64_t)(clock_now_ns() - job->arrived_ns) / 1000);
    histogram_record(&counters->stages[COUNTERS_QUEUE], job->queue_us - job->batch_us);
    if (job->has_digest) {
        histogram_record(&counters->stages[COUNTERS_DECODE], job->decode_us);
    }
    if (job->computed) {
        histogram_record(&counters->stages[COUNTERS_BATCH], job->batch_us);
        histogram_record(&counters->stages[COUNTERS_COMPUTE], job->compute_us);
    }
}

/** By the model that was chosen; what a request itself is to blame for says nothing of it. */
static void count_model(struct model_stats *stats, const struct job *job) {
    if (stats && job->status == THORAX__V1__STATUS__STATUS_OK) {
        uint64_t latency_us = (uint64_t)(clock_now_ns() - job->arrived_ns) / 1000;
        model_stats_answered(stats, &job->model->info.digest, latency_us);
    } else if (stats && job->status == THORAX__V1__STATUS__STATUS_INTERNAL) {
        model_stats_failed(stats, &job->model->info.digest);
    }
}

bool service_conclude(struct service *service, struct job *job, struct bytes *reply,
                      struct error *err) {
    atomic_fetch_add(&service->counters.by_status[job->status], 1);
    count_times(&service->counters, job);
    count_model(service->stats, job);
    bool ok = reply_to_job(job, service->member, reply, err);
    if (job->sample && job->status == THORAX__V1__STATUS__STATUS_OK) {
        shadow_submit(job->sample, &job->model->info, job->verdict.probabilities);
        job->sample = NULL;
    }
    return ok;
}
