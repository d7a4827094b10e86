#include "trainerd/resume.h"

#include "common/base/log.h"
#include "trainerd/checkpoint_agree.h"

#include <math.h>
#include <string.h>

/** What the state says of this process rather than of how far training is. */
static void describe_here(struct training_state *state, const struct training *training, const struct resume_spec *spec) {
    const struct job *job = training->job;
    state->ranks = spec->place->world_size;
    state->parts = job->config->train.parts;
    memcpy(state->config_digest, job->config_digest, sizeof state->config_digest);
    memcpy(state->data_digest, job->data_digest, sizeof state->data_digest);
    snprintf(state->environment, sizeof state->environment, "%s", spec->environment);
}

static void say_number(const char *what, int was, int now) {
    if (was != now)
        log_event(LOG_WARNING, "resume_differs", "what=%s checkpoint=%d now=%d", what, was, now);
}

static void say_digest(const char *what, const char *was, const char *now) {
    if (strcmp(was, now) != 0)
        log_event(LOG_WARNING, "resume_differs", "what=%s checkpoint=%.12s now=%.12s", what, was, now);
}

static void say_differences(const struct training_state *was, const struct training_state *now) {
    say_number("ranks", was->ranks, now->ranks);
    say_number("parts", was->parts, now->parts);
    say_digest("config", was->config_digest, now->config_digest);
    say_digest("data", was->data_digest, now->data_digest);
    if (strcmp(was->environment, now->environment) != 0)
        log_event(LOG_WARNING, "resume_differs", "what=environment checkpoint=\"%s\" now=\"%s\"", was->environment,
                  now->environment);
}

static void say_alive(void *rendezvous) {
    rendezvous_heartbeat(rendezvous);
}

static bool agree(struct training *training, const struct resume_spec *spec, struct checkpoint_agreement *out,
                  struct error *err) {
    char folder[CHECKPOINT_PATH_SIZE];
    const struct supervisor_worker *place = spec->place;
    struct checkpoint_agree_spec question = {.folder = folder, .resumes = spec->resumes,
                                             .replicates = training->job->config->checkpoint.replicate, .run = place->run,
                                             .node = place->node, .local_rank = place->local_rank,
                                             .bytes_max = checkpoint_bytes_max(training->host),
                                             .collective = training->collective, .device = training->device,
                                             .alive = say_alive, .context = training->rendezvous};
    if (!job_path(training->job, "checkpoints", folder, sizeof folder, err) || !checkpoint_agree(&question, out, err))
        return false;
    if (out->skipped && place->local_rank == 0)
        log_event(LOG_WARNING, "checkpoint_damaged", "skipped=%d", out->skipped);
    if (out->received && place->rank == 0)
        log_event(LOG_INFO, "checkpoint_sent", "file=\"%s\" nodes=%d", out->path, out->received);
    return true;
}

static bool load(struct training *training, const struct resume_spec *spec, const char *path, struct error *err) {
    struct training_state was, *state = &training->state;
    if (!checkpoint_load(path, training->plan, training->graph, state, err))
        return false;
    was = *state;
    describe_here(state, training, spec);
    state->run = state->run ? state->run : spec->place->run;
    if (spec->place->rank == 0)
        say_differences(&was, state);
    return true;
}

bool resume_training(struct training *training, const struct resume_spec *spec, struct error *err) {
    struct checkpoint_agreement agreement;
    const struct trainer_config *config = training->job->config;
    training->state =
        (struct training_state){.seed = (uint64_t)config->run.seed, .best_metric = NAN, .run = spec->place->run};
    describe_here(&training->state, training, spec);
    if (!agree(training, spec, &agreement, err) || (*agreement.path && !load(training, spec, agreement.path, err)))
        return false;
    training->node = spec->place->node;
    training->replicates = config->checkpoint.replicate && agreement.nodes > 1;
    training->writes = spec->place->rank == 0 || (training->replicates && spec->place->local_rank == 0);
    return true;
}
