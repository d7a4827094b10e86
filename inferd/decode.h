#pragma once
#include "common/image/image.h"
#include "inferd/job.h"

/**
 * Takes the digest of the job's image, decodes it and preprocesses it by the recipe of the job's model into
 * job->grey. False: the job has its outcome (UNSUPPORTED_MEDIA, TOO_LARGE, INVALID_ARGUMENT,
 * DEADLINE_EXCEEDED before anything is decoded, INTERNAL). Thread-safe.
 */
bool decode_job(struct job *job, const struct image_limits *limits);
