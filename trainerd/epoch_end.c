#include "trainerd/epoch_end.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "trainerd/reports.h"
#include "trainerd/running_statistics.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/** The weights that a model of this moment would have. */
static bool gather_weights(struct training *training, struct error *err) {
    return plan_export(training->plan, PLAN_VALUES, training->host, err) &&
           (!plan_has_buffer(training->plan, PLAN_EMA) || plan_export(training->plan, PLAN_EMA, training->host, err)) &&
           running_statistics_share(training->collective, training->graph, training->host, err);
}

static bool evaluate(struct training *training, struct evaluation *out, struct error *err) {
    const struct trainer_config *config = training->job->config;
    int ranks = training->collective->world_size;
    struct evaluate_spec spec = {.graph = training->graph, .parameters = training->host, .device = training->device,
                                 .dataset = &training->job->dataset, .cache = &training->job->cache,
                                 .recipe = &training->job->recipe, .part = DATASET_VALIDATION,
                                 .batch_size = config->train.batch_size / ranks / config->train.parts,
                                 .loader_threads = training->loader_threads,
                                 .collective = training->collective, .rendezvous = training->rendezvous};
    return evaluate_part(&spec, out, err);
}

static const char *data_name(const struct job *job) {
    return *job->config->data.name ? job->config->data.name : job->config->run.name;
}

static int is_model(const struct dirent *entry) {
    const char *dot = strrchr(entry->d_name, '.');
    return dot && strcmp(dot, ".safetensors") == 0;
}

/** At most keep_best model files stay under models/; what was published lives on in the publisher's store. */
static void remove_old_models(const char *folder, int keep) {
    struct dirent **names = NULL;
    int count = scandir(folder, &names, is_model, versionsort);
    char path[REPORT_PATH_SIZE];
    for (int i = 0; i < count; i++) {
        if (i < count - keep && file_join(path, sizeof path, folder, names[i]->d_name, NULL))
            unlink(path);
        free(names[i]);
    }
    if (count >= 0)
        free(names);
}

static bool write_model(struct training *training, const struct evaluation *evaluation, const char *version, char *path,
                        size_t path_size, struct error *err) {
    const struct job *job = training->job;
    const struct trainer_config *config = job->config;
    char folder[REPORT_PATH_SIZE], name[300], finished[40];
    clock_timestamp(finished, sizeof finished);
    snprintf(name, sizeof name, "%s-%s.safetensors", job_model_name(job), version);
    struct export_spec spec = {
        .name = job_model_name(job),
        .version = version,
        .model = &job->model,
        .graph = training->graph,
        .parameters = training->host,
        .device = training->device,
        .recipe = &job->recipe,
        .class_names = (const char *const *)job->dataset.class_names,
        .evaluation = evaluation,
        .data_name = data_name(job),
        .point = config->publish.operating_point,
        .data_digest = job->data_digest,
        .intended_use = {config->intended_use.age_min_years, config->intended_use.age_max_years,
                         config->intended_use.views.count, config->intended_use.views.items,
                         config->intended_use.statement},
        .training = {job->config_digest, config->run.name, THORAX_VERSION, finished, config->run.seed,
                     (int)training->state.epoch + 1}};
    if (!job_path(job, "models", folder, sizeof folder, err) || !file_make_folders(folder, err) ||
        !file_join(path, path_size, folder, name, err) || !export_model(path, &spec, err))
        return false;
    remove_old_models(folder, config->checkpoint.keep_best);
    return true;
}

/** Rank 0 writes the model and hands it on. */
static bool offer_model(struct training *training, const struct evaluation *evaluation, struct error *err) {
    char path[REPORT_PATH_SIZE], version[120];
    if (training->collective->rank != 0)
        return true;
    snprintf(version, sizeof version, "%s-%lld", training->job->config->run.name, (long long)training->state.models);
    return write_model(training, evaluation, version, path, sizeof path, err) &&
           reports_send_model(training->rendezvous, path, job_model_name(training->job), version, err);
}

static bool tell(struct training *training, const struct evaluation_figures *figures, bool best, struct error *err) {
    if (training->collective->rank != 0)
        return true;
    const struct training_state *state = &training->state;
    struct metric metrics[10 + DATASET_MAX_CLASSES] = {
        metric_integer("epoch", state->epoch + 1),
        metric_integer("step", state->global_step),
        metric_real("loss", state->loss_sum / (double)training->sampler->steps),
        metric_real("validation_loss", figures->log_loss),
        metric_real("accuracy", figures->accuracy),
        metric_real("balanced_accuracy", figures->balanced_accuracy),
        metric_real("auc", figures->pair_area),
        metric_integer("best", best),
    };
    char names[DATASET_MAX_CLASSES][REPORT_NAME_SIZE];
    int count = 8;
    if (loss_scale_needed(training->job->config->train.precision)) {
        metrics[count++] = metric_real("loss_scale", state->loss_scale.factor);
        metrics[count++] = metric_integer("skipped_steps", state->loss_scale.skipped);
    }
    for (int i = 0; i < training->job->dataset.classes && count < REPORT_MAX_METRICS; i++) {
        snprintf(names[i], sizeof names[i], "recall_%.30s", training->job->dataset.class_names[i]);
        metrics[count++] = metric_real(names[i], figures->recall[i]);
    }
    return metrics_log_write(training->log, "epoch", metrics, count, err) &&
           reports_send_event(training->rendezvous, "epoch", metrics, count, err);
}

/** How long this rank's sums took in the epoch's steps since the worker started, and how much of that compute did not hide. */
static bool tell_communication(struct training *training, struct error *err) {
    struct collective_times now, before = training->told;
    if (!collective_read_times(training->collective, &now))
        return true;
    training->told = now;
    if (training->collective->rank != 0)
        return true;
    struct metric metrics[] = {metric_integer("epoch", training->state.epoch + 1),
                               metric_integer("step", training->state.global_step),
                               metric_integer("sums", now.sums - before.sums),
                               metric_integer("bytes", now.bytes - before.bytes),
                               metric_real("communication_ms", (double)(now.busy_ns - before.busy_ns) * 1e-6),
                               metric_real("exposed_communication_ms", (double)(now.waited_ns - before.waited_ns) * 1e-6)};
    return metrics_log_write(training->log, "communication", metrics, sizeof metrics / sizeof *metrics, err);
}

bool epoch_end_evaluate(struct training *training, struct error *err) {
    struct training_state *state = &training->state;
    const struct trainer_train_config *train = &training->job->config->train;
    const struct dataset *dataset = &training->job->dataset;
    struct evaluation evaluation;
    struct evaluation_figures figures;
    if (!gather_weights(training, err) || !evaluate(training, &evaluation, err))
        return false;
    int positive = export_class((const char *const *)dataset->class_names, dataset->classes, "PNEUMONIA");
    int negative = export_class((const char *const *)dataset->class_names, dataset->classes, "NORMAL");
    bool ok = export_figures(&evaluation, positive, negative, &figures, err);
    if (ok) {
        double selection = export_selection(&figures, train->select_metric);
        bool best = isnan(state->best_metric) || selection > state->best_metric;
        state->stale_epochs = best ? 0 : state->stale_epochs + 1;
        if (best) {
            state->best_metric = selection;
            state->best_epoch = state->epoch;
            state->models++;
        }
        ok = tell(training, &figures, best, err) && tell_communication(training, err) &&
             (!best || offer_model(training, &evaluation, err));
    }
    evaluation_fini(&evaluation);
    return ok;
}
