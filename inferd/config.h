#pragma once
#include "common/config/security_config.h"

/** What inferd is told: one field per row of the schema in config.c, which says what each is for. */
struct inferd_config {
    const char *role; /**< "member" or "router" */
    const char *member;
    struct string_list bind;
    struct security_config security;
    size_t max_message_bytes, max_job_bytes;
    int max_jobs;
    int64_t default_timeout_ms, max_timeout_ms, drain_timeout_ms;
    bool allow_drain;
    const char *http_bind;
    int decode_threads, max_side;
    int64_t max_pixels;
    int max_batch;
    int max_delay_us;
    const char *device;
    struct string_list device_gpus;
    int device_threads, device_instances;
    bool device_winograd, device_tf32, device_graphs;
    const char *device_algorithm_cache; /**< "": none */
    const char *model_file;
    bool keep_previous;
    int shadow_threads;
    const char *acceptance_folder, *acceptance_manifest;
    double min_balanced_accuracy;
    int acceptance_images;
    int64_t pin_time_ms;
    int pin_limit, staged_max;
    const char *announce, *control, *blobs, *publisher_key;
    struct string_list trust_keys;
    bool trust_unsigned;
    const char *trust_oldest, *trust_revoked;
    size_t max_memory_bytes;
    const char *store;
    size_t max_model_bytes;
    struct string_list router_members, router_keys;
    int64_t router_heartbeat_ms, router_pin_ms;
    const char *log_level, *log_style;
    bool routes;  /**< not a key: role is router */
    bool follows; /**< not a key: there is a `publisher:` section and no model file, so models come from there
                   */
};

const struct schema *inferd_schema(void);

/**
 * Fills `out` from a configuration that was read and had its --set applied. model_file, borrowed, stands
 * above model.file; NULL: it was not given. All problems are in config; false where there is one. Strings are
 * owned by config.
 */
bool inferd_config_read(struct config *config, const char *model_file, struct inferd_config *out,
                        struct error *err);
