#include "inferd/job.h"
#include <stdlib.h>

void job_fail(struct job *job, Thorax__V1__Status status, const struct error *err) {
    job->status = status;
    job->error = *err;
}

void job_fini(struct job *job) {
    model_release(job->model);
    job->model = NULL;
    shadow_drop(job->sample);
    job->sample = NULL;
    free(job->grey);
    job->grey = NULL;
}

ProtobufCBinaryData job_image_bytes(const struct job *job) {
    bool raw = job->ask->image_case == THORAX__V1__DIAGNOSIS_REQUEST__IMAGE_RAW;
    return raw ? job->ask->raw->data : job->ask->encoded;
}

bool job_expired(struct job *job, int64_t now_ns) {
    if (now_ns < job->deadline_ns) {
        return false;
    }
    job->status = THORAX__V1__STATUS__STATUS_DEADLINE_EXCEEDED;
    error_set(&job->error, ERROR_TIMEOUT, "the time was over before computing began; nothing was computed");
    return true;
}
