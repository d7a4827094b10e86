#pragma once
#include "common/metrics/histogram.h"
#include <stdio.h>

/**
 * Prometheus' text format, version 0.0.4: what /metrics answers. Names are `thorax_...` with a base unit at
 * the end (seconds, bytes) and `_total` on counters. Labels never hold anything about a patient. Write errors
 * are left in the stream (ferror). Source: prometheus.io, "Exposition formats" and "Metric and label naming".
 */
#define TELEMETRY_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

enum telemetry_type { TELEMETRY_COUNTER, TELEMETRY_GAUGE, TELEMETRY_HISTOGRAM };

/** What the samples of one name are about. */
struct telemetry_family {
    const char *name; /**< [a-zA-Z_:][a-zA-Z0-9_:]* */
    enum telemetry_type type;
    const char *help;
};

/** One label of a sample; a list of them ends with a name of NULL. The value is any UTF-8. */
struct telemetry_label {
    const char *name, *value;
};

/** HELP and TYPE: once for a family, before its samples, which follow without another family's between them.
 */
void telemetry_begin(FILE *out, const struct telemetry_family *family);
/** A sample of a counter or gauge. labels: NULL where there are none. */
void telemetry_value(FILE *out, const struct telemetry_family *family, const struct telemetry_label *labels,
                     double value);
/** Both at once, for a family of one sample without labels. */
void telemetry_single(FILE *out, const struct telemetry_family *family, double value);

/** How a histogram's whole numbers are shown: the upper bounds of its buckets, and what one of them is worth.
 */
struct telemetry_scale {
    double unit;            /**< 1e-6: microseconds are shown as seconds */
    const uint64_t *bounds; /**< (count), rising, in the histogram's numbers; +Inf follows by itself */
    int count;
};
extern const struct telemetry_scale telemetry_seconds; /**< of microseconds: 250 us to 60 s */
extern const struct telemetry_scale telemetry_images; /**< of numbers of images: 1 to 32, the powers of two */

/**
 * A histogram as cumulative buckets, sum and count. A value counts as below a bound where all of its own
 * bucket (at most 1/32 wide) is, so never too early. Count and buckets agree although others record
 * meanwhile.
 */
void telemetry_histogram(FILE *out, const struct telemetry_family *family,
                         const struct telemetry_label *labels, const struct histogram *histogram,
                         const struct telemetry_scale *scale);
