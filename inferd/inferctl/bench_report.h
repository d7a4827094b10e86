#pragma once
#include "common/base/error.h"
#include "common/metrics/histogram.h"
#include "inferd/inferctl/bench_pacer.h"
#include "proto/diagnosis.pb-c.h"
#include <stdio.h>

enum {
    BENCH_MAX_MODELS = 64,
    BENCH_MODEL_SIZE = 220,
    BENCH_STATUSES = THORAX__V1__STATUS__STATUS_PERMISSION_DENIED + 1
};

/** How many answers named this model. */
struct bench_model {
    char name[BENCH_MODEL_SIZE]; /**< name:version */
    uint64_t answers;
};

/** What a load run came to. Zeroed is empty. */
struct bench_result {
    struct bench_pacer_spec pace; /**< what was asked for */
    double seconds;               /**< until the last reply */
    struct histogram latency;     /**< of answers, from the intended time of sending */
    struct histogram
        send_delay; /**< how late requests were sent: the load's own fault, and no part of the members' */
    uint64_t sent;
    uint64_t by_status[BENCH_STATUSES]; /**< checked replies that are not OK */
    uint64_t lost;                      /**< no reply within the time */
    uint64_t wrong; /**< a reply that failed a check: another request's id, another image's digest, no
                       complete answer */
    uint64_t stray; /**< messages that belong to nothing outstanding, such as replies to what was given up */
    uint64_t held;  /**< were due and had to wait, because too many were outstanding */
    struct error failure; /**< the first of lost and wrong */
    int model_count;
    struct bench_model models[BENCH_MAX_MODELS]; /**< in the order in which they were first heard of */
};

/** Counts answers of a model; more than BENCH_MAX_MODELS different ones are not told apart. */
void bench_count_model(struct bench_result *result, const char *name, uint64_t answers);

/** Answers a second. */
double bench_rate(const struct bench_result *result);
/** Checked replies that are not OK. */
uint64_t bench_refused(const struct bench_result *result);

/** Writes a table, or JSON with the latencies' buckets: results add up by adding the counts of equal buckets.
 */
void bench_report(const struct bench_result *result, bool json, FILE *out);

/** Steps of a closed loop with a rising number of clients: which of them answered most in a second. */
void bench_report_saturation(const struct bench_result *steps, int count, bool json, FILE *out);
