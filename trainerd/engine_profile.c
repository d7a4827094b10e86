#include "trainerd/engine_profile.h"

#include "common/base/signals.h"
#include "common/graph/profile.h"
#include "common/graph/slow_kernels.h"
#include "trainerd/engine.h"
#include "trainerd/optimizer.h"
#include "trainerd/team.h"

#include <stdio.h>
#include <string.h>

enum { CLASSES = 3 /* NORMAL, PNEUMONIA, INVALID */ };

/** What is profiled, in the order in which it is made. */
struct subject {
    char network[64];
    struct graph *graph;
    struct parameters *parameters;
    struct device *device;
    struct plan *plan;
    struct profile *profile;
};

static void subject_fini(struct subject *subject) {
    profile_destroy(subject->profile);
    plan_destroy(subject->plan);
    device_close(subject->device);
    parameters_destroy(subject->parameters);
    graph_destroy(subject->graph);
}

/** As many as the data will have, as far as the configuration alone tells. */
static int count_classes(const struct trainer_data_config *data) {
    if (data->class_names.count > 0)
        return data->class_names.count;
    return data->classes.count > 0 ? data->classes.count + (*data->invalid ? 1 : 0) : CLASSES;
}

static bool subject_init(struct subject *subject, const struct trainer_config *config, struct error *err) {
    struct model_spec model = engine_model(config, count_classes(&config->data));
    if (!(subject->graph = model_build(&model, err)) || !(subject->parameters = parameters_create(subject->graph, err)) ||
        !(subject->device = engine_open_device(config, 0, err)))
        return false;
    parameters_initialise(subject->graph, subject->parameters, (uint64_t)config->run.seed);
    struct plan_spec spec = engine_plan(config, engine_ranks(config));
    spec.graph = subject->graph;
    spec.parameters = subject->parameters;
    spec.device = subject->device;
    if (!(subject->plan = plan_create(&spec, err)))
        return false;
    slow_kernels_log(subject->plan);
    return true;
}

/** Those of the first step, at a rate that moves the weights next to nowhere: noise teaches, and diverges, fast. */
static void choose_hyper(const struct trainer_config *config, float out[HYPER_COUNT]) {
    optimizer_hyper(config, &(struct optimizer_moment){.steps_per_epoch = 1, .ranks = engine_ranks(config)}, out);
    out[HYPER_LEARNING_RATE] = 1e-12f;
}

static bool measure(struct subject *subject, const struct trainer_config *config, int runs, struct error *err) {
    float hyper[HYPER_COUNT];
    choose_hyper(config, hyper);
    snprintf(subject->network, sizeof subject->network, "%s %dx%dx%d", config->model.architecture, config->model.input_channels,
             config->model.size, config->model.size);
    struct profile_options options = {.runs = runs, .hyper = hyper, .network = subject->network, .stop = &signals_stop};
    return (subject->profile = profile_create(subject->plan, &options, err)) != NULL;
}

static bool print(const struct subject *subject, const struct engine_profile_options *options, struct error *err) {
    if (!options->json)
        profile_print(subject->profile, stdout);
    else if (!profile_print_json(subject->profile, stdout, err))
        return false;
    else
        putchar('\n');
    return !options->trace || profile_write_trace(&subject->profile, 1, options->trace, err);
}

bool engine_profile_run(const struct trainer_config *config, const struct engine_profile_options *options, struct error *err) {
    struct subject subject = {0};
    struct team_spec team = {.ranks = engine_local_ranks(config), .threads = config->device.threads};
    if (!config->trains)
        return error_set(err, ERROR_INVALID, "--profile: the configuration has no train: section, there is no step to time");
    bool ok = team_enter(options->argv, &team, err) && subject_init(&subject, config, err) &&
              measure(&subject, config, options->runs, err) && print(&subject, options, err);
    subject_fini(&subject);
    return ok;
}
