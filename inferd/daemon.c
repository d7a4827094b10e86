#include "inferd/daemon.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/signals.h"
#include "common/wire/security.h"
#include "inferd/activation.h"
#include "inferd/engine.h"
#include "inferd/monitor.h"
#include "inferd/server.h"
#include "inferd/subscriber.h"
#include "inferd/trust.h"
#include <inttypes.h>
#include <stdatomic.h>

enum { STEP_MS = 200, PATH_SIZE = 4096, BIND_MAX = 16, RETRY_MS = 5000, SHADOW_SAMPLES = 32 };

struct inferd {
    const struct inferd_config *config;
    struct instances instances;
    struct engine_facts facts;
    atomic_bool lost; /* a device failed for good while a model was loaded; the server knows of others */
    struct slot *slot;
    struct model_stats *stats;
    struct shadow *shadow;
    uint64_t incarnation;
    struct wire_security *security;      /* NULL: there are no keys */
    char publisher_key[CURVE_TEXT_SIZE]; /* "": not needed */
    struct acceptance_spec acceptance;
    struct activation_spec activation;
    struct server *server;
    struct subscriber *subscriber;
    struct trust *trust;
    struct monitor *monitor; /* NULL: there is no HTTP */
};

static struct acceptance_spec acceptance_spec(const struct inferd_config *config) {
    return (struct acceptance_spec){.folder = config->acceptance_folder,
                                    .manifest = config->acceptance_manifest,
                                    .min_balanced_accuracy = config->min_balanced_accuracy,
                                    .max_images = config->acceptance_images,
                                    .limits = {.max_bytes = config->max_message_bytes,
                                               .max_pixels = config->max_pixels,
                                               .max_side = config->max_side}};
}

static struct device_spec device_spec(const struct inferd_config *config) {
    return (struct device_spec){.name = engine_device(config->device),
                                .threads = config->device_threads,
                                .direct_convolutions = !config->device_winograd,
                                .kernel_by_kernel = !config->device_graphs,
                                .tf32 = config->device_tf32,
                                .algorithm_cache = config->device_algorithm_cache};
}

/** Which devices compute, in how many instances, and what they are. */
static bool plan_instances(struct inferd *inferd, struct error *err) {
    const struct inferd_config *config = inferd->config;
    struct device_spec device = device_spec(config);
    struct instances_spec spec = {
        .count = config->device_instances, .threads = config->device_threads, .shares = engine_shares(device.name)};
    if (!engine_gpus(device.name, config->device_gpus.items, config->device_gpus.count, &spec.gpus, err)) {
        return error_prefix(err, "device.gpus");
    }
    if (!instances_plan(&spec, &inferd->instances, err)) {
        return error_prefix(err, "device.instances");
    }
    return engine_describe(&device, &inferd->instances, &inferd->facts, err) || error_prefix(err, "device.name");
}

/** What is returned borrows from inferd. */
static struct activation_spec activation_spec(const struct inferd *inferd) {
    const struct inferd_config *config = inferd->config;
    bool has_set = *config->acceptance_folder || *config->acceptance_manifest;
    return (struct activation_spec){
        .slot = inferd->slot,
        .load = {.device = device_spec(config),
                 .max_batch = config->max_batch,
                 .instances = &inferd->instances},
        .acceptance = has_set ? &inferd->acceptance : NULL,
        .shadow_threads = config->shadow_threads};
}

/** Which precisions the member's devices compute in beside f32: names from `names`, as many as are returned. */
static int precisions_here(const struct engine_facts *facts, const char *names[PRECISION_COUNT]) {
    int count = 0;
    for (enum precision precision = PRECISION_F32 + 1; precision < PRECISION_COUNT; precision++) {
        if (facts->computes[precision]) {
            names[count++] = precision_name(precision);
        }
    }
    return count;
}

/** What a model may need: of the host's memory, and of a GPU's where these compute. */
static int64_t memory_limit(const struct inferd *inferd) {
    int64_t host = memory_limit_bytes(), gpu = (int64_t)inferd->facts.gpu_bytes, set = (int64_t)inferd->config->max_memory_bytes;
    return set > 0 ? set : gpu > 0 && gpu < host ? gpu : host;
}

/** The subscriber's call: a model is here and it is our turn. */
static bool activate(void *context, const char *path, const struct digest *digest, struct error *err) {
    struct inferd *inferd = context;
    struct error reason = {0};
    if (activation_run(&inferd->activation, path, digest, &reason)) {
        return true;
    }
    if (reason.code == ERROR_LOST) {
        log_error("device_lost", &reason);
        atomic_store(&inferd->lost, true);
    }
    return error_set(err, reason.code, "%s", reason.message);
}

/** The subscriber's call: a model is to be compared with the active one, or none any more. */
static bool load_shadow(void *context, const char *path, const struct digest *digest, int permille,
                        struct error *err) {
    struct inferd *inferd = context;
    struct digest current;
    char hex[DIGEST_HEX_SIZE];
    bool same = path && shadow_current(inferd->shadow, &current) && digest_equal(&current, digest);
    if (same) {
        shadow_set_share(inferd->shadow, permille);
    } else {
        shadow_set(inferd->shadow, NULL, 0); /* first: two shadows at once would cost their memory */
        struct model *model = path ? activation_load_shadow(&inferd->activation, path, digest, err) : NULL;
        if (path && !model) {
            return false;
        }
        shadow_set(inferd->shadow, model, permille);
    }
    log_event(LOG_INFO, path ? "shadow_active" : "shadow_ended", "digest=%s permille=%d",
              digest_hex(digest, hex), permille);
    return true;
}

/** The subscriber's call: may this model be fetched and run here? */
static bool admit(void *context, const struct descriptor *descriptor, struct error *err) {
    struct inferd *inferd = context;
    return trust_check(inferd->trust, descriptor, err);
}

/** The subscriber's call: what its next report says of us. */
static void describe(void *context, struct subscriber_facts *facts) {
    struct inferd *inferd = context;
    struct model *models[SLOT_MODELS];
    int count = slot_residents(inferd->slot, models);
    facts->resident_count = 0;
    for (int i = 0; i < count; i++) {
        if (i > 0) {
            facts->residents[facts->resident_count++] = models[i]->info.digest;
        }
        model_release(models[i]);
    }
    facts->has_shadow = shadow_current(inferd->shadow, &facts->shadow);
    facts->stats_count = model_stats_copy(inferd->stats, facts->stats);
}

/** The subscriber's call: a model that is resident may not answer any more. */
static void drop(void *context, const struct digest *digest, const struct error *reason) {
    struct inferd *inferd = context;
    char hex[DIGEST_HEX_SIZE];
    if (slot_drop(inferd->slot, digest)) {
        log_event(LOG_WARNING, "previous_model_dropped", "digest=%s reason=\"%s\"", digest_hex(digest, hex),
                  reason->message);
    }
}

/** Serves what was served before the last stop, until the publisher has something newer: with no trainer in
 * reach, too. */
static bool serve_last(struct inferd *inferd) {
    char path[PATH_SIZE];
    struct digest digest;
    struct error err = {0};
    if (!subscriber_last_model(inferd->subscriber, path, sizeof path, &digest, &err)) {
        if (err.code != ERROR_NOT_FOUND) {
            log_error("last_model_unreadable", &err);
        }
        return false;
    }
    if (!activate(inferd, path, &digest, &err) || !subscriber_set_active(inferd->subscriber, &digest, &err)) {
        log_error("last_model_failed", &err);
        return false;
    }
    return true;
}

static bool start_following(struct inferd *inferd, struct error *err) {
    const struct inferd_config *config = inferd->config;
    struct subscriber_spec spec = {
        .announce = config->announce,
        .control = config->control,
        .blobs = config->blobs,
        .security = inferd->security,
        .server_key = inferd->publisher_key,
        .member = config->member,
        .store_folder = config->store,
        .max_model_bytes = (int64_t)config->max_model_bytes,
        .retry_ms = RETRY_MS,
        .staged_max = config->staged_max,
        .incarnation = inferd->incarnation,
        .activate = activate,
        .shadow = load_shadow,
        .describe = describe,
        .admit = admit,
        .drop = drop,
        .context = inferd,
    };
    const char *precisions[PRECISION_COUNT];
    struct trust_spec trust = {.keys = (const char *const *)config->trust_keys.items,
                               .key_count = config->trust_keys.count,
                               .oldest = config->trust_oldest,
                               .revoked = config->trust_revoked,
                               .precisions = precisions,
                               .precision_count = precisions_here(&inferd->facts, precisions),
                               .instances = instances_each(&inferd->instances),
                               .max_memory_bytes = memory_limit(inferd)};
    if (!(inferd->trust = trust_create(&trust, err)) ||
        !(inferd->subscriber = subscriber_create(&spec, err))) {
        return false;
    }
    monitor_follow(inferd->monitor, inferd->subscriber);
    serve_last(inferd);
    return subscriber_start(inferd->subscriber, err);
}

static bool start_model(struct inferd *inferd, struct error *err) {
    if (inferd->config->follows) {
        return start_following(inferd, err);
    }
    struct model *model = activation_load(&inferd->activation, inferd->config->model_file, err);
    if (model) {
        slot_swap(inferd->slot, model);
    }
    return model != NULL;
}

/** Reads our own key and the publisher's, where there are any. */
static bool load_keys(struct inferd *inferd, struct error *err) {
    const struct inferd_config *config = inferd->config;
    struct wire_security_spec spec = {
        .secret_key = config->security.key, .allow = config->security.allow, .report = log_error};
    if (*spec.secret_key && !(inferd->security = wire_security_create(&spec, err))) {
        return error_prefix(err, "security");
    }
    return !*config->publisher_key || curve_public_load(config->publisher_key, inferd->publisher_key, err) ||
           error_prefix(err, "publisher.server_key");
}

static bool start_server(struct inferd *inferd, struct error *err) {
    const struct inferd_config *config = inferd->config;
    const char *bind[BIND_MAX + 1] = {NULL};
    if (config->bind.count > BIND_MAX) {
        return error_set(err, ERROR_INVALID, "server.bind: at most %d endpoints", BIND_MAX);
    }
    for (int i = 0; i < config->bind.count; i++) {
        bind[i] = config->bind.items[i];
    }
    struct server_spec spec = {
        .bind = bind,
        .insecure = config->security.insecure,
        .security = inferd->security,
        .member = config->member,
        .version = THORAX_VERSION,
        .slot = inferd->slot,
        .max_message_bytes = (int64_t)config->max_message_bytes,
        .default_timeout_ms = config->default_timeout_ms,
        .max_timeout_ms = config->max_timeout_ms,
        .drain_timeout_ms = config->drain_timeout_ms,
        .allow_drain = config->allow_drain && (inferd->security || !config->security.insecure),
        .decode_threads = config->decode_threads,
        .max_jobs = config->max_jobs,
        .max_job_bytes = config->max_job_bytes,
        .max_batch = config->max_batch,
        .max_delay_us = config->max_delay_us,
        .instances = &inferd->instances,
        .limits = {.max_bytes = config->max_message_bytes,
                   .max_pixels = config->max_pixels,
                   .max_side = config->max_side},
        .pins = {.limit = (size_t)config->pin_limit, .time_ms = config->pin_time_ms},
        .stats = inferd->stats,
        .shadow = inferd->shadow,
        .incarnation = inferd->incarnation,
    };
    inferd->server = server_create(&spec, err);
    return inferd->server != NULL;
}

static bool start_monitor(struct inferd *inferd, struct error *err) {
    struct monitor_spec spec = {.bind = inferd->config->http_bind,
                                .insecure = inferd->config->security.insecure,
                                .version = THORAX_VERSION,
                                .server = inferd->server,
                                .slot = inferd->slot,
                                .shadow = inferd->shadow};
    if (!*spec.bind) {
        return true;
    }
    if (!(inferd->monitor = monitor_create(&spec, err))) {
        return error_prefix(err, "http.bind");
    }
    log_event(LOG_INFO, "http", "port=%d", monitor_port(inferd->monitor));
    return true;
}

static void log_listening(struct inferd *inferd) {
    char endpoint[256];
    for (int i = 0; i < inferd->config->bind.count; i++) {
        if (server_bound(inferd->server, i, endpoint, sizeof endpoint)) {
            log_event(LOG_INFO, "listening", "endpoint=%s member=%s", endpoint, inferd->config->member);
        }
    }
}

/** A process cannot get a GPU back that it lost: where one is, the member is to end and be started anew. */
static bool has_lost(struct inferd *inferd) {
    struct server_health health;
    server_health(inferd->server, &health);
    return health.lost || atomic_load(&inferd->lost);
}

static bool serve(struct inferd *inferd, struct error *err) {
    while (!signals_stop && !server_draining(inferd->server) && !has_lost(inferd)) {
        if (!server_step(inferd->server, STEP_MS, err)) {
            return false;
        }
    }
    int64_t start = clock_now_ms();
    bool lost = has_lost(inferd);
    log_event(LOG_INFO, "draining", "reason=%s timeout_ms=%" PRId64,
              lost           ? "device_lost"
              : signals_stop ? "signal"
                             : "request",
              inferd->config->drain_timeout_ms);
    if (!server_drain(inferd->server, inferd->config->drain_timeout_ms, err)) {
        return false;
    }
    log_event(LOG_INFO, "drained", "ms=%" PRId64, clock_now_ms() - start);
    return !lost || error_set(err, ERROR_LOST, "a GPU cannot be used by this process any more: the log says why; start it anew");
}

bool daemon_run(const struct inferd_config *config, struct error *err) {
    struct inferd inferd = {.config = config,
                            .slot = slot_create(),
                            .stats = model_stats_create(),
                            .incarnation = digest_random_u64()};
    bool ok = (inferd.slot && inferd.stats) || error_set(err, ERROR_MEMORY, "no memory");
    struct shadow_spec shadow = {.stats = inferd.stats, .limit = SHADOW_SAMPLES};
    ok = ok && (inferd.shadow = shadow_create(&shadow, err)) != NULL;
    if (ok) {
        slot_keep_previous(inferd.slot, config->keep_previous);
        inferd.acceptance = acceptance_spec(config);
        inferd.activation = activation_spec(&inferd);
    }
    ok = ok && plan_instances(&inferd, err) && load_keys(&inferd, err);
    ok = ok && start_server(&inferd, err);  /* first: an address in use should cost no model's loading */
    ok = ok && start_monitor(&inferd, err); /* a probe gets its answer while the model is loaded */
    ok = ok && start_model(&inferd, err);
    if (ok) {
        log_listening(&inferd);
        ok = serve(&inferd, err);
    }
    monitor_destroy(inferd.monitor);
    subscriber_destroy(inferd.subscriber);
    trust_destroy(inferd.trust);
    server_destroy(inferd.server);
    wire_security_destroy(inferd.security);
    shadow_destroy(inferd.shadow);
    slot_destroy(inferd.slot);
    model_stats_destroy(inferd.stats);
    return ok;
}

bool daemon_check(const struct inferd_config *config, struct error *err) {
    struct inferd inferd = {.config = config};
    bool ok = plan_instances(&inferd, err) && load_keys(&inferd, err);
    wire_security_destroy(inferd.security);
    if (!ok || !*config->model_file) {
        return ok;
    }
    inferd.acceptance = acceptance_spec(config);
    struct activation_spec spec = activation_spec(&inferd);
    struct model *model = activation_load(&spec, config->model_file, err);
    model_release(model);
    return model != NULL;
}
