#include "inferd/inferctl/bench_report.h"
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
    const char *name;
    double share;
} percentiles[] = {{"p50", .5}, {"p90", .9}, {"p95", .95}, {"p99", .99}, {"p999", .999}, {"max", 1}};
enum { PERCENTILES = sizeof percentiles / sizeof *percentiles };

static int compare(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int64_t bench_percentile(const int64_t *sorted, size_t count, double share) {
    if (count == 0) {
        return 0;
    }
    size_t rank = (size_t)ceil(share * (double)count);
    return sorted[rank == 0 ? 0 : rank > count ? count - 1 : rank - 1];
}

static void print_json(const struct bench_result *result) {
    json_t *latency = json_object();
    for (int i = 0; i < PERCENTILES; i++) {
        json_object_set_new(
            latency, percentiles[i].name,
            json_integer(bench_percentile(result->latencies_us, result->answered, percentiles[i].share)));
    }
    json_t *out = json_pack("{s:s, s:i, s:f, s:I, s:I, s:I, s:I, s:f, s:o}", "load", "closed", "askers",
                            result->askers, "seconds", result->seconds, "answered",
                            (json_int_t)result->answered, "refused", (json_int_t)result->refused, "lost",
                            (json_int_t)result->lost, "wrong", (json_int_t)result->wrong, "per_second",
                            (double)result->answered / result->seconds, "latency_us", latency);
    json_dumpf(out, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(out);
}

static void print_table(const struct bench_result *result) {
    printf("closed loop  %d askers, %.2f s\n", result->askers, result->seconds);
    printf("answered     %zu (%.1f a second)\n", result->answered,
           (double)result->answered / result->seconds);
    printf("refused      %" PRIu64 "\nlost         %" PRIu64 "\nwrong        %" PRIu64 "\n", result->refused,
           result->lost, result->wrong);
    for (int i = 0; i < PERCENTILES; i++) {
        printf("%-12s %.2f ms\n", percentiles[i].name,
               (double)bench_percentile(result->latencies_us, result->answered, percentiles[i].share) / 1000);
    }
}

void bench_report(struct bench_result *result, bool json) {
    if (result->answered) {
        qsort(result->latencies_us, result->answered, sizeof *result->latencies_us, compare);
    }
    (json ? print_json : print_table)(result);
}
