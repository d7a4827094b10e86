#include "trainerd/daemon.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/signals.h"
#include "common/wire/security.h"
#include "trainerd/checkpoint.h"
#include "trainerd/cluster_run.h"
#include "trainerd/engine.h"
#include "trainerd/export.h"
#include "trainerd/handover.h"
#include "trainerd/job.h"
#include "trainerd/publisher.h"
#include "trainerd/publisher_inspect.h"
#include "trainerd/publisher_monitor.h"
#include "trainerd/reports.h"
#include "trainerd/trainctl/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MEMBERS_WAIT_MS = 1000, HANDOVER_LOOK_MS = 100, HASTY_HANDOVER_MS = 5000 };

struct daemon {
    const struct trainer_config *config;
    const struct daemon_options *options;
    struct publisher *publisher; /* NULL: not asked for */
    struct publisher_monitor *monitor; /* NULL: not asked for */
    struct handover *handover; /* NULL: not asked for */
    int left;                  /* models that were not handed over */
    struct progress *progress;
    struct wire_security *security; /* NULL: there are no keys */
    struct cluster_place place;
    char folder[CHECKPOINT_PATH_SIZE], data_digest[DIGEST_HEX_SIZE]; /* of the run */
    enum cluster_outcome outcome;
};

static void show_decoding(void *context, int64_t done, int64_t total) {
    struct daemon *daemon = context;
    struct metric metrics[] = {metric_integer("done", done), metric_integer("of", total)};
    progress_event(daemon->progress, "decoding", metrics, 2);
}

static void show_data(struct daemon *daemon, const struct job *job) {
    for (int i = 0; i < job->dataset.note_count; i++) {
        struct metric note = metric_text("note", job->dataset.notes[i]);
        progress_event(daemon->progress, "data", &note, 1);
    }
    if (job->cache.broken) {
        struct metric metrics[] = {metric_integer("images", job->cache.broken), metric_text("list", job->cache.quarantine)};
        progress_event(daemon->progress, "quarantined", metrics, 2);
    }
    for (int i = 0; i < job->dataset.classes; i++) {
        struct metric metrics[] = {metric_text("class", job->dataset.class_names[i]),
                                   metric_integer("train", dataset_count(&job->dataset, DATASET_TRAIN, i)),
                                   metric_integer("validation", dataset_count(&job->dataset, DATASET_VALIDATION, i)),
                                   metric_integer("test", dataset_count(&job->dataset, DATASET_TEST, i))};
        progress_event(daemon->progress, "data", metrics, 4);
    }
}

/** A run's files belong to one run: without --resume nothing of an earlier one is overwritten. */
static bool check_folder(const struct daemon *daemon, const struct job *job, struct error *err) {
    char folder[CHECKPOINT_PATH_SIZE], newest[CHECKPOINT_PATH_SIZE];
    int skipped;
    if (!job_path(job, "checkpoints", folder, sizeof folder, err))
        return false;
    if (daemon->options->resume || !checkpoint_newest(folder, newest, &skipped, NULL))
        return true;
    error_set(err, ERROR_STATE, "%s: an earlier run left checkpoints here", folder);
    return error_hint(err, "give the run another run.name, go on with --resume auto, or remove %s", job->folder);
}

static bool write_config(const struct daemon *daemon, const struct job *job, struct error *err) {
    char path[CHECKPOINT_PATH_SIZE], *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return error_set(err, ERROR_MEMORY, "out of memory");
    schema_print_yaml(&trainer_config_schema, daemon->config, out);
    fclose(out);
    bool ok = file_make_folders(job->folder, err) && job_path(job, "config.yaml", path, sizeof path, err) &&
              file_write_atomic(path, text, size, err);
    free(text);
    return ok;
}

/** That of the publisher elsewhere, where it has one. */
static bool load_server_key(const struct trainer_publish_config *publish, char out[CURVE_TEXT_SIZE], struct error *err) {
    return !*publish->server_key || curve_public_load(publish->server_key, out, err) ||
           error_prefix(err, "publish.server_key");
}

/** Models are handed to a publisher elsewhere: with what an earlier run had to leave. */
static bool open_handover(struct daemon *daemon, const struct job *job, struct error *err) {
    const struct trainer_publish_config *publish = &daemon->config->publish;
    char folder[HANDOVER_PATH_SIZE];
    struct handover_spec spec = {.endpoint = publish->to,
                                 .folder = folder,
                                 .sign_key = publish->sign_key,
                                 .keys = {.security = daemon->security}};
    if (!*publish->to)
        return true;
    if (!load_server_key(publish, spec.keys.server_key, err))
        return false;
    if (!job_path(job, "handover", folder, sizeof folder, err) || !(daemon->handover = handover_create(&spec, err)))
        return error_prefix(err, "publish.to");
    struct metric metrics[] = {metric_text("to", publish->to), metric_integer("waiting", handover_waiting(daemon->handover))};
    progress_event(daemon->progress, "handing_over", metrics, 2);
    return true;
}

/** The run's records are the coordinator's; other nodes only see to it that the data are there. */
static bool prepare_run(struct daemon *daemon, const struct job *job, struct error *err) {
    memcpy(daemon->folder, job->folder_text, sizeof daemon->folder);
    memcpy(daemon->data_digest, job->data_digest, sizeof daemon->data_digest);
    return daemon->place.node != 0 ||
           (check_folder(daemon, job, err) && write_config(daemon, job, err) && open_handover(daemon, job, err));
}

/** Finds and decodes the data before any worker starts: what is wrong with it is then said once. */
static bool prepare_data(struct daemon *daemon, struct error *err) {
    struct job job;
    struct job_watch watch = {show_decoding, daemon};
    bool ok = job_open(&job, daemon->config, &watch, err);
    if (ok) {
        show_data(daemon, &job);
        ok = prepare_run(daemon, &job, err);
    }
    job_close(&job);
    return ok;
}

/** What became of a model at a publisher, ours or another. */
static void show_model(struct daemon *daemon, const char *event, const char *name, const char *version,
                       const struct publisher_published *published) {
    char hex[DIGEST_HEX_SIZE];
    struct metric metrics[] = {metric_text("name", name), metric_text("version", version),
                               metric_text("digest", digest_hex(&published->digest, hex)),
                               metric_text("gate", published->gate)};
    if (published->gate[0])
        progress_event(daemon->progress, "refused_by_gate", metrics, 4);
    else
        progress_event(daemon->progress, event, metrics, 3);
}

/**
 * The worker trains on while its report waits here, and removes models that better ones took the place of: where
 * the file is gone, a better one's report is on its way.
 */
static bool publish(struct daemon *daemon, const struct report_model *model, struct error *err) {
    struct publisher_published published;
    if (!daemon->publisher && !daemon->handover)
        return true;
    bool ok = daemon->handover ? handover_add(daemon->handover, model->path, err)
                               : publisher_publish_file(daemon->publisher, model->path, NULL, NULL, &published, err);
    if (!ok) {
        struct metric version = metric_text("version", model->version);
        if (file_exists(model->path))
            return error_prefix(err, "publishing %s %s", model->name, model->version);
        progress_event(daemon->progress, "superseded", &version, 1);
        return true;
    }
    if (!daemon->handover)
        show_model(daemon, published.offered ? "published" : "registered", model->name, model->version, &published);
    return true;
}

/** A model that the publisher has not got: says why, and how to hand it over later. */
static void show_left(struct daemon *daemon, const struct handover_result *result) {
    const struct trainer_publish_config *publish = &daemon->config->publish;
    char command[HANDOVER_PATH_SIZE + 2048];
    const char *reason = result->error.message[0] ? result->error.message : "it was not its turn yet";
    bool signs = *publish->sign_key;
    bool keys = *publish->server_key;
    snprintf(command, sizeof command, "trainctl publish '%s' --to %.250s%s%.500s%s%.500s%s%.250s%s", result->path, publish->to,
             signs ? " --sign-key " : "", publish->sign_key, keys ? " --key " : "", keys ? daemon->config->security.key : "",
             keys ? " --server-key '" : "", publish->server_key, keys ? "'" : "");
    struct metric metrics[] = {metric_text("reason", reason), metric_text("file", result->path),
                               metric_text("command", command)};
    progress_event(daemon->progress, result->fate == HANDOVER_REFUSED ? "handover_refused" : "not_handed_over", metrics, 3);
    log_event(LOG_ERROR, "model_not_handed_over", "reason=\"%s\" command=\"%s\"", reason, command);
    daemon->left++;
}

/** Tells what became of models since the last look. */
static void show_handovers(struct daemon *daemon) {
    struct handover_result result;
    while (daemon->handover && handover_next_result(daemon->handover, &result)) {
        struct publisher_published published = {.digest = result.done.digest};
        memcpy(published.gate, result.done.gate, sizeof published.gate);
        if (result.fate == HANDOVER_DONE)
            show_model(daemon, "handed_over", result.done.name, result.done.version, &published);
        else
            show_left(daemon, &result);
    }
}

/** Training has ended: what still waits gets its time, less after a signal or a failure. */
static void finish_handover(struct daemon *daemon, bool failed) {
    int64_t end_ms = clock_now_ms() + (int64_t)daemon->config->publish.to_wait_seconds * 1000;
    if (!daemon->handover)
        return;
    handover_hurry(daemon->handover);
    bool hasty = false;
    while (handover_waiting(daemon->handover) && clock_now_ms() < end_ms) {
        if ((signals_stop || failed) && !hasty && clock_left_ms(end_ms) > HASTY_HANDOVER_MS)
            end_ms = clock_now_ms() + HASTY_HANDOVER_MS;
        hasty = signals_stop || failed;
        show_handovers(daemon);
        clock_sleep_ms(HANDOVER_LOOK_MS);
    }
    handover_stop(daemon->handover);
    show_handovers(daemon);
}

static bool on_report(void *context, int rank, const char *kind, const void *data, size_t size, struct error *err) {
    (void)rank;
    struct daemon *daemon = context;
    if (strcmp(kind, REPORT_STEP) == 0) {
        struct progress_step step;
        if (!reports_read_step(data, size, &step, err))
            return false;
        progress_step(daemon->progress, &step);
        show_handovers(daemon);
        return true;
    }
    if (strcmp(kind, REPORT_EVENT) == 0) {
        struct report_event event;
        struct metric metrics[REPORT_MAX_METRICS];
        if (!reports_read_event(data, size, &event, metrics, err))
            return false;
        progress_event(daemon->progress, event.event, metrics, event.count);
        return true;
    }
    struct report_model model;
    show_handovers(daemon);
    return strcmp(kind, REPORT_MODEL) != 0 || (reports_read_model(data, size, &model, err) && publish(daemon, &model, err));
}

static void on_event(void *context, const char *event, const struct metric *metrics, int count) {
    struct daemon *daemon = context;
    progress_event(daemon->progress, event, metrics, count);
}

static bool train(struct daemon *daemon, struct error *err) {
    struct cluster_run_spec spec = {.config = daemon->config, .place = &daemon->place, .arguments = daemon->options->arguments,
                                    .resume = daemon->options->resume, .folder = daemon->folder,
                                    .data_digest = daemon->data_digest, .security = daemon->security, .context = daemon,
                                    .on_report = on_report, .on_event = on_event};
    if (!cluster_run(&spec, &daemon->outcome, err))
        return false;
    struct metric folder = metric_text("run", daemon->config->run.name);
    progress_event(daemon->progress, daemon->outcome == CLUSTER_STOPPED ? "stopped" : "trained", &folder, 1);
    return true;
}

/** Models that are trained here carry the rule's figure: one without it would never pass. */
static bool check_rule(const struct trainer_config *config, const struct gate_rule *rule, struct error *err) {
    const char *class_name;
    if (!export_measures(rule->metric, rule->split, &class_name)) {
        error_set(err, ERROR_INVALID, "models that trainerd trains say nothing of %s on %s, and would all be refused",
                  rule->metric, rule->split);
        return error_hint(err, "they say, of validation: %s", export_measured);
    }
    return !*class_name || trainer_config_may_have_class(config, class_name) ||
           error_set(err, ERROR_INVALID, "%s: the data has no such class", rule->metric);
}

/** Models that come from elsewhere may say more than ours: a publisher alone is warned only. */
static bool parse_gate(const struct trainer_config *config, struct gate_rule rules[GATE_MAX_RULES], struct error *err) {
    const struct string_list *list = &config->publish.gate;
    if (list->count > GATE_MAX_RULES)
        return error_set(err, ERROR_INVALID, "publish.gate: at most %d rules", GATE_MAX_RULES);
    for (int i = 0; i < list->count; i++) {
        struct error wrong = {0};
        if (!gate_parse(list->items[i], &rules[i], err))
            return error_prefix(err, "publish.gate");
        if (check_rule(config, &rules[i], &wrong))
            continue;
        if (config->trains) {
            *err = wrong;
            return error_prefix(err, "publish.gate");
        }
        log_error("gate_rule_of_other_models", &wrong);
    }
    return true;
}

/** Reads our key and the allow-list, where there are any. */
static bool open_security(const struct security_config *config, struct wire_security **out, struct error *err) {
    struct wire_security_spec spec = {.secret_key = config->key, .allow = config->allow, .report = log_error};
    return !*config->key || (*out = wire_security_create(&spec, err)) || error_prefix(err, "security");
}

static bool open_publisher(struct daemon *daemon, struct error *err) {
    const struct trainer_publish_config *publish = &daemon->config->publish;
    bool automatic = publish->activate == TRAINER_ACTIVATE_AUTO;
    struct publisher_spec spec = {.announce = publish->announce,
                                  .control = publish->control,
                                  .blobs = publish->blobs,
                                  .store_folder = publish->store,
                                  .sign_key = publish->sign_key,
                                  .insecure = daemon->config->security.insecure,
                                  .security = daemon->security,
                                  .registers_only = !publish->stage,
                                  .activate = automatic ? PUBLISHER_ACTIVATE_AUTO : PUBLISHER_ACTIVATE_MANUAL,
                                  .inspect = publisher_inspect_model};
    struct gate_rule gate[GATE_MAX_RULES];
    struct plan plan = {0};
    if (!publish->enabled)
        return true;
    if (!parse_gate(daemon->config, gate, err))
        return false;
    spec.gate = gate;
    spec.gate_count = publish->gate.count;
    if (*publish->plan && !plan_find(&plan, publish->plan, NULL, err)) {
        plan_fini(&plan);
        return error_prefix(err, "publish.plan");
    }
    spec.plan = *publish->plan ? &plan.message : NULL;
    daemon->publisher = publisher_create(&spec, err);
    plan_fini(&plan);
    if (!daemon->publisher)
        return false;
    struct metric metrics[] = {metric_text("announce", publisher_endpoint(daemon->publisher, PUBLISHER_ANNOUNCE)),
                               metric_text("control", publisher_endpoint(daemon->publisher, PUBLISHER_CONTROL)),
                               metric_text("blobs", publisher_endpoint(daemon->publisher, PUBLISHER_BLOBS))};
    progress_event(daemon->progress, "publisher", metrics, 3);
    return true;
}

static bool open_monitor(struct daemon *daemon, struct error *err) {
    struct publisher_monitor_spec spec = {.bind = daemon->config->http.bind,
                                          .insecure = daemon->config->security.insecure,
                                          .version = THORAX_VERSION,
                                          .publisher = daemon->publisher};
    if (!*spec.bind)
        return true;
    if (!(daemon->monitor = publisher_monitor_create(&spec, err)))
        return error_prefix(err, "http.bind");
    struct metric port = metric_integer("port", publisher_monitor_port(daemon->monitor));
    progress_event(daemon->progress, "http", &port, 1);
    return true;
}

/** Tells when the pool changes, until a signal arrives. */
static bool publish_until_stopped(struct daemon *daemon, struct error *err) {
    struct publisher_status last = {0};
    progress_event(daemon->progress, "publishing", NULL, 0);
    while (!signals_stop) {
        struct publisher_status now;
        if (!publisher_status(daemon->publisher, &now, err))
            return false;
        if (now.members != last.members || now.members_current != last.members_current ||
            now.members_failed != last.members_failed) {
            struct metric metrics[] = {metric_integer("members", now.members), metric_integer("current", now.members_current),
                                       metric_integer("failed", now.members_failed)};
            progress_event(daemon->progress, "pool", metrics, 3);
            last = now;
        }
        clock_sleep_ms(MEMBERS_WAIT_MS);
    }
    return true;
}

/** Where this process stands among others; what is offered to a pool, and shown over HTTP, is the coordinator's. */
static bool find_place(struct daemon *daemon, struct error *err) {
    const struct cluster_place *place = &daemon->place;
    if (!daemon->config->trains)
        return true;
    if (!cluster_run_place(daemon->config, &daemon->place, err))
        return false;
    struct metric metrics[] = {metric_integer("node", place->node), metric_integer("nodes", place->nodes),
                               metric_integer("ranks", place->slots), metric_text("coordinator", place->coordinator),
                               metric_text("says", place->source)};
    if (*place->coordinator)
        progress_event(daemon->progress, "node", metrics, 5);
    return true;
}

static bool open_services(struct daemon *daemon, struct error *err) {
    return daemon->place.node != 0 || (open_publisher(daemon, err) && open_monitor(daemon, err));
}

bool daemon_run(const struct trainer_config *config, const struct daemon_options *options, struct daemon_result *result,
                struct error *err) {
    struct daemon daemon = {.config = config, .options = options, .progress = progress_create(stdout, options->style),
                            .outcome = CLUSTER_FINISHED};
    if (!daemon.progress)
        return error_set(err, ERROR_MEMORY, "out of memory");
    bool ok = open_security(&config->security, &daemon.security, err) && find_place(&daemon, err) &&
              open_services(&daemon, err) && (!config->trains || (prepare_data(&daemon, err) && train(&daemon, err)));
    finish_handover(&daemon, !ok);
    *result = (struct daemon_result){.left = daemon.left, .stopped = daemon.outcome == CLUSTER_STOPPED};
    if (ok && daemon.publisher && !options->once && !signals_stop && !result->stopped)
        ok = publish_until_stopped(&daemon, err);
    publisher_monitor_destroy(daemon.monitor);
    publisher_destroy(daemon.publisher);
    handover_destroy(daemon.handover);
    wire_security_destroy(daemon.security);
    progress_destroy(daemon.progress);
    return ok;
}

/** The plan of rollouts that start by themselves is there, and makes sense. */
static bool check_plan(const struct trainer_config *config, struct error *err) {
    struct plan plan = {0};
    bool ok = !*config->publish.plan || plan_find(&plan, config->publish.plan, NULL, err) || error_prefix(err, "publish.plan");
    plan_fini(&plan);
    return ok;
}

bool daemon_check(const struct trainer_config *config, struct error *err) {
    struct gate_rule gate[GATE_MAX_RULES];
    struct wire_security *security = NULL;
    char server_key[CURVE_TEXT_SIZE];
    bool keys = open_security(&config->security, &security, err) && load_server_key(&config->publish, server_key, err);
    wire_security_destroy(security);
    if (!keys || !check_plan(config, err) || !parse_gate(config, gate, err))
        return false;
    if (!config->trains)
        return true;
    struct model_spec spec = {.architecture = config->model.architecture, .stem = config->model.stem,
                              .input_channels = config->model.input_channels, .size = config->model.size, .classes = 3,
                              .dropout = config->model.dropout};
    struct graph *graph = model_build(&spec, err);
    graph_destroy(graph);
    return graph;
}
