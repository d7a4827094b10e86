#include "trainerd/worker.h"

#include "common/base/cpu.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/signals.h"
#include "common/graph/slow_kernels.h"
#include "common/weights/import.h"
#include "trainerd/engine.h"
#include "trainerd/reports.h"
#include "trainerd/supervisor.h"
#include "trainerd/training.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** All that a worker holds, in the order in which it is made. */
struct worker {
    const struct trainer_config *config;
    struct supervisor_worker place;
    struct job job;
    struct sampler sampler;
    struct training training;
    struct step step;
    struct graph *graph;
    struct wire_context *wire;
    char environment[CHECKPOINT_TEXT_SIZE];
};

static void worker_fini(struct worker *worker) {
    struct training *training = &worker->training;
    collective_close(training->collective);
    if (worker->step.spec.device)
        step_fini(&worker->step);
    rendezvous_leave(training->rendezvous);
    wire_context_destroy(worker->wire);
    metrics_log_close(training->log);
    plan_destroy(training->plan);
    parameters_destroy(training->host);
    graph_destroy(worker->graph);
    device_close(training->device);
    sampler_fini(&worker->sampler);
    job_close(&worker->job);
}

static bool open_device(struct worker *worker, struct error *err) {
    if (!(worker->training.device = engine_open_device(worker->config, worker->place.rank, err)))
        return false;
    struct device_info info;
    worker->training.device->ops->info(worker->training.device, &info);
    snprintf(worker->environment, sizeof worker->environment, "thorax %s, %s", THORAX_VERSION, info.name);
    return true;
}

static bool import_start(struct worker *worker, struct error *err) {
    struct import_report report;
    const struct model_architecture *architecture = model_find(worker->config->model.architecture, err);
    return architecture && (import_weights_file(worker->config->model.init, worker->graph, architecture,
                                                worker->training.host, &report, err) ||
                            error_prefix(err, "model.init"));
}

static bool build_network(struct worker *worker, struct error *err) {
    struct training *training = &worker->training;
    const struct trainer_config *config = worker->config;
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
    const struct trainer_config *config = worker->config;
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
    snprintf(fingerprint, sizeof fingerprint, "config=%s\ndata=%s\nenvironment=%s\nplan=%s\n", worker->job.config_digest,
             worker->job.data_digest, worker->environment, plan_fingerprint(training->plan));
    int64_t timeout_ms = (int64_t)worker->config->collective.timeout_seconds * 1000;
    struct rendezvous_spec spec = {.wire = worker->wire, .endpoint = worker->place.endpoint, .rank = worker->place.rank,
                                   .world_size = worker->place.world_size, .generation = worker->place.generation,
                                   .fingerprint = fingerprint, .timeout_ms = timeout_ms};
    if (!(training->rendezvous = rendezvous_join(&spec, err)))
        return false;
    const char *address = worker->config->collective.address;
    struct collective_store store = rendezvous_store(training->rendezvous);
    struct collective_spec collective = {.name = engine_collective(worker->config),
                                         .rank = worker->place.rank, .world_size = worker->place.world_size, .store = &store,
                                         .timeout_ms = timeout_ms, .address = *address ? address : NULL,
                                         .device_index = worker->place.rank, .waiting = say_alive,
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
                             .timeout_ms = (int64_t)worker->config->collective.timeout_seconds * 1000};
    worker->training.step = &worker->step;
    return step_init(&worker->step, &spec, err);
}

static void fresh_state(struct worker *worker) {
    struct training_state *state = &worker->training.state;
    *state = (struct training_state){
        .seed = (uint64_t)worker->config->run.seed, .best_metric = NAN, .ranks = worker->place.world_size};
    memcpy(state->config_digest, worker->job.config_digest, sizeof state->config_digest);
    memcpy(state->data_digest, worker->job.data_digest, sizeof state->data_digest);
    memcpy(state->environment, worker->environment, sizeof state->environment);
}

/** Says what differs from the run that wrote the checkpoint: from here on the result will not be bit for bit that run's. */
static void say_differences(const struct worker *worker, const struct training_state *was) {
    if (was->ranks != worker->place.world_size)
        log_event(LOG_WARNING, "resume_differs", "what=ranks checkpoint=%d now=%d", was->ranks, worker->place.world_size);
    if (strcmp(was->config_digest, worker->job.config_digest) != 0)
        log_event(LOG_WARNING, "resume_differs", "what=config checkpoint=%.12s now=%.12s", was->config_digest,
                  worker->job.config_digest);
    if (strcmp(was->data_digest, worker->job.data_digest) != 0)
        log_event(LOG_WARNING, "resume_differs", "what=data checkpoint=%.12s now=%.12s", was->data_digest,
                  worker->job.data_digest);
    if (strcmp(was->environment, worker->environment) != 0)
        log_event(LOG_WARNING, "resume_differs", "what=environment checkpoint=\"%s\" now=\"%s\"",
                  was->environment, worker->environment);
}

/** Loads the newest checkpoint where there is one; the ranks make sure that they took the same. */
static bool resume(struct worker *worker, bool wanted, struct error *err) {
    struct training *training = &worker->training;
    char folder[CHECKPOINT_PATH_SIZE], path[CHECKPOINT_PATH_SIZE];
    int skipped = 0;
    fresh_state(worker);
    if (!job_path(&worker->job, "checkpoints", folder, sizeof folder, err))
        return false;
    if (wanted && checkpoint_newest(folder, path, &skipped, NULL)) {
        struct training_state was;
        if (!checkpoint_load(path, training->plan, worker->graph, &was, err))
            return false;
        if (worker->place.rank == 0)
            say_differences(worker, &was);
        struct training_state now = training->state;
        training->state = was;
        training->state.ranks = now.ranks;
        memcpy(training->state.config_digest, now.config_digest, sizeof now.config_digest);
        memcpy(training->state.data_digest, now.data_digest, sizeof now.data_digest);
        memcpy(training->state.environment, now.environment, sizeof now.environment);
    }
    if (worker->place.rank == 0 && skipped)
        log_event(LOG_WARNING, "checkpoint_damaged", "skipped=%d", skipped);
    int64_t all[RENDEZVOUS_RANKS_MAX];
    if (!collective_allgather(training->collective, &training->state.global_step, sizeof(int64_t), all, err))
        return false;
    for (int i = 0; i < worker->place.world_size; i++) {
        if (all[i] != training->state.global_step)
            return error_set(
                err, ERROR_PEER,
                "rank %d resumes at step %lld and rank %d at step %lld: do they see the same run folder?",
                worker->place.rank, (long long)training->state.global_step, i, (long long)all[i]);
    }
    return true;
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
        metric_integer("ranks", ranks),                              metric_text("device", worker->environment),
        metric_integer("training_images", worker->job.train_count),  metric_integer("steps_per_epoch", worker->sampler.steps),
        metric_text("precision", precision_name(worker->config->train.precision)),
        metric_text("gradients", precision_name(ranks > 1 ? worker->config->collective.gradients : PRECISION_F32)),
        metric_integer("arena_mib", (int64_t)(memory.arena_bytes >> 20)),
        metric_integer("arena_live_mib", (int64_t)(memory.arena_live_bytes >> 20)),
        metric_integer("parameters_mib", (int64_t)(memory.parameter_bytes >> 20)),
        metric_integer("at_step", training->state.global_step)};
    int count = sizeof metrics / sizeof *metrics;
    return metrics_log_write(training->log, "start", metrics, count, err) &&
           reports_send_event(training->rendezvous, "start", metrics, count, err);
}

static bool set_up(struct worker *worker, struct error *err) {
    worker->training.job = &worker->job;
    worker->training.loader_threads = worker->config->data.loader_threads;
    return (worker->wire = wire_context_create(1, err)) && job_open(&worker->job, worker->config, NULL, err) &&
           open_device(worker, err) && open_sampler(worker, err) && build_network(worker, err) && meet(worker, err) &&
           prepare_steps(worker, err);
}

bool worker_run(const struct trainer_config *config, int rank, bool resumes, struct error *err) {
    struct worker worker = {.config = config};
    bool stopped = false;
    if (!supervisor_worker_read(rank, &worker.place, err))
        return false;
    bool ok = set_up(&worker, err) && resume(&worker, resumes, err) && open_log(&worker, err) && tell_start(&worker, err) &&
              training_run(&worker.training, &stopped, err);
    if (!ok)
        supervisor_worker_failed(&worker.place, err);
    worker_fini(&worker);
    return ok;
}
