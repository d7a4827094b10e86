#include "common/metrics/telemetry.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>

static const char *const types[] = {
    [TELEMETRY_COUNTER] = "counter", [TELEMETRY_GAUGE] = "gauge", [TELEMETRY_HISTOGRAM] = "histogram"};

static const uint64_t second_bounds[] = {250,     500,     1000,     2500,     5000,    10000,
                                         25000,   50000,   100000,   250000,   500000,  1000000,
                                         2500000, 5000000, 10000000, 30000000, 60000000};
static const uint64_t image_bounds[] = {1, 2, 4, 8, 16, 32};

const struct telemetry_scale telemetry_seconds = {1e-6, second_bounds,
                                                  sizeof second_bounds / sizeof *second_bounds};
const struct telemetry_scale telemetry_images = {1, image_bounds, sizeof image_bounds / sizeof *image_bounds};

/** Backslash and line feed are escaped everywhere, the quote in label values only. */
static void write_escaped(FILE *out, const char *text, bool quoted) {
    for (; *text; text++) {
        if (*text == '\\')
            fputs("\\\\", out);
        else if (*text == '\n')
            fputs("\\n", out);
        else if (*text == '"' && quoted)
            fputs("\\\"", out);
        else
            fputc(*text, out);
    }
}

static void write_number(FILE *out, double value) {
    if (isnan(value))
        fputs("NaN", out);
    else if (isinf(value))
        fputs(value > 0 ? "+Inf" : "-Inf", out);
    else
        fprintf(out, "%.15g", value);
}

/** name{labels,le="bound"}, le only where it is not NULL. */
static void write_series(FILE *out, const char *name, const char *suffix,
                         const struct telemetry_label *labels, const char *le) {
    const char *separator = "{";
    fprintf(out, "%s%s", name, suffix);
    for (; labels && labels->name; labels++, separator = ",") {
        fprintf(out, "%s%s=\"", separator, labels->name);
        write_escaped(out, labels->value, true);
        fputc('"', out);
    }
    if (le) {
        fprintf(out, "%sle=\"%s\"", separator, le);
        separator = ",";
    }
    fputs(*separator == ',' ? "} " : " ", out);
}

void telemetry_begin(FILE *out, const struct telemetry_family *family) {
    fprintf(out, "# HELP %s ", family->name);
    write_escaped(out, family->help, false);
    fprintf(out, "\n# TYPE %s %s\n", family->name, types[family->type]);
}

void telemetry_value(FILE *out, const struct telemetry_family *family, const struct telemetry_label *labels,
                     double value) {
    write_series(out, family->name, "", labels, NULL);
    write_number(out, value);
    fputc('\n', out);
}

void telemetry_single(FILE *out, const struct telemetry_family *family, double value) {
    telemetry_begin(out, family);
    telemetry_value(out, family, NULL, value);
}

void telemetry_histogram(FILE *out, const struct telemetry_family *family,
                         const struct telemetry_label *labels, const struct histogram *histogram,
                         const struct telemetry_scale *scale) {
    uint64_t seen = 0;
    int bucket = 0;
    for (int i = 0; i < scale->count; i++) {
        char le[32];
        for (; bucket < HISTOGRAM_BUCKETS && histogram_high_us(bucket) <= scale->bounds[i]; bucket++)
            seen += histogram->counts[bucket];
        snprintf(le, sizeof le, "%.15g", (double)scale->bounds[i] * scale->unit);
        write_series(out, family->name, "_bucket", labels, le);
        fprintf(out, "%" PRIu64 "\n", seen);
    }
    for (; bucket < HISTOGRAM_BUCKETS; bucket++)
        seen += histogram->counts[bucket];
    write_series(out, family->name, "_bucket", labels, "+Inf");
    fprintf(out, "%" PRIu64 "\n", seen);
    write_series(out, family->name, "_sum", labels, NULL);
    write_number(out, (double)histogram->sum_us * scale->unit);
    fputc('\n', out);
    write_series(out, family->name, "_count", labels, NULL);
    fprintf(out, "%" PRIu64 "\n", seen);
}
