#include "inferd/decode.h"
#include "common/base/clock.h"
#include "common/image/preprocess.h"
#include <limits.h>
#include <stdlib.h>

static Thorax__V1__Status status_of(enum error_code code) {
    switch (code) {
    case ERROR_TOO_LARGE:
        return THORAX__V1__STATUS__STATUS_TOO_LARGE;
    case ERROR_FORMAT:
    case ERROR_UNSUPPORTED:
        return THORAX__V1__STATUS__STATUS_UNSUPPORTED_MEDIA;
    case ERROR_INVALID:
    case ERROR_SHAPE:
        return THORAX__V1__STATUS__STATUS_INVALID_ARGUMENT;
    default:
        return THORAX__V1__STATUS__STATUS_INTERNAL;
    }
}

/** An unsigned number of the wire as an int; too large a one becomes one that every limit refuses. */
static int as_int(uint32_t value) {
    return value > INT_MAX ? INT_MAX : (int)value;
}

static bool read_raw(const Thorax__V1__RawPixels *raw, const struct image_limits *limits, struct image *out,
                     struct error *err) {
    static const enum image_photometric photometric[] = {
        [THORAX__V1__PHOTOMETRIC__PHOTOMETRIC_UNSPECIFIED] = IMAGE_PHOTOMETRIC_UNSPECIFIED,
        [THORAX__V1__PHOTOMETRIC__PHOTOMETRIC_MONOCHROME1] = IMAGE_MONOCHROME1,
        [THORAX__V1__PHOTOMETRIC__PHOTOMETRIC_MONOCHROME2] = IMAGE_MONOCHROME2,
    };
    struct raw_pixels pixels = {.data = raw->data.data,
                                .size = raw->data.len,
                                .rows = as_int(raw->rows),
                                .columns = as_int(raw->columns),
                                .bits_allocated = as_int(raw->bits_allocated),
                                .bits_stored = as_int(raw->bits_stored),
                                .is_signed = raw->is_signed,
                                .photometric = photometric[raw->photometric]};
    if (image_from_raw(&pixels, limits, out, err)) {
        return true;
    }
    /* There is no file that could be damaged: the request's own fields disagree. */
    if (err->code == ERROR_FORMAT) {
        err->code = ERROR_INVALID;
    }
    return false;
}

static bool read_image(const Thorax__V1__DiagnosisRequest *ask, const struct image_limits *limits,
                       struct image *out, struct error *err) {
    if (ask->image_case == THORAX__V1__DIAGNOSIS_REQUEST__IMAGE_RAW) {
        return read_raw(ask->raw, limits, out, err);
    }
    return image_decode(ask->encoded.data, ask->encoded.len, limits, out, err);
}

static bool preprocess(struct job *job, const struct image_limits *limits, struct error *err) {
    const struct recipe *recipe = &job->model->info.recipe;
    struct image image = {0};
    if (!read_image(job->ask, limits, &image, err)) {
        return false;
    }
    job->grey = malloc(recipe_pixels(recipe));
    bool ok = job->grey ? preprocess_pixels(recipe, &image, job->grey, err)
                        : error_set(err, ERROR_MEMORY, "no memory for the picture");
    job->sample = ok ? shadow_begin(job->shadow, job->model, &image, job->grey) : NULL;
    image_fini(&image);
    return ok;
}

bool decode_job(struct job *job, const struct image_limits *limits) {
    struct error err = {0};
    int64_t start = clock_now_ns();
    job->queue_us = (uint64_t)(start - job->arrived_ns) / 1000;
    if (job_expired(job, start)) {
        return false;
    }
    ProtobufCBinaryData bytes = job_image_bytes(job);
    job->digest = digest_of(bytes.data, bytes.len);
    job->has_digest = true;
    bool ok = preprocess(job, limits, &err);
    if (!ok) {
        job_fail(job, status_of(err.code), &err);
    }
    job->decode_us = (uint64_t)(clock_now_ns() - start) / 1000;
    return ok;
}
