#include "trainerd/trainctl/session.h"

#include "trainerd/engine.h"

#include <stdio.h>
#include <string.h>

static bool load_config(struct session *session, const struct session_spec *spec, struct error *err) {
    struct trainer_config_source source = {spec->config, spec->settings, spec->setting_count};
    if (trainer_config_load(&source, &session->tree, &session->config, err))
        return true;
    config_print_problems(&session->tree, stderr);
    return false;
}

static bool open_data(struct session *session, const struct manifest *manifest, struct error *err) {
    session->config.model.size = manifest->architecture.size;
    session->config.model.input_channels = manifest->architecture.input_channels;
    if (!job_open(&session->job, &session->config, NULL, err))
        return false;
    if (!recipe_parse(manifest->preprocessing, strlen(manifest->preprocessing), &session->job.recipe, err))
        return error_prefix(err, "the model's preprocessing");
    bool same = session->job.dataset.classes == manifest->class_count;
    for (int i = 0; same && i < manifest->class_count; i++)
        same = strcmp(session->job.dataset.class_names[i], manifest->classes[i]) == 0;
    return same || error_set(err, ERROR_INVALID, "the model's classes are not those of the data, in that order");
}

bool session_open(struct session *session, const struct session_spec *spec, const struct manifest *manifest,
                  struct error *err) {
    *session = (struct session){0};
    if (!load_config(session, spec, err) || !open_data(session, manifest, err))
        return false;
    return (session->device = engine_open_device(&session->config, 0, err));
}

void session_close(struct session *session) {
    device_close(session->device);
    job_close(&session->job);
    config_fini(&session->tree);
}

bool session_answer(const struct session *session, const struct model_network *network, enum dataset_part part,
                    struct evaluation *out, struct error *err) {
    struct evaluate_spec spec = {.graph = network->graph,
                                 .parameters = network->parameters,
                                 .precision = network->precision,
                                 .device = session->device,
                                 .dataset = &session->job.dataset,
                                 .cache = &session->job.cache,
                                 .recipe = &session->job.recipe,
                                 .part = part,
                                 .batch_size = 32,
                                 .loader_threads = 1};
    return model_network_is_exact_on(network, session->device, err) && evaluate_part(&spec, out, err);
}

const char *session_data_name(const struct session *session) {
    return *session->config.data.name ? session->config.data.name : session->config.run.name;
}

bool session_parse_part(const char *text, enum dataset_part *out) {
    for (int i = 0; i < DATASET_PARTS; i++) {
        if (strcmp(text, dataset_part_name((enum dataset_part)i)) == 0) {
            *out = (enum dataset_part)i;
            return true;
        }
    }
    return false;
}
