#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BENCH_MAX_MODELS = 64, BENCH_MODEL_SIZE = 220 };

/** How many answers named this model. */
struct bench_model {
    char name[BENCH_MODEL_SIZE]; /**< name:version */
    uint64_t answers;
};

/** What a load run came to. */
struct bench_result {
    int askers;
    double seconds;
    int64_t *latencies_us; /**< of answered requests; sorted in place by the report */
    size_t answered;
    uint64_t refused; /**< a checked reply that is not OK */
    uint64_t lost;    /**< no reply within the time */
    uint64_t wrong;   /**< a reply that failed a check: another request's id, another image's digest, no
                         complete answer */
    int model_count;
    struct bench_model models[BENCH_MAX_MODELS]; /**< in the order in which they were first heard of */
};

/** Counts answers of a model; more than BENCH_MAX_MODELS different ones are not told apart. */
void bench_count_model(struct bench_result *result, const char *name, uint64_t answers);

/** The value below which that share (0..1) of count sorted values lies: nearest rank. 0 where there are none.
 */
int64_t bench_percentile(const int64_t *sorted, size_t count, double share);

/** Prints a table, or JSON. */
void bench_report(struct bench_result *result, bool json);
