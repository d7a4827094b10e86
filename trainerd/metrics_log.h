#pragma once
#include "common/base/error.h"
#include <stdint.h>

/** A named value of a record. Plain data; name and text are borrowed. */
struct metric {
    const char *name;
    enum metric_kind { METRIC_REAL, METRIC_INTEGER, METRIC_TEXT } kind;
    double real;
    int64_t integer;
    const char *text;
};

static inline struct metric metric_real(const char *name, double value) {
    return (struct metric){.name = name, .kind = METRIC_REAL, .real = value};
}
static inline struct metric metric_integer(const char *name, int64_t value) {
    return (struct metric){.name = name, .kind = METRIC_INTEGER, .integer = value};
}
static inline struct metric metric_text(const char *name, const char *value) {
    return (struct metric){.name = name, .kind = METRIC_TEXT, .text = value};
}

/**
 * One line of JSON without the line's end: {"event": event, "time": "2026-...Z", name: value, ...}, in that
 * order. What is not finite becomes null, as JSON has no NaN. Returns owned (free), NULL where memory ends or
 * text is not UTF-8.
 */
char *metric_json(const char *event, const struct metric *metrics, int count);

/** runs/NAME/metrics.jsonl: one JSON record a line, appended, each line one write. Opaque; one thread at a
 * time. */
struct metrics_log;

/**
 * Opens or makes the file. keep_below: of a file that is there, keep the records whose "step" is below it
 * (those without a step stay) and drop the rest and a torn last line, so that a resumed run does not tell its
 * steps twice; 0 for a new run: everything with a step is dropped; negative: keep all whole lines. Returns
 * owned; errors name the file.
 */
struct metrics_log *metrics_log_open(const char *path, int64_t keep_below, struct error *err);
/** Takes NULL. */
void metrics_log_close(struct metrics_log *log);
/** Appends one record. */
bool metrics_log_write(struct metrics_log *log, const char *event, const struct metric *metrics, int count,
                       struct error *err);
