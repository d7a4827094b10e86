#include "inferd/monitor.h"
#include "common/base/clock.h"
#include "common/metrics/telemetry.h"
#include "common/wire/http.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    OK = 200,
    UNAVAILABLE = 503,
    SILENT_LIMIT_MS = 10000,     /* the server's thread turns at least each 200 ms */
    COMPUTING_LIMIT_MS = 120000, /* no batch takes so long: the device hangs */
    DIGEST_PREFIX = 12,
};

struct monitor {
    const struct server *server;
    struct slot *slot;
    struct shadow *shadow; /* NULL: there are none */
    const char *version;
    int64_t started_ms;
    _Atomic(struct subscriber *) subscriber; /* NULL: follows nobody, or not yet */
    struct http_server *http;
};

/* ---- health ---- */

static int answer_health(void *context, FILE *out) {
    struct monitor *monitor = context;
    struct server_health health;
    server_health(monitor->server, &health);
    if (health.silent_ms > SILENT_LIMIT_MS) {
        fprintf(out, "the server's thread has been silent for %lld ms\n", (long long)health.silent_ms);
        return UNAVAILABLE;
    }
    if (health.computing_ms > COMPUTING_LIMIT_MS) {
        fprintf(out, "a batch has been computed for %lld ms\n", (long long)health.computing_ms);
        return UNAVAILABLE;
    }
    fputs("ok\n", out);
    return OK;
}

static const char *why_not_ready(const struct server_health *health, const struct model *model) {
    if (health->draining) {
        return "shutting down";
    }
    if (health->lost) {
        return "a GPU is lost: the process has to be started anew";
    }
    if (!model) {
        return "no model yet";
    }
    if (health->silent_ms < 0) {
        return "starting";
    }
    return health->silent_ms > SILENT_LIMIT_MS ? "the server's thread is silent" : NULL;
}

static int answer_ready(void *context, FILE *out) {
    struct monitor *monitor = context;
    struct server_health health;
    struct model *model = slot_acquire(monitor->slot);
    server_health(monitor->server, &health);
    const char *reason = why_not_ready(&health, model);
    model_release(model);
    fprintf(out, "%s\n", reason ? reason : "ready");
    return reason ? UNAVAILABLE : OK;
}

/* ---- metrics ---- */

/** What the plain numbers below are taken from. */
struct moment {
    const struct counters *counters;
    struct server_health health;
    struct subscriber_status subscriber;
    bool ready, follows;
    uint64_t swaps, shadow_dropped;
    double uptime_seconds;
};

static double in_flight(const struct moment *moment) {
    return moment->health.in_flight;
}

static double queue_limit(const struct moment *moment) {
    return moment->health.queue_limit;
}

static double ready(const struct moment *moment) {
    return moment->ready;
}

static double draining(const struct moment *moment) {
    return moment->health.draining;
}

static double swaps(const struct moment *moment) {
    return (double)moment->swaps;
}

static double undelivered(const struct moment *moment) {
    return (double)moment->counters->undelivered;
}

static double images(const struct moment *moment) {
    return (double)moment->counters->images;
}

static double instances(const struct moment *moment) {
    return moment->counters->instance_count;
}

static double lost(const struct moment *moment) {
    return moment->counters->lost;
}

static double uptime(const struct moment *moment) {
    return moment->uptime_seconds;
}

static double not_compared(const struct moment *moment) {
    return (double)moment->shadow_dropped;
}

static double connected(const struct moment *moment) {
    return moment->subscriber.connected;
}

static double received(const struct moment *moment) {
    return (double)moment->subscriber.transferred_bytes;
}

static double bad_chunks(const struct moment *moment) {
    return (double)moment->subscriber.bad_chunks;
}

static double failing(const struct moment *moment) {
    return moment->subscriber.phase == SUBSCRIBER_FAILED;
}

/** Numbers without labels. To add one: a function above and a row here. */
static const struct row {
    struct telemetry_family family;
    double (*value)(const struct moment *moment);
    bool of_follower; /**< only where there is a publisher to follow */
} rows[] = {
    {{"thorax_uptime_seconds", TELEMETRY_GAUGE, "Since the daemon began to listen."}, uptime, false},
    {{"thorax_ready", TELEMETRY_GAUGE, "1 while requests are taken."}, ready, false},
    {{"thorax_draining", TELEMETRY_GAUGE,
      "1 while the member finishes what it accepted and takes nothing new."},
     draining,
     false},
    {{"thorax_requests_in_flight", TELEMETRY_GAUGE, "Accepted and not yet answered."}, in_flight, false},
    {{"thorax_requests_queue_limit", TELEMETRY_GAUGE, "More in flight are refused as BUSY."},
     queue_limit,
     false},
    {{"thorax_replies_undelivered_total", TELEMETRY_COUNTER, "Answers whose asker was gone."},
     undelivered,
     false},
    {{"thorax_images_total", TELEMETRY_COUNTER, "Images computed."}, images, false},
    {{"thorax_instances", TELEMETRY_GAUGE, "Threads that compute, each a batch at a time on processors of its own."},
     instances,
     false},
    {{"thorax_instances_lost", TELEMETRY_GAUGE, "Of these, those whose GPU cannot be used any more."}, lost, false},
    {{"thorax_model_swaps_total", TELEMETRY_COUNTER, "How often a model took the place of another."},
     swaps,
     false},
    {{"thorax_shadow_dropped_total", TELEMETRY_COUNTER,
      "Pictures that a shadow was to be compared on and was too slow for."},
     not_compared,
     false},
    {{"thorax_publisher_connected", TELEMETRY_GAUGE, "1 while the publisher was heard of lately."},
     connected,
     true},
    {{"thorax_model_received_bytes_total", TELEMETRY_COUNTER, "Of models, good chunks or bad."},
     received,
     true},
    {{"thorax_model_bad_chunks_total", TELEMETRY_COUNTER, "Chunks whose digest was wrong."},
     bad_chunks,
     true},
    {{"thorax_model_update_failing", TELEMETRY_GAUGE,
      "1 while a model could not be fetched or activated and is to be tried again."},
     failing,
     true},
};

static const struct telemetry_family build = {"thorax_build_info", TELEMETRY_GAUGE, "The program; always 1."};
static const struct telemetry_family model_info = {"thorax_model_info", TELEMETRY_GAUGE,
                                                   "The model that serves; always 1."};
static const struct telemetry_family requests = {"thorax_requests_total", TELEMETRY_COUNTER,
                                                 "Diagnosis requests by the status they ended in."};
static const struct telemetry_family stage_seconds = {
    "thorax_request_stage_seconds", TELEMETRY_HISTOGRAM,
    "Where the time of requests goes: queue, decode, batch, compute."};
static const struct telemetry_family request_seconds = {"thorax_request_seconds", TELEMETRY_HISTOGRAM,
                                                        "From a request's acceptance to its reply."};
static const struct telemetry_family batch_images = {"thorax_batch_images", TELEMETRY_HISTOGRAM,
                                                     "Images in a batch."};

static const struct telemetry_family instance_info = {"thorax_instance_info", TELEMETRY_GAUGE,
                                                      "What each instance computes on; always 1."};
static const struct telemetry_family busy_seconds = {"thorax_instance_busy_seconds_total", TELEMETRY_COUNTER,
                                                     "How long each instance computed."};

static void write_build(const struct monitor *monitor, FILE *out) {
    const struct telemetry_label labels[] = {
        {"program", "inferd"}, {"version", monitor->version}, {NULL, NULL}};
    telemetry_begin(out, &build);
    telemetry_value(out, &build, labels, 1);
}

static void write_model(const struct model *model, FILE *out) {
    char hex[DIGEST_HEX_SIZE];
    if (!model) {
        return;
    }
    digest_hex(&model->info.digest, hex);
    hex[DIGEST_PREFIX] = 0;
    const struct telemetry_label labels[] = {
        {"name", model->info.name}, {"version", model->info.version}, {"digest", hex}, {NULL, NULL}};
    telemetry_begin(out, &model_info);
    telemetry_value(out, &model_info, labels, 1);
}

/** Every status but UNSPECIFIED, also those that did not occur: a rate needs its zero. */
static void write_requests(const struct counters *counters, FILE *out) {
    telemetry_begin(out, &requests);
    for (int status = THORAX__V1__STATUS__STATUS_OK; status < COUNTERS_STATUSES; status++) {
        const ProtobufCEnumValue *value =
            protobuf_c_enum_descriptor_get_value(&thorax__v1__status__descriptor, status);
        const struct telemetry_label labels[] = {{"status", value->name + strlen("STATUS_")}, {NULL, NULL}};
        telemetry_value(out, &requests, labels, (double)counters->by_status[status]);
    }
}

static void write_times(const struct counters *counters, FILE *out) {
    static const char *const names[COUNTERS_STAGES] = {[COUNTERS_QUEUE] = "queue",
                                                       [COUNTERS_DECODE] = "decode",
                                                       [COUNTERS_BATCH] = "batch",
                                                       [COUNTERS_COMPUTE] = "compute"};
    telemetry_begin(out, &stage_seconds);
    for (int i = 0; i < COUNTERS_STAGES; i++) {
        const struct telemetry_label labels[] = {{"stage", names[i]}, {NULL, NULL}};
        telemetry_histogram(out, &stage_seconds, labels, &counters->stages[i], &telemetry_seconds);
    }
    telemetry_begin(out, &request_seconds);
    telemetry_histogram(out, &request_seconds, NULL, &counters->request, &telemetry_seconds);
    telemetry_begin(out, &batch_images);
    telemetry_histogram(out, &batch_images, NULL, &counters->batch_images, &telemetry_images);
}

static void write_instances(const struct counters *counters, FILE *out) {
    char number[16];
    telemetry_begin(out, &instance_info);
    for (int i = 0; i < counters->instance_count; i++) {
        snprintf(number, sizeof number, "%d", i);
        const struct telemetry_label labels[] = {
            {"instance", number}, {"device", counters->instances[i].device}, {NULL, NULL}};
        telemetry_value(out, &instance_info, labels, 1);
    }
    telemetry_begin(out, &busy_seconds);
    for (int i = 0; i < counters->instance_count; i++) {
        snprintf(number, sizeof number, "%d", i);
        const struct telemetry_label labels[] = {{"instance", number}, {NULL, NULL}};
        telemetry_value(out, &busy_seconds, labels, (double)counters->instances[i].busy_us / 1e6);
    }
}

static void take_moment(struct monitor *monitor, const struct model *model, struct moment *out) {
    struct subscriber *subscriber = atomic_load(&monitor->subscriber);
    *out = (struct moment){.counters = server_counters(monitor->server),
                           .swaps = slot_swaps(monitor->slot),
                           .shadow_dropped = monitor->shadow ? shadow_dropped(monitor->shadow) : 0,
                           .follows = subscriber != NULL,
                           .uptime_seconds = (double)(clock_now_ms() - monitor->started_ms) / 1000};
    server_health(monitor->server, &out->health);
    out->ready = !why_not_ready(&out->health, model);
    if (subscriber) {
        subscriber_status(subscriber, &out->subscriber);
    }
}

static int answer_metrics(void *context, FILE *out) {
    struct monitor *monitor = context;
    struct moment moment;
    struct model *model = slot_acquire(monitor->slot);
    take_moment(monitor, model, &moment);
    write_build(monitor, out);
    write_model(model, out);
    model_release(model);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (moment.follows || !rows[i].of_follower) {
            telemetry_single(out, &rows[i].family, rows[i].value(&moment));
        }
    }
    write_requests(moment.counters, out);
    write_times(moment.counters, out);
    write_instances(moment.counters, out);
    return OK;
}

/* ---- life ---- */

static const struct http_route routes[] = {
    {"/healthz", "text/plain; charset=utf-8", answer_health},
    {"/readyz", "text/plain; charset=utf-8", answer_ready},
    {"/metrics", TELEMETRY_CONTENT_TYPE, answer_metrics},
};

struct monitor *monitor_create(const struct monitor_spec *spec, struct error *err) {
    struct monitor *monitor = calloc(1, sizeof *monitor);
    if (!monitor) {
        error_set(err, ERROR_MEMORY, "no memory for the monitor");
        return NULL;
    }
    monitor->server = spec->server;
    monitor->slot = spec->slot;
    monitor->shadow = spec->shadow;
    monitor->version = spec->version;
    monitor->started_ms = clock_now_ms();
    struct http_spec http = {.bind = spec->bind,
                             .insecure = spec->insecure,
                             .routes = routes,
                             .route_count = sizeof routes / sizeof *routes,
                             .context = monitor};
    monitor->http = http_server_create(&http, err);
    if (!monitor->http) {
        free(monitor);
        return NULL;
    }
    return monitor;
}

void monitor_destroy(struct monitor *monitor) {
    if (monitor) {
        http_server_destroy(monitor->http);
        free(monitor);
    }
}

void monitor_follow(struct monitor *monitor, struct subscriber *subscriber) {
    if (monitor) {
        atomic_store(&monitor->subscriber, subscriber);
    }
}

int monitor_port(const struct monitor *monitor) {
    return http_server_port(monitor->http);
}
