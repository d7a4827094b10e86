#include "inferd/router_monitor.h"
#include "common/base/clock.h"
#include "common/metrics/telemetry.h"
#include "common/wire/http.h"
#include <stdlib.h>
#include <string.h>

enum {
    OK = 200,
    UNAVAILABLE = 503,
    SILENT_LIMIT_MS = 10000 /* the router's thread turns at least each 200 ms */
};

struct router_monitor {
    const struct router *router;
    const char *version;
    int64_t started_ms;
    struct http_server *http;
};

static int answer_health(void *context, FILE *out) {
    const struct router_monitor *monitor = context;
    struct router_health health;
    router_health(monitor->router, &health);
    if (health.silent_ms > SILENT_LIMIT_MS) {
        fprintf(out, "the router's thread has been silent for %lld ms\n", (long long)health.silent_ms);
        return UNAVAILABLE;
    }
    fputs("ok\n", out);
    return OK;
}

static const char *why_not_ready(const struct router_health *health) {
    if (health->draining) {
        return "shutting down";
    }
    if (health->members_ready == 0) {
        return "no member takes requests";
    }
    return health->silent_ms > SILENT_LIMIT_MS ? "the router's thread is silent" : NULL;
}

static int answer_ready(void *context, FILE *out) {
    const struct router_monitor *monitor = context;
    struct router_health health;
    router_health(monitor->router, &health);
    const char *reason = why_not_ready(&health);
    fprintf(out, "%s\n", reason ? reason : "ready");
    return reason ? UNAVAILABLE : OK;
}

static const struct telemetry_family build = {"thorax_build_info", TELEMETRY_GAUGE, "The program; always 1."};
static const struct telemetry_family uptime = {"thorax_uptime_seconds", TELEMETRY_GAUGE,
                                               "Since the daemon began to listen."};
static const struct telemetry_family ready = {"thorax_ready", TELEMETRY_GAUGE, "1 while requests are taken."};
static const struct telemetry_family draining = {
    "thorax_draining", TELEMETRY_GAUGE, "1 while it finishes what it accepted and takes nothing new."};
static const struct telemetry_family in_flight = {"thorax_requests_in_flight", TELEMETRY_GAUGE,
                                                  "Accepted and not yet answered."};
static const struct telemetry_family queue_limit = {"thorax_requests_queue_limit", TELEMETRY_GAUGE,
                                                    "More in flight are refused as BUSY."};
static const struct telemetry_family undelivered = {"thorax_replies_undelivered_total", TELEMETRY_COUNTER,
                                                    "Answers whose asker was gone."};
static const struct telemetry_family members = {"thorax_router_members", TELEMETRY_GAUGE,
                                                "Members that are configured."};
static const struct telemetry_family members_ready = {"thorax_router_members_ready", TELEMETRY_GAUGE,
                                                      "Members that can be reached and take requests."};
static const struct telemetry_family sent = {"thorax_router_sent_total", TELEMETRY_COUNTER,
                                             "How often finished requests were sent to members; more than "
                                             "there are requests where some were asked again."};
static const struct telemetry_family requests = {"thorax_requests_total", TELEMETRY_COUNTER,
                                                 "Diagnosis requests by the status they ended in."};
static const struct telemetry_family request_seconds = {"thorax_request_seconds", TELEMETRY_HISTOGRAM,
                                                        "From a request's acceptance to its reply."};

/** Every status but UNSPECIFIED, also those that did not occur: a rate needs its zero. */
static void write_requests(const struct counters *counters, FILE *out) {
    telemetry_begin(out, &requests);
    for (int status = THORAX__V1__STATUS__STATUS_OK; status < COUNTERS_STATUSES; status++) {
        const struct telemetry_label labels[] = {{"status", client_status_name((Thorax__V1__Status)status)},
                                                 {NULL, NULL}};
        telemetry_value(out, &requests, labels, (double)counters->by_status[status]);
    }
}

static int answer_metrics(void *context, FILE *out) {
    const struct router_monitor *monitor = context;
    const struct counters *counters = router_counters(monitor->router);
    const struct telemetry_label labels[] = {
        {"program", "inferd"}, {"version", monitor->version}, {NULL, NULL}};
    struct router_health health;
    router_health(monitor->router, &health);
    telemetry_begin(out, &build);
    telemetry_value(out, &build, labels, 1);
    telemetry_single(out, &uptime, (double)(clock_now_ms() - monitor->started_ms) / 1000);
    telemetry_single(out, &ready, !why_not_ready(&health));
    telemetry_single(out, &draining, health.draining);
    telemetry_single(out, &in_flight, health.in_flight);
    telemetry_single(out, &queue_limit, health.queue_limit);
    telemetry_single(out, &undelivered, (double)counters->undelivered);
    telemetry_single(out, &members, health.members);
    telemetry_single(out, &members_ready, health.members_ready);
    telemetry_single(out, &sent, (double)router_sent(monitor->router));
    write_requests(counters, out);
    telemetry_begin(out, &request_seconds);
    telemetry_histogram(out, &request_seconds, NULL, &counters->request, &telemetry_seconds);
    return OK;
}

static const struct http_route routes[] = {
    {"/healthz", "text/plain; charset=utf-8", answer_health},
    {"/readyz", "text/plain; charset=utf-8", answer_ready},
    {"/metrics", TELEMETRY_CONTENT_TYPE, answer_metrics},
};

struct router_monitor *router_monitor_create(const struct router_monitor_spec *spec, struct error *err) {
    struct router_monitor *monitor = calloc(1, sizeof *monitor);
    if (!monitor) {
        error_set(err, ERROR_MEMORY, "no memory for the monitor");
        return NULL;
    }
    *monitor = (struct router_monitor){
        .router = spec->router, .version = spec->version, .started_ms = clock_now_ms()};
    struct http_spec http = {.bind = spec->bind,
                             .insecure = spec->insecure,
                             .routes = routes,
                             .route_count = sizeof routes / sizeof *routes,
                             .context = monitor};
    if (!(monitor->http = http_server_create(&http, err))) {
        free(monitor);
        return NULL;
    }
    return monitor;
}

void router_monitor_destroy(struct router_monitor *monitor) {
    if (monitor) {
        http_server_destroy(monitor->http);
        free(monitor);
    }
}

int router_monitor_port(const struct router_monitor *monitor) {
    return http_server_port(monitor->http);
}
