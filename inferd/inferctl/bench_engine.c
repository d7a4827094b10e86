#include "inferd/inferctl/bench_engine.h"
#include "common/base/digest.h"
#include "common/base/thread_slice.h"
#include "common/graph/profile.h"
#include "common/weights/model_file.h"
#include "inferd/engine.h"
#include "inferd/inferctl/commands.h"
#include "inferd/inferctl/engine_options.h"
#include "inferd/inferctl/options.h"

/** What is profiled, in the order in which it is made; a plan and a profile for each batch size. */
struct subject {
    struct model_file file;
    struct graph *graph;
    struct parameters *parameters;
    struct device *device;
    struct plan *plans[ENGINE_MAX_BATCHES]; /* they share the weights of the first */
    struct profile *profiles[ENGINE_MAX_BATCHES];
    char network[160];
};

static void subject_fini(struct subject *subject) {
    for (int i = 0; i < ENGINE_MAX_BATCHES; i++) {
        profile_destroy(subject->profiles[i]);
        plan_destroy(subject->plans[i]);
    }
    device_close(subject->device);
    parameters_destroy(subject->parameters);
    graph_destroy(subject->graph);
    model_file_close(&subject->file);
}

static bool load(struct subject *subject, const struct engine_options *options, struct error *err) {
    struct device_spec device = {.name = engine_device(options->device), .threads = options->threads};
    if (!model_file_open(options->model, &subject->file, err)) {
        return false;
    }
    struct model_spec spec = model_file_spec(&subject->file);
    snprintf(subject->network, sizeof subject->network, "%s %dx%dx%d", spec.architecture, spec.input_channels, spec.size,
             spec.size);
    return (subject->graph = model_build(&spec, err)) && (subject->parameters = parameters_create(subject->graph, err)) &&
           model_file_load(&subject->file, subject->graph, subject->parameters, err) &&
           (subject->device = device_open(&device, err));
}

static bool measure(struct subject *subject, const struct engine_options *options, int index, struct error *err) {
    struct plan_spec spec = {.graph = subject->graph,
                             .parameters = subject->parameters,
                             .device = subject->device,
                             .mode = PLAN_INFER,
                             .precision = options->precision,
                             .batch = options->batches[index],
                             .share = subject->plans[0]};
    struct profile_options profile = {.runs = options->runs, .network = subject->network};
    return (subject->plans[index] = plan_create(&spec, err)) &&
           (subject->profiles[index] = profile_create(subject->plans[index], &profile, err));
}

/** A table for each batch size, or an array of their JSON objects. */
static bool print(const struct subject *subject, const struct engine_options *options, struct error *err) {
    bool ok = true;
    for (int i = 0; ok && i < options->batch_count; i++) {
        if (options->json) {
            fputs(i ? ",\n " : "[", stdout);
            ok = profile_print_json(subject->profiles[i], stdout, err);
        } else {
            fputs(i ? "\n" : "", stdout);
            profile_print(subject->profiles[i], stdout);
        }
    }
    fputs(options->json ? "]\n" : "", stdout);
    return ok;
}

static bool run(const struct engine_options *options, struct error *err) {
    struct subject subject = {0};
    bool ok = digest_start(err) && load(&subject, options, err);
    for (int i = 0; ok && i < options->batch_count; i++) {
        ok = measure(&subject, options, i, err);
    }
    ok = ok && print(&subject, options, err);
    ok = ok && (!options->trace || profile_write_trace(subject.profiles, options->batch_count, options->trace, err));
    subject_fini(&subject);
    return ok;
}

int bench_engine(int argc, char **argv) {
    struct engine_options options;
    struct error err = {0};
    if (!engine_options_parse(argc, argv, &options, &err)) {
        return options_fail(&err, INFERCTL_USAGE);
    }
    thread_slice_set(THREAD_SLICE_NORMAL); /* as a member's inference thread: the team inherits it */
    return engine_wait_policy(argv - 1, &err) && run(&options, &err) ? 0 : options_fail(&err, INFERCTL_FAILED);
}
