#include "trainerd/worker.h"

#include "common/base/cpu.h"
#include "common/base/log.h"
#include "common/base/signals.h"
#include "common/graph/slow_kernels.h"
#include "common/weights/import.h"
#include "trainerd/cluster_keys.h"
#include "trainerd/engine.h"
#include "trainerd/optimizer.h"
#include "trainerd/reports.h"
#include "trainerd/resume.h"

#include <stdio.h>

/** All that a worker holds, in the order in which it is made. */
struct worker {
    struct trainer_config config; /* with what this generation has otherwise */
    struct supervisor_worker place;
    struct job job;
    struct sampler sampler;
    struct training training;
    struct step step;
    struct graph *graph;
    struct wire_context *wire;
    struct cluster_keys keys;
    char environment[CHECKPOINT_TEXT_SIZE];
};

static void worker_fini(struct worker *worker) {
    struct training *training = &worker->training;
    collective_close(training->collective);
    if (worker->step.spec.device)
        step_fini(&worker->step);
    rendezvous_leave(training->rendezvous);
    wire_context_destroy(worker->wire);
    cluster_keys_close(&worker->keys);
    metrics_log_close(training->log);
    plan_destroy(training->plan);
    parameters_destroy(training->host);
    graph_destroy(worker->graph);
    device_close(training->device);
    sampler_fini(&worker->sampler);
    job_close(&worker->job);
}

static bool open_device(struct worker *worker, struct error *err) {
    if (!(worker->training.device = engine_open_device(&worker->config, worker->place.device, err)))
        return false;
    struct device_info info;
    worker->training.device->ops->info(worker->training.device, &info);
    snprintf(worker->environment, sizeof worker->environment, "thorax %s, %s", THORAX_VERSION, info.name);
    return true;
}

static bool import_start(struct worker *worker, struct error *err) {
    struct import_report report;
    const struct model_architecture *architecture = model_find(worker->config.model.architecture, err);
    return architecture && (import_weights_file(worker->config.model.init, worker->graph, architecture,
                                                worker->training.host, &report, err) ||
                            error_prefix(err, "model.init"));
}

static bool build_network(struct worker *worker, struct error *err) {
    struct training *training = &worker->training;
    const struct trainer_config *config = &worker->config;
    if (!(worker->graph = model_build(&worker->job.model, err)) || !(training->host = parameters_create(worker->graph, err)))
        return false;
    training->graph = worker->graph;
    parameters_initialise(worker->graph, training->host, (uint64_t)config->run.seed);
    if (*config->model.init && !import_start(worker, err))
        return false;
    struct plan_spec spec = engine_plan(config, worker->place.world_size);
    spec.graph = worker->graph;
    spec.parameters = training->host;
    spec.device = training->device;
    spec.class_weights = worker->job.class_weights;
    if (!(training->plan = plan_create(&spec, err)))
        return false;
    if (worker->place.rank == 0) /* the others have the same */
        slow_kernels_log(training->plan);
    return true;
}

static bool open_sampler(struct worker *worker, struct error *err) {
    const struct trainer_config *config = &worker->config;
    struct sampler_spec spec = {.labels = worker->job.train_labels, .count = worker->job.train_count,
                                .classes = worker->job.dataset.classes, .batch_size = config->train.batch_size,
                                .ranks = worker->place.world_size, .steps_per_epoch = config->train.steps_per_epoch,
                                .balanced = config->imbalance.balanced_sampling, .seed = (uint64_t)config->run.seed};
    worker->training.sampler = &worker->sampler;
    return sampler_init(&worker->sampler, &spec, err);
}

static void say_alive(void *rendezvous) {
    rendezvous_heartbeat(rendezvous);
}

/** Meets the other ranks; they must agree on everything that decides the result. */
static bool meet(struct worker *worker, struct error *err) {
    struct training *training = &worker->training;
    char fingerprint[1024];
    snprintf(fingerprint, sizeof fingerprint, "config=%s\ndata=%s\nenvironment=%s\nplan=%s\nshares=%dx%d\n",
             worker->job.shared_digest, worker->job.data_digest, worker->environment, plan_fingerprint(training->plan),
             worker->place.world_size, worker->config.train.parts);
    int64_t timeout_ms = (int64_t)worker->config.collective.timeout_seconds * 1000;
    struct rendezvous_spec spec = {.wire = worker->wire, .security = worker->keys.security,
                                   .server_key = worker->keys.server_key, .endpoint = worker->place.endpoint,
                                   .rank = worker->place.rank, .world_size = worker->place.world_size,
                                   .generation = worker->place.generation,
                                   .fingerprint = fingerprint, .timeout_ms = timeout_ms};
    if (!(training->rendezvous = rendezvous_join(&spec, err)))
        return false;
    const char *given = worker->config.collective.address, *address = *given ? given : worker->place.address;
    struct collective_store store = rendezvous_store(training->rendezvous);
    struct collective_spec collective = {.name = engine_collective(&worker->config, worker->place.world_size),
                                         .rank = worker->place.rank, .world_size = worker->place.world_size, .store = &store,
                                         .timeout_ms = timeout_ms, .address = *address ? address : NULL,
                                         .device_index = worker->place.device, .waiting = say_alive,
                                         .context = training->rendezvous};
    if (!(training->collective = collective_open(&collective, err)))
        return false;
    const char *description = collective_describe(training->collective);
    if (worker->place.rank == 0 && *description)
        log_event(LOG_INFO, "collective", "ranks=\"%s\"", description);
    return true;
}

static bool prepare_steps(struct worker *worker, struct error *err) {
    const struct training *training = &worker->training;
    struct step_spec spec = {.plan = training->plan, .device = training->device, .collective = training->collective,
                             .timeout_ms = (int64_t)worker->config.collective.timeout_seconds * 1000};
    worker->training.step = &worker->step;
    return step_init(&worker->step, &spec, err);
}

/** Rank 0 keeps the records; those past the checkpoint are dropped, as their steps come again. */
static bool open_log(struct worker *worker, struct error *err) {
    char path[4096];
    if (worker->place.rank != 0)
        return true;
    return job_path(&worker->job, "metrics.jsonl", path, sizeof path, err) &&
           (worker->training.log = metrics_log_open(path, worker->training.state.global_step + 1, err));
}

static bool tell_start(struct worker *worker, struct error *err) {
    struct training *training = &worker->training;
    if (worker->place.rank != 0)
        return true;
    struct plan_memory memory;
    int ranks = worker->place.world_size;
    plan_memory(training->plan, &memory);
    struct metric metrics[] = {
        metric_text("architecture", worker->job.model.architecture), metric_integer("size", worker->job.model.size),
        metric_integer("ranks", ranks),                              metric_integer("parts", worker->config.train.parts),
        metric_text("device", worker->environment),
        metric_integer("training_images", worker->job.train_count),  metric_integer("steps_per_epoch", worker->sampler.steps),
        metric_text("precision", precision_name(worker->config.train.precision)),
        metric_text("gradients", precision_name(ranks > 1 ? worker->config.collective.gradients : PRECISION_F32)),
        metric_integer("arena_mib", (int64_t)(memory.arena_bytes >> 20)),
        metric_integer("arena_live_mib", (int64_t)(memory.arena_live_bytes >> 20)),
        metric_integer("parameters_mib", (int64_t)(memory.parameter_bytes >> 20)),
        metric_real("learning_rate", optimizer_learning_rate(&worker->config)),
        metric_integer("at_step", training->state.global_step)};
    int count = sizeof metrics / sizeof *metrics;
    return metrics_log_write(training->log, "start", metrics, count, err) &&
           reports_send_event(training->rendezvous, "start", metrics, count, err);
}

/** The configuration of this generation: how a rank's share is cut may be another than the file's where ranks were lost. */
static bool take_place(struct worker *worker, struct error *err) {
    const struct supervisor_worker *place = &worker->place;
    struct trainer_train_config *train = &worker->config.train;
    train->parts = place->parts > 0 ? place->parts : train->parts;
    return train->batch_size % ((int64_t)place->world_size * train->parts) == 0 ||
           error_set(err, ERROR_INVALID, "train.batch_size %d cannot be shared evenly by %d ranks of %d parts",
                     train->batch_size, place->world_size, train->parts);
}

static bool set_up(struct worker *worker, struct error *err) {
    worker->training.job = &worker->job;
    worker->training.loader_threads = worker->config.data.loader_threads;
    return take_place(worker, err) && cluster_keys_open(&worker->config, NULL, &worker->keys, err) &&
           (worker->wire = wire_context_create(1, err)) && job_open(&worker->job, &worker->config, NULL, err) &&
           open_device(worker, err) && open_sampler(worker, err) && build_network(worker, err) && meet(worker, err) &&
           prepare_steps(worker, err);
}

static bool resume(struct worker *worker, bool resumes, struct error *err) {
    struct resume_spec spec = {&worker->place, worker->environment, resumes || worker->place.resumes};
    return resume_training(&worker->training, &spec, err);
}

bool worker_run(const struct trainer_config *config, int rank, bool resumes, int *exit_code, struct error *err) {
    static const int codes[] = {[TRAINING_FINISHED] = WORKER_EXIT_FINISHED, [TRAINING_STOPPED] = WORKER_EXIT_STOPPED,
                                [TRAINING_REGROUPS] = WORKER_EXIT_REGROUP};
    struct worker worker = {.config = *config};
    enum training_outcome outcome = TRAINING_FINISHED;
    if (!supervisor_worker_read(rank, &worker.place, err))
        return false;
    bool ok = set_up(&worker, err) && resume(&worker, resumes, err) && open_log(&worker, err) && tell_start(&worker, err) &&
              training_run(&worker.training, &outcome, err);
    if (!ok)
        supervisor_worker_failed(&worker.place, err);
    worker_fini(&worker);
    *exit_code = codes[outcome];
    return ok;
}
