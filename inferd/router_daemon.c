#include "inferd/router_daemon.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/signals.h"
#include "common/wire/security.h"
#include "inferd/router.h"
#include "inferd/router_monitor.h"
#include <inttypes.h>
#include <string.h>

enum { STEP_MS = 200, BIND_MAX = 16, ENDPOINT_SIZE = 256 };

/** Our own key, and those of the members. Zeroed is none. */
struct keys {
    struct wire_security *security;
    char texts[DISPATCH_MAX_MEMBERS][CURVE_TEXT_SIZE];
    const char *servers[DISPATCH_MAX_MEMBERS]; /* into texts */
};

static bool load_keys(const struct inferd_config *config, struct keys *keys, struct error *err) {
    struct wire_security_spec spec = {
        .secret_key = config->security.key, .allow = config->security.allow, .report = log_error};
    if (*spec.secret_key && !(keys->security = wire_security_create(&spec, err))) {
        return error_prefix(err, "security");
    }
    for (int i = 0; i < config->router_keys.count; i++) { /* as many as members, at most: config.c */
        keys->servers[i] = keys->texts[i];
        if (!curve_public_load(config->router_keys.items[i], keys->texts[i], err)) {
            return error_prefix(err, "router.server_keys");
        }
    }
    return true;
}

static struct router *start_router(const struct inferd_config *config, const struct keys *keys, struct error *err) {
    const char *bind[BIND_MAX + 1] = {NULL};
    if (config->bind.count > BIND_MAX) {
        error_set(err, ERROR_INVALID, "server.bind: at most %d endpoints", BIND_MAX);
        return NULL;
    }
    for (int i = 0; i < config->bind.count; i++) {
        bind[i] = config->bind.items[i];
    }
    struct router_spec spec = {
        .bind = bind,
        .insecure = config->security.insecure,
        .security = keys->security,
        .server_keys = keys->servers,
        .server_key_count = config->router_keys.count,
        .members = (const char *const *)config->router_members.items,
        .member_count = config->router_members.count,
        .name = config->member,
        .version = THORAX_VERSION,
        .max_message_bytes = (int64_t)config->max_message_bytes,
        .default_timeout_ms = config->default_timeout_ms,
        .max_timeout_ms = config->max_timeout_ms,
        .drain_timeout_ms = config->drain_timeout_ms,
        .allow_drain = config->allow_drain && (keys->security || !config->security.insecure),
        .max_requests = config->max_jobs,
        .max_request_bytes = config->max_job_bytes,
        .heartbeat_ms = config->router_heartbeat_ms,
        .pin_ms = config->router_pin_ms,
    };
    return router_create(&spec, err);
}

/** The pages for probes and Prometheus; *out stays NULL where none are asked for. */
static bool start_monitor(const struct inferd_config *config, const struct router *router,
                          struct router_monitor **out, struct error *err) {
    if (!*config->http_bind) {
        return true;
    }
    struct router_monitor_spec spec = {.bind = config->http_bind,
                                       .insecure = config->security.insecure,
                                       .version = THORAX_VERSION,
                                       .router = router};
    if (!(*out = router_monitor_create(&spec, err))) {
        return error_prefix(err, "http.bind");
    }
    log_event(LOG_INFO, "http", "port=%d", router_monitor_port(*out));
    return true;
}

static void log_listening(const struct inferd_config *config, struct router *router) {
    char endpoint[ENDPOINT_SIZE];
    for (int i = 0; i < config->bind.count; i++) {
        if (router_bound(router, i, endpoint, sizeof endpoint)) {
            log_event(LOG_INFO, "listening", "endpoint=%s router=%s members=%d", endpoint, config->member,
                      config->router_members.count);
        }
    }
}

static bool serve(const struct inferd_config *config, struct router *router, struct error *err) {
    while (!signals_stop && !router_draining(router)) {
        if (!router_step(router, STEP_MS, err)) {
            return false;
        }
    }
    int64_t start_ms = clock_now_ms();
    log_event(LOG_INFO, "draining", "reason=%s timeout_ms=%" PRId64, signals_stop ? "signal" : "request",
              config->drain_timeout_ms);
    if (!router_drain(router, config->drain_timeout_ms, err)) {
        return false;
    }
    log_event(LOG_INFO, "drained", "ms=%" PRId64, clock_now_ms() - start_ms);
    return true;
}

bool router_daemon_run(const struct inferd_config *config, struct error *err) {
    struct router_monitor *monitor = NULL;
    struct keys keys = {0};
    struct router *router = load_keys(config, &keys, err) ? start_router(config, &keys, err) : NULL;
    bool ok = router && start_monitor(config, router, &monitor, err);
    if (ok) {
        log_listening(config, router);
        ok = serve(config, router, err);
    }
    router_monitor_destroy(monitor);
    router_destroy(router);
    wire_security_destroy(keys.security);
    return ok;
}

bool router_daemon_check(const struct inferd_config *config, struct error *err) {
    struct keys keys = {0};
    bool ok = load_keys(config, &keys, err);
    wire_security_destroy(keys.security);
    return ok;
}
