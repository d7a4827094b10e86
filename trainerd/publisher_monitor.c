#include "trainerd/publisher_monitor.h"

#include "common/base/clock.h"
#include "common/metrics/telemetry.h"
#include "common/wire/http.h"

#include <stdlib.h>

enum {
    OK = 200,
    UNAVAILABLE = 503,
    SILENT_LIMIT_MS =
        60000, /* looking into an uploaded model may take its time; it turns each second otherwise */
    DIGEST_PREFIX = 12,
};

struct publisher_monitor {
    struct publisher *publisher;
    const char *version;
    int64_t started_ms;
    struct http_server *http;
};

/** Why the publisher is not to be asked anything; NULL where it is well. */
static const char *why_not_well(const struct publisher_monitor *monitor) {
    if (monitor->publisher && publisher_silent_ms(monitor->publisher) > SILENT_LIMIT_MS)
        return "the publisher's thread is silent";
    return NULL;
}

static int answer_health(void *context, FILE *out) {
    const char *reason = why_not_well(context);
    fprintf(out, "%s\n", reason ? reason : "ok");
    return reason ? UNAVAILABLE : OK;
}

/** A publisher that exists has its record open and its sockets bound; that it answers shows that it takes
 * requests. */
static int answer_ready(void *context, FILE *out) {
    struct publisher_monitor *monitor = context;
    struct publisher_status status;
    struct error err = {0};
    const char *reason = why_not_well(monitor);
    if (!reason && monitor->publisher && !publisher_status(monitor->publisher, &status, &err))
        reason = err.message;
    fprintf(out, "%s\n", reason ? reason : monitor->publisher ? "ready" : "training; nothing is published");
    return reason ? UNAVAILABLE : OK;
}

static double members(const struct publisher_status *status) {
    return status->members;
}

static double members_current(const struct publisher_status *status) {
    return status->members_current;
}

static double members_failed(const struct publisher_status *status) {
    return status->members_failed;
}

static double models(const struct publisher_status *status) {
    return status->models;
}

static double number(const struct publisher_status *status) {
    return (double)status->number;
}

static double uploads(const struct publisher_status *status) {
    return (double)status->uploads;
}

static double sent_bytes(const struct publisher_status *status) {
    return (double)status->sent_bytes;
}

static double rollout_state(const struct publisher_status *status) {
    return status->rollout_state;
}

/** Numbers without labels. To add one: a function above and a row here. */
static const struct row {
    struct telemetry_family family;
    double (*value)(const struct publisher_status *status);
} rows[] = {
    {{"thorax_publisher_members", TELEMETRY_GAUGE, "Members that were heard of lately."}, members},
    {{"thorax_publisher_members_current", TELEMETRY_GAUGE,
      "Of these: run the model that the pool is to run."},
     members_current},
    {{"thorax_publisher_members_failed", TELEMETRY_GAUGE,
      "Of these: could not fetch or activate what they should run."},
     members_failed},
    {{"thorax_publisher_models", TELEMETRY_GAUGE, "Models that are published, retired ones included."},
     models},
    {{"thorax_publisher_event_number", TELEMETRY_GAUGE, "Number of the last event."}, number},
    {{"thorax_publisher_uploads_total", TELEMETRY_COUNTER,
      "Models that arrived whole over the network and were accepted."},
     uploads},
    {{"thorax_publisher_rollout_state", TELEMETRY_GAUGE,
      "Of the newest rollout: 1 running, 2 paused, 3 done, 4 rolling back, 5 rolled back; 0: there never was one."},
     rollout_state},
    {{"thorax_publisher_sent_bytes_total", TELEMETRY_COUNTER, "Of models, to members."}, sent_bytes},
};

static const struct telemetry_family build = {"thorax_build_info", TELEMETRY_GAUGE, "The program; always 1."};
static const struct telemetry_family uptime = {"thorax_uptime_seconds", TELEMETRY_GAUGE,
                                               "Since the daemon began to listen."};
static const struct telemetry_family current = {"thorax_publisher_current_info", TELEMETRY_GAUGE,
                                                "The model that the pool is to run; always 1."};

static void write_publisher(const struct publisher_status *status, FILE *out) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        telemetry_single(out, &rows[i].family, rows[i].value(status));
    if (status->has_current) {
        char hex[DIGEST_HEX_SIZE];
        digest_hex(&status->current, hex);
        hex[DIGEST_PREFIX] = 0;
        const struct telemetry_label labels[] = {{"digest", hex}, {NULL, NULL}};
        telemetry_begin(out, &current);
        telemetry_value(out, &current, labels, 1);
    }
}

static int answer_metrics(void *context, FILE *out) {
    struct publisher_monitor *monitor = context;
    struct publisher_status status;
    const struct telemetry_label labels[] = {
        {"program", "trainerd"}, {"version", monitor->version}, {NULL, NULL}};
    telemetry_begin(out, &build);
    telemetry_value(out, &build, labels, 1);
    telemetry_single(out, &uptime, (double)(clock_now_ms() - monitor->started_ms) / 1000);
    if (monitor->publisher && !why_not_well(monitor) && publisher_status(monitor->publisher, &status, NULL))
        write_publisher(&status, out);
    return OK;
}

static const struct http_route routes[] = {
    {"/healthz", "text/plain; charset=utf-8", answer_health},
    {"/readyz", "text/plain; charset=utf-8", answer_ready},
    {"/metrics", TELEMETRY_CONTENT_TYPE, answer_metrics},
};

struct publisher_monitor *publisher_monitor_create(const struct publisher_monitor_spec *spec,
                                                   struct error *err) {
    struct publisher_monitor *monitor = calloc(1, sizeof *monitor);
    if (!monitor) {
        error_set(err, ERROR_MEMORY, "out of memory for the monitor");
        return NULL;
    }
    monitor->publisher = spec->publisher;
    monitor->version = spec->version;
    monitor->started_ms = clock_now_ms();
    struct http_spec http = {.bind = spec->bind,
                             .insecure = spec->insecure,
                             .routes = routes,
                             .route_count = sizeof routes / sizeof *routes,
                             .context = monitor};
    if ((monitor->http = http_server_create(&http, err)))
        return monitor;
    free(monitor);
    return NULL;
}

void publisher_monitor_destroy(struct publisher_monitor *monitor) {
    if (monitor) {
        http_server_destroy(monitor->http);
        free(monitor);
    }
}

int publisher_monitor_port(const struct publisher_monitor *monitor) {
    return http_server_port(monitor->http);
}
