#include "trainerd/training.h"

#include "common/base/clock.h"
#include "common/base/signals.h"
#include "trainerd/checkpoint_write.h"
#include "trainerd/engine.h"
#include "trainerd/epoch_end.h"
#include "trainerd/loss_scale.h"
#include "trainerd/optimizer.h"
#include "trainerd/reports.h"

#include <math.h>
#include <stdlib.h>

/** What signals ask for; the larger wish wins. */
enum wish { WISH_NONE, WISH_REGROUP, WISH_STOP };

/** What every rank says of itself after each step. */
struct step_word {
    float loss;
    int32_t wish; /* enum wish: of the signals that arrived here */
};

static enum wish wish_of_signals(void) {
    return signals_stop ? WISH_STOP : signals_regroup ? WISH_REGROUP : WISH_NONE;
}

/** Exchanges losses and wishes: the mean loss over ranks, and the largest wish: all know the same. */
static bool agree(const struct training *training, float loss, double *mean_loss, enum wish *wish, struct error *err) {
    int ranks = training->collective->world_size;
    struct step_word mine = {loss, wish_of_signals()};
    struct step_word *all = calloc((size_t)ranks, sizeof *all);
    if (!all)
        return error_set(err, ERROR_MEMORY, "out of memory");
    bool ok = collective_allgather(training->collective, &mine, sizeof mine, all, err);
    double sum = 0;
    *wish = WISH_NONE;
    for (int i = 0; ok && i < ranks; i++) {
        sum += all[i].loss;
        *wish = all[i].wish > (int32_t)*wish ? (enum wish)all[i].wish : *wish;
    }
    *mean_loss = sum / ranks;
    free(all);
    return ok;
}

static bool save_checkpoint(struct training *training, struct error *err) {
    char folder[CHECKPOINT_PATH_SIZE];
    struct checkpoint_write_spec spec = {.folder = folder, .collective = training->collective, .plan = training->plan,
                                         .graph = training->graph, .host = training->host, .state = &training->state,
                                         .keep_last = training->job->config->checkpoint.keep_last, .node = training->node,
                                         .writes = training->writes, .replicates = training->replicates};
    return job_path(training->job, "checkpoints", folder, sizeof folder, err) && checkpoint_write(&spec, err);
}

static bool tell_step(const struct training *training, double loss, struct error *err) {
    if (training->collective->rank != 0)
        return true;
    const struct trainer_train_config *train = &training->job->config->train;
    const struct training_state *state = &training->state;
    struct progress_step progress = {.epoch = (int)state->epoch + 1, .epochs = train->epochs, .step = state->global_step,
                                     .steps = train->epochs * training->sampler->steps,
                                     .images = state->global_step * train->batch_size, .loss = loss, .now_ms = clock_now_ms()};
    return reports_send_step(training->rendezvous, &progress, err);
}

/** The batches of a run, and the next one while its images are on their way to the device already. */
struct feed {
    struct loader *loader;
    struct batch next;
    bool staged;
};

static bool take_batch(struct feed *feed, struct batch *out, struct error *err) {
    bool staged = feed->staged;
    *out = feed->next;
    feed->staged = false;
    return staged || loader_next(feed->loader, out, err);
}

/** While the device computes a step, the images of the next go there. */
static bool stage_next(const struct training *training, struct feed *feed, struct error *err) {
    if (!plan_stages(training->plan))
        return true;
    feed->staged = loader_next(feed->loader, &feed->next, err) && plan_stage_images(training->plan, feed->next.images, err);
    return feed->staged;
}

static bool is_scaled(const struct training *training) {
    return loss_scale_needed(training->job->config->train.precision);
}

/** The numbers of the update that comes, and the factor of the loss that goes with them. */
static bool begin_update(struct training *training, float hyper[HYPER_COUNT], struct error *err) {
    struct training_state *state = &training->state;
    struct optimizer_moment moment = {training->sampler->steps, state->global_step, .ranks = training->collective->world_size};
    if (is_scaled(training)) {
        loss_scale_begin(&state->loss_scale);
        moment.skipped = state->loss_scale.skipped;
        moment.loss_scale = state->loss_scale.factor;
    }
    optimizer_hyper(training->job->config, &moment, hyper);
    return !is_scaled(training) || plan_set_loss_scale(training->plan, (float)state->loss_scale.factor, err);
}

/** Whether the update was made: its gradients are the sums over all ranks, so that every rank sees the same. */
static bool end_update(struct training *training, struct error *err) {
    struct loss_scale *scale = &training->state.loss_scale;
    double norm[2], before = scale->factor;
    if (!is_scaled(training))
        return true;
    if (!plan_read_gradient_norm(training->plan, 1, norm, err))
        return false;
    loss_scale_step(scale, norm[1] == 0);
    if (scale->factor == before || training->collective->rank != 0)
        return true;
    struct metric metrics[] = {metric_integer("step", training->state.global_step + 1),
                               metric_real("loss_scale", scale->factor), metric_integer("skipped_steps", scale->skipped)};
    return metrics_log_write(training->log, "loss_scale", metrics, sizeof metrics / sizeof *metrics, err);
}

/** One step with the batch that the loader has ready. */
static bool train_step(struct training *training, struct feed *feed, double *loss, enum wish *wish, struct error *err) {
    struct batch batch;
    float hyper[HYPER_COUNT], own_loss;
    const struct training_state *state = &training->state;
    int ranks = training->collective->world_size, rank = training->collective->rank;
    int64_t first = state->global_step * training->job->config->train.batch_size +
                    (int64_t)rank * (training->job->config->train.batch_size / ranks);
    if (!begin_update(training, hyper, err) || !take_batch(feed, &batch, err))
        return false;
    struct step_input input = {batch.images, batch.labels, {(int64_t)state->seed, state->global_step, first}};
    if (!step_begin(training->step, &input, hyper, err))
        return false; /* with the batch, which may still be on its way to the device */
    bool staged = stage_next(training, feed, err);
    if (!step_end(training->step, &own_loss, staged ? err : NULL) || !staged)
        return false;
    loader_release(feed->loader);
    bool ok = end_update(training, err) && agree(training, own_loss, loss, wish, err);
    if (ok && !isfinite(*loss)) {
        error_set(err, ERROR_INVALID, "the loss is not finite after %lld steps", (long long)state->global_step);
        return error_hint(err, "a smaller optimizer.learning_rate, a longer schedule.warmup_epochs or train.clip_norm may help");
    }
    return ok;
}

/** Saves where a checkpoint within an epoch is due, or wished for, and says whether training is to end with it. */
static bool save_within(struct training *training, enum wish wish, bool *ends, struct error *err) {
    const struct training_state *state = &training->state;
    int every = training->job->config->checkpoint.every_steps;
    bool due = every > 0 && state->global_step % every == 0 && state->step < training->sampler->steps;
    *ends = wish == WISH_STOP || (wish == WISH_REGROUP && due);
    return (!due && !*ends) || save_checkpoint(training, err);
}

/** The steps that are left of the epoch, unless a signal ends training before them. */
static bool train_epoch(struct training *training, struct feed *feed, enum wish *wish, bool *ends, struct error *err) {
    struct training_state *state = &training->state;
    while (state->step < training->sampler->steps && !*ends) {
        double loss = 0;
        if (!train_step(training, feed, &loss, wish, err))
            return false;
        state->step++;
        state->global_step++;
        state->loss_sum += loss;
        rendezvous_heartbeat(training->rendezvous);
        if (!tell_step(training, loss, err) || !save_within(training, *wish, ends, err))
            return false;
    }
    return true;
}

/** A batch that is staged is held beside the one that is computed with. */
static struct loader *open_loader(const struct training *training, struct error *err) {
    const struct trainer_config *config = training->job->config;
    int held = plan_stages(training->plan) ? 1 : 0;
    struct loader_spec spec = {.cache = &training->job->cache, .recipe = &training->job->recipe,
                               .labels = training->job->train_labels, .indices = training->job->train_indices,
                               .count = training->job->train_count, .sampler = training->sampler,
                               .augment_by_class = training->job->augment, .varied = plan_varies(training->plan),
                               .rank = training->collective->rank, .ranks = training->collective->world_size,
                               .first_epoch = training->state.epoch, .first_step = training->state.step,
                               .seed = training->state.seed, .threads = training->loader_threads,
                               .prefetch = config->data.prefetch + held, .nice = 5,
                               .memory = engine_batch_memory(training->device)};
    return loader_create(&spec, err);
}

/** Ends an epoch: evaluates, decides whether it was the last, and saves where a checkpoint is due or the ranks regroup. */
static bool finish_epoch(struct training *training, enum wish wish, bool *ends, struct error *err) {
    struct training_state *state = &training->state;
    const struct trainer_config *config = training->job->config;
    if (!epoch_end_evaluate(training, err))
        return false;
    state->epoch++;
    state->step = 0;
    state->loss_sum = 0;
    int patience = config->train.early_stopping_patience;
    state->finished = state->epoch == config->train.epochs || (patience > 0 && state->stale_epochs >= patience);
    *ends = state->finished || wish == WISH_REGROUP;
    int every = config->checkpoint.every_epochs;
    bool due = *ends || (every > 0 && state->epoch % every == 0);
    return !due || save_checkpoint(training, err);
}

bool training_run(struct training *training, enum training_outcome *outcome, struct error *err) {
    enum wish wish = WISH_NONE;
    bool ends = training->state.finished;
    *outcome = TRAINING_FINISHED;
    if (ends)
        return true;
    struct feed feed = {.loader = open_loader(training, err)};
    bool ok = feed.loader;
    while (ok && !ends) {
        ok = train_epoch(training, &feed, &wish, &ends, err);
        if (ok && !ends)
            ok = finish_epoch(training, wish, &ends, err);
    }
    (void)plan_drop_staged(training->plan, NULL); /* where it fails, so did the step */
    loader_destroy(feed.loader);
    if (!training->state.finished)
        *outcome = wish == WISH_STOP ? TRAINING_STOPPED : TRAINING_REGROUPS;
    return ok;
}
