#include "inferd/inferctl/bench_report.h"
#include "common/base/text.h"
#include "inferd/client/client.h"
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

static const struct {
    const char *name;
    double share;
} percentiles[] = {{"p50", .5}, {"p90", .9}, {"p99", .99}, {"p999", .999}, {"max", 1}};
enum { PERCENTILES = sizeof percentiles / sizeof *percentiles };

void bench_count_model(struct bench_result *result, const char *name, uint64_t answers) {
    int i = 0;
    while (i < result->model_count && strcmp(result->models[i].name, name) != 0) {
        i++;
    }
    if (i == BENCH_MAX_MODELS) {
        return;
    }
    if (i == result->model_count) {
        result->model_count++;
        text_copy(result->models[i].name, sizeof result->models[i].name, name);
    }
    result->models[i].answers += answers;
}

double bench_rate(const struct bench_result *result) {
    return result->seconds > 0 ? (double)result->latency.total / result->seconds : 0;
}

uint64_t bench_refused(const struct bench_result *result) {
    uint64_t refused = 0;
    for (int i = 0; i < BENCH_STATUSES; i++) {
        refused += result->by_status[i];
    }
    return refused;
}

static bool is_open(const struct bench_result *result) {
    return result->pace.rate > 0;
}

/* ---- JSON ---- */

static json_t *quantiles_json(const struct histogram *histogram) {
    json_t *out = json_object();
    for (int i = 0; i < PERCENTILES; i++) {
        uint64_t value_us = histogram_quantile_us(histogram, percentiles[i].share);
        json_object_set_new(out, percentiles[i].name, json_integer((json_int_t)value_us));
    }
    return out;
}

/** Which buckets hold how many: of common/metrics/histogram.h, in microseconds. */
static json_t *buckets_json(const struct histogram *histogram) {
    json_t *buckets = json_array();
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (histogram->counts[i]) {
            json_array_append_new(buckets, json_pack("[i, I]", i, (json_int_t)histogram->counts[i]));
        }
    }
    return json_pack("{s:i, s:I, s:o}", "sub_bits", HISTOGRAM_SUB_BITS, "sum_us",
                     (json_int_t)histogram->sum_us, "buckets", buckets);
}

static json_t *statuses_json(const struct bench_result *result) {
    json_t *out = json_object();
    for (int i = 0; i < BENCH_STATUSES; i++) {
        if (result->by_status[i]) {
            json_object_set_new(out, client_status_name((Thorax__V1__Status)i),
                                json_integer((json_int_t)result->by_status[i]));
        }
    }
    return out;
}

static json_t *models_json(const struct bench_result *result) {
    json_t *out = json_object();
    for (int i = 0; i < result->model_count; i++) {
        json_object_set_new(out, result->models[i].name, json_integer((json_int_t)result->models[i].answers));
    }
    return out;
}

static json_t *result_json(const struct bench_result *result) {
    json_t *out = json_pack("{s:s, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:o, s:o, s:o}", "load",
                            is_open(result) ? "open" : "closed", "seconds", result->seconds, "sent",
                            (json_int_t)result->sent, "answered", (json_int_t)result->latency.total,
                            "refused", (json_int_t)bench_refused(result), "lost", (json_int_t)result->lost,
                            "wrong", (json_int_t)result->wrong, "stray", (json_int_t)result->stray,
                            "per_second", bench_rate(result), "refused_by_status", statuses_json(result),
                            "latency_us", quantiles_json(&result->latency), "models", models_json(result));
    json_object_set_new(out, "latency_histogram", buckets_json(&result->latency));
    if (is_open(result)) {
        json_object_set_new(out, "rate", json_real(result->pace.rate));
        json_object_set_new(out, "seed", json_integer((json_int_t)result->pace.seed));
        json_object_set_new(out, "outstanding_limit", json_integer(result->pace.outstanding));
        json_object_set_new(out, "held", json_integer((json_int_t)result->held));
        json_object_set_new(out, "send_delay_us", quantiles_json(&result->send_delay));
    } else {
        json_object_set_new(out, "askers", json_integer(result->pace.outstanding));
    }
    return out;
}

/** Takes root. */
static void write_json(json_t *root, FILE *out) {
    json_dumpf(root, out, JSON_INDENT(2));
    fputc('\n', out);
    json_decref(root);
}

/* ---- tables ---- */

static void write_table(const struct bench_result *result, FILE *out) {
    if (is_open(result)) {
        fprintf(out, "open loop    %.1f a second wanted, %.2f s; latencies count from the intended time\n",
                result->pace.rate, result->seconds);
    } else {
        fprintf(out, "closed loop  %d askers, %.2f s\n", result->pace.outstanding, result->seconds);
    }
    fprintf(out, "answered     %" PRIu64 " (%.1f a second) of %" PRIu64 " sent\n", result->latency.total,
            bench_rate(result), result->sent);
    fprintf(out, "refused      %" PRIu64 "\n", bench_refused(result));
    for (int i = 0; i < BENCH_STATUSES; i++) {
        if (result->by_status[i]) {
            fprintf(out, "  %-10s %" PRIu64 "\n", client_status_name((Thorax__V1__Status)i),
                    result->by_status[i]);
        }
    }
    fprintf(out, "lost         %" PRIu64 "\nwrong        %" PRIu64 "\n", result->lost, result->wrong);
    if (is_open(result)) {
        fprintf(out, "held         %" PRIu64 " (at most %d outstanding)\n", result->held,
                result->pace.outstanding);
        fprintf(out, "sent late    p99 %.2f ms\n",
                (double)histogram_quantile_us(&result->send_delay, .99) / 1000);
    }
    for (int i = 0; i < result->model_count; i++) {
        fprintf(out, "by model     %s: %" PRIu64 "\n", result->models[i].name, result->models[i].answers);
    }
    for (int i = 0; i < PERCENTILES; i++) {
        double value_ms = (double)histogram_quantile_us(&result->latency, percentiles[i].share) / 1000;
        fprintf(out, "%-12s %.2f ms\n", percentiles[i].name, value_ms);
    }
}

void bench_report(const struct bench_result *result, bool json, FILE *out) {
    if (json) {
        write_json(result_json(result), out);
    } else {
        write_table(result, out);
    }
}

/* ---- saturation ---- */

static const struct bench_result *best_of(const struct bench_result *steps, int count) {
    const struct bench_result *best = &steps[0];
    for (int i = 1; i < count; i++) {
        best = bench_rate(&steps[i]) > bench_rate(best) ? &steps[i] : best;
    }
    return best;
}

void bench_report_saturation(const struct bench_result *steps, int count, bool json, FILE *out) {
    const struct bench_result *best = best_of(steps, count);
    if (json) {
        json_t *rows = json_array();
        for (int i = 0; i < count; i++) {
            json_array_append_new(rows, result_json(&steps[i]));
        }
        write_json(json_pack("{s:s, s:f, s:i, s:o}", "load", "saturation", "saturation_per_second",
                             bench_rate(best), "askers", best->pace.outstanding, "steps", rows),
                   out);
        return;
    }
    fprintf(out, "%7s %12s %10s %10s %9s\n", "askers", "per second", "p50 ms", "p99 ms", "refused");
    for (int i = 0; i < count; i++) {
        const struct bench_result *step = &steps[i];
        fprintf(out, "%7d %12.1f %10.2f %10.2f %9" PRIu64 "\n", step->pace.outstanding, bench_rate(step),
                (double)histogram_quantile_us(&step->latency, .5) / 1000,
                (double)histogram_quantile_us(&step->latency, .99) / 1000, bench_refused(step));
    }
    fprintf(out, "saturation   %.1f a second with %d askers\n", bench_rate(best), best->pace.outstanding);
}
