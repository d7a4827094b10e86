#include "inferd/inferctl/bench_report.h"
#include "common/base/text.h"
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

void bench_count_model(struct bench_result *result, const char *name, uint64_t answers) {
    int i = 0;
    while (i < result->model_count && strcmp(result->models[i].name, name) != 0)
        i++;
    if (i == BENCH_MAX_MODELS)
        return;
    if (i == result->model_count) {
        result->model_count++;
        text_copy(result->models[i].name, sizeof result->models[i].name, name);
    }
    result->models[i].answers += answers;
}

static void print_json(const struct bench_result *result) {
    json_t *latency = json_object();
    for (int i = 0; i < PERCENTILES; i++) {
        json_object_set_new(
            latency, percentiles[i].name,
            json_integer(bench_percentile(result->latencies_us, result->answered, percentiles[i].share)));
    }
    json_t *models = json_object();
    for (int i = 0; i < result->model_count; i++) {
        json_object_set_new(models, result->models[i].name, json_integer((json_int_t)result->models[i].answers));
    }
    json_t *out = json_pack("{s:s, s:i, s:f, s:I, s:I, s:I, s:I, s:f, s:o, s:o}", "load", "closed", "askers",
                            result->askers, "seconds", result->seconds, "answered",
                            (json_int_t)result->answered, "refused", (json_int_t)result->refused, "lost",
                            (json_int_t)result->lost, "wrong", (json_int_t)result->wrong, "per_second",
                            (double)result->answered / result->seconds, "latency_us", latency, "models", models);
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
    for (int i = 0; i < result->model_count; i++) {
        printf("by model     %s: %" PRIu64 "\n", result->models[i].name, result->models[i].answers);
    }
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
