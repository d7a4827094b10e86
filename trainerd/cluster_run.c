#include "trainerd/cluster_run.h"

#include "common/base/digest.h"
#include "common/base/file.h"
#include "common/base/program.h"
#include "trainerd/checkpoint.h"
#include "trainerd/cluster_keys.h"
#include "trainerd/engine.h"

#include <stdio.h>
#include <stdlib.h>

bool cluster_run_place(const struct trainer_config *config, struct cluster_place *out, struct error *err) {
    int devices = engine_on_gpus(config) ? device_count("cuda", err) : 0;
    if (engine_on_gpus(config) && devices == 0)
        return error_prefix(err, "device.name");
    return cluster_place_find(config, devices, out, err);
}

/** The newest checkpoint that this node has. */
static bool find_newest(const char *folder, struct checkpoint_found *out) {
    char checkpoints[CHECKPOINT_PATH_SIZE];
    return file_join(checkpoints, sizeof checkpoints, folder, "checkpoints", NULL) && checkpoint_find(checkpoints, 0, out, NULL);
}

static int64_t saved_step(void *context) {
    const struct cluster_run_spec *spec = context;
    struct checkpoint_found newest;
    return find_newest(spec->folder, &newest) ? newest.state.global_step : -1;
}

/**
 * By which its checkpoints know each other. A run that goes on has that of its newest checkpoint; where this node has none, and
 * another may, it is not known yet.
 */
static uint64_t find_run(const struct cluster_run_spec *spec) {
    struct checkpoint_found newest;
    if (spec->resume && find_newest(spec->folder, &newest))
        return newest.state.run;
    return spec->resume && spec->config->checkpoint.replicate ? 0 : digest_random_u64() >> 1;
}

/** What all nodes must agree on: which program, of which data, by which configuration. Owned (free). */
static char *make_fingerprint(const struct cluster_run_spec *spec, struct error *err) {
    struct digest digest;
    char hex[DIGEST_HEX_SIZE], *text = NULL, *config = job_shared_config(spec->config, err);
    if (config && digest_file(program_path(), &digest, err) &&
        asprintf(&text, "version=" THORAX_VERSION "\nbuild=%s\ndata=%s\n%s", digest_hex(&digest, hex), spec->data_digest,
                 config) < 0) {
        text = NULL;
        error_set(err, ERROR_MEMORY, "out of memory");
    }
    free(config);
    return text;
}

static void on_event(void *context, const char *event, const struct metric *metrics, int count) {
    const struct cluster_run_spec *spec = context;
    spec->on_event(spec->context, event, metrics, count);
}

static bool on_report(void *context, int rank, const char *kind, const void *data, size_t size, struct error *err) {
    const struct cluster_run_spec *spec = context;
    return spec->on_report(spec->context, rank, kind, data, size, err);
}

static struct coordinator_spec rules_of(const struct cluster_run_spec *spec) {
    const struct trainer_config *config = spec->config;
    int64_t timeout_ms = (int64_t)config->collective.timeout_seconds * 1000;
    return (struct coordinator_spec){
        .batch = {.images = config->train.batch_size, .parts = config->train.parts, .keeps_parts = config->model.sync_batch_norm},
        .min_ranks = config->cluster.min_ranks,
        .restarts = config->cluster.restarts,
        .resumes = spec->resume,
        .run = find_run(spec),
        .gather_timeout_ms = (int64_t)config->cluster.join_seconds * 1000,
        .join_timeout_ms = 10 * timeout_ms,
        .hang_timeout_ms = 2 * timeout_ms,
        .silence_ms = (int64_t)config->cluster.silence_seconds * 1000,
        .grace_ms = (int64_t)config->cluster.grace_seconds * 1000,
        .context = (void *)(uintptr_t)spec,
        .on_report = on_report,
        .on_event = on_event,
        .saved_step = saved_step,
    };
}

bool cluster_run(const struct cluster_run_spec *spec, enum cluster_outcome *outcome, struct error *err) {
    struct cluster_keys keys = {0};
    char *fingerprint = NULL;
    bool ok = cluster_keys_open(spec->config, spec->security, &keys, err) && (fingerprint = make_fingerprint(spec, err));
    if (ok) {
        struct supervisor_spec supervisor = {.arguments = spec->arguments, .place = spec->place, .coordinator = rules_of(spec),
                                             .fingerprint = fingerprint, .security = keys.security,
                                             .server_key = keys.server_key, .threads_per_rank = spec->config->device.threads,
                                             .insecure = spec->config->collective.trusted_network};
        ok = supervisor_run(&supervisor, outcome, err);
    }
    free(fingerprint);
    cluster_keys_close(&keys);
    return ok;
}
