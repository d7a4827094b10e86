#include "trainerd/metrics_log.h"

#include "common/base/clock.h"
#include "common/base/file.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOG_LIMIT_BYTES = 1 << 30 };

struct metrics_log {
    int descriptor;
    char path[1024];
};

static json_t *metric_value(const struct metric *metric) {
    switch (metric->kind) {
    case METRIC_INTEGER:
        return json_integer(metric->integer);
    case METRIC_TEXT:
        return json_string(metric->text);
    case METRIC_REAL:
        return isfinite(metric->real) ? json_real(metric->real) : json_null();
    }
    return NULL;
}

char *metric_json(const char *event, const struct metric *metrics, int count) {
    char time[32];
    clock_timestamp(time, sizeof time);
    json_t *record = json_object();
    bool ok = json_object_set_new(record, "event", json_string(event)) == 0 &&
              json_object_set_new(record, "time", json_string(time)) == 0;
    for (int i = 0; i < count && ok; i++)
        ok = json_object_set_new(record, metrics[i].name, metric_value(&metrics[i])) == 0;
    char *line = ok ? json_dumps(record, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(record);
    return line;
}

/** Whether a line of an older run stays. A line that does not parse goes: it is of no use to any reader. */
static bool stays(const char *line, size_t length, int64_t keep_below) {
    json_t *record = json_loadb(line, length, 0, NULL);
    json_t *step = json_object_get(record, "step");
    bool keep = record && (keep_below < 0 || !json_is_integer(step) || json_integer_value(step) < keep_below);
    json_decref(record);
    return keep;
}

/** Rewrites an older file with the lines that stay. */
static bool prune(const char *path, int64_t keep_below, struct error *err) {
    struct bytes old;
    if (!file_exists(path))
        return true;
    if (!file_read(path, LOG_LIMIT_BYTES, &old, err))
        return false;
    size_t kept = 0;
    for (size_t start = 0; start < old.size;) {
        uint8_t *end = memchr(old.data + start, '\n', old.size - start);
        size_t next = end ? (size_t)(end - old.data) + 1 : old.size;
        if (end && stays((char *)old.data + start, next - 1 - start, keep_below)) {
            memmove(old.data + kept, old.data + start, next - start);
            kept += next - start;
        }
        start = next;
    }
    bool ok = kept == old.size || file_write_atomic(path, old.data, kept, err);
    free(old.data);
    return ok;
}

struct metrics_log *metrics_log_open(const char *path, int64_t keep_below, struct error *err) {
    if (!prune(path, keep_below, err))
        return NULL;
    struct metrics_log *log = calloc(1, sizeof *log);
    if (!log || strlen(path) >= sizeof log->path) {
        error_set(err, log ? ERROR_TOO_LARGE : ERROR_MEMORY, "%s: cannot open a log of metrics", path);
        free(log);
        return NULL;
    }
    memcpy(log->path, path, strlen(path) + 1);
    log->descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log->descriptor >= 0)
        return log;
    error_set_errno(err, "%s", path);
    free(log);
    return NULL;
}

void metrics_log_close(struct metrics_log *log) {
    if (!log)
        return;
    close(log->descriptor);
    free(log);
}

bool metrics_log_write(struct metrics_log *log, const char *event, const struct metric *metrics, int count,
                       struct error *err) {
    char *line = metric_json(event, metrics, count);
    if (!line)
        return error_set(err, ERROR_INVALID, "%s: the record \"%s\" is not UTF-8, or there is no memory",
                         log->path, event);
    size_t length = strlen(line);
    line[length] = '\n'; /* in the place of the NUL */
    bool ok = file_write_all(log->descriptor, line, length + 1, err) || error_prefix(err, "%s", log->path);
    free(line);
    return ok;
}
