#pragma once
#include "common/base/digest.h"
#include "common/base/file.h"
#include "inferd/client/keys.h"
#include "inferd/inferctl/bench_pacer.h"
#include "inferd/inferctl/bench_report.h"

/** One of the pictures that a load asks about, in rotation. */
struct bench_image {
    struct bytes file;
    struct digest digest; /**< of file */
};

struct bench_load_spec {
    const char *const *endpoints; /**< (endpoint_count); the one with the fewest outstanding is asked next */
    int endpoint_count;           /**< 1 to BENCH_MAX_ENDPOINTS */
    const struct client_keys *keys; /**< borrowed; one server key for all endpoints, or one each; NULL: clear text */
    const struct bench_image *images;
    int image_count; /**< at least 1 */
    struct bench_pacer_spec pace;
    const char *operating_point; /**< NULL: the default */
    bool stat;
    int64_t timeout_ms; /**< a request without a reply for so long is lost */
};

enum { BENCH_MAX_ENDPOINTS = 32, BENCH_MAX_OUTSTANDING = 65536 };

/**
 * Sends a load over DEALER sockets from the calling thread, checks every reply (request id, image digest,
 * form), and waits for what is outstanding at the end. A signal ends it early, with its result. False only
 * where it cannot run; requests that were lost or answered wrongly are in the result.
 */
bool bench_load_run(const struct bench_load_spec *spec, struct bench_result *out, struct error *err);
