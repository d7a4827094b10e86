#include "trainerd/config.h"

#include "common/weights/manifest.h"
#include "common/wire/address.h"
#include "trainerd/cluster_place.h"

#include <string.h>

static bool given(const char *text) {
    return *text != '\0';
}

/** Letters, digits, dots, dashes and underscores, and no folder in disguise: it becomes a path and a model's
 * name. */
static bool is_name(const char *text) {
    const char *allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t length = strlen(text);
    return length >= 1 && length <= 100 && strspn(text, allowed) == length && text[0] != '.';
}

static void check_name(struct config *config, const char *key, const char *text) {
    if (!is_name(text))
        config_problem(config, key,
                       "expected 1 to 100 letters, digits, dots, dashes or underscores, the first no dot, "
                       "found \"%.80s\"",
                       text);
}

static void check_source(struct config *config, const struct trainer_data_config *data) {
    bool folders = given(data->directory) || data->classes.count > 0;
    int sources = folders + given(data->manifest) + given(data->npz);
    if (sources == 0)
        config_problem(config, "data.directory",
                       "no data: give data.directory, data.classes, data.manifest or data.npz");
    if (sources > 1)
        config_problem(
            config, given(data->npz) ? "data.npz" : "data.manifest",
            "one source of data is enough: data.directory (with data.classes), data.manifest or data.npz");
    if (given(data->validation_list) && !folders)
        config_problem(config, "data.validation_list", "goes with data.directory only");
}

static bool has_class(const struct trainer_data_config *data, const char *name) {
    for (int i = 0; i < data->class_names.count; i++) {
        if (strcmp(data->class_names.items[i], name) == 0)
            return true;
    }
    for (int i = 0; i < data->classes.count; i++) {
        if (strcmp(data->classes.items[i].name, name) == 0)
            return true;
    }
    return false;
}

/** The classes are known here only where they are written down; else the data set has the last word. */
static bool classes_are_known(const struct trainer_data_config *data) {
    return data->class_names.count > 0 || data->classes.count > 0;
}

bool trainer_config_may_have_class(const struct trainer_config *config, const char *name) {
    bool invalid = given(config->data.invalid) && strcmp(name, "INVALID") == 0;
    return !classes_are_known(&config->data) || has_class(&config->data, name) || invalid;
}

static void check_classes(struct config *config, const struct trainer_config *values) {
    const struct trainer_data_config *data = &values->data;
    for (int i = 0; i < values->augment_class.count; i++) {
        const char *name = values->augment_class.names[i];
        if (!trainer_config_may_have_class(values, name))
            config_problem(config, "augment_class", "\"%.60s\" is no class of the data", name);
    }
    for (int i = 0; i < data->classes.count && data->class_names.count > 0; i++) {
        const char *name = data->classes.items[i].name;
        bool listed = false;
        for (int k = 0; k < data->class_names.count; k++)
            listed = listed || strcmp(data->class_names.items[k], name) == 0;
        if (!listed)
            config_problem(config, "data.class_names", "does not name \"%.60s\", which data.classes has",
                           name);
    }
    const char *positive = values->publish.operating_point.class_name;
    if (classes_are_known(data) && !has_class(data, positive))
        config_problem(config, "publish.operating_point.class", "\"%.60s\" is no class of the data",
                       positive);
}

static void check_augment(struct config *config, const struct trainer_config *values) {
    struct error why;
    if (!augment_check(&values->augment, &why))
        config_problem(config, "augment", "%s", why.message);
    for (int i = 0; i < values->augment_class.count; i++) {
        const struct augment *of_class = (const struct augment *)values->augment_class.entries + i;
        if (!augment_check(of_class, &why))
            config_problem(config, "augment_class", "%.60s: %s", values->augment_class.names[i], why.message);
    }
}

static void check_model(struct config *config, const struct trainer_model_config *model) {
    if (model->input_channels == 2)
        config_problem(config, "model.input_channels", "1 or 3, not 2");
    const struct {
        const char *key;
        int count;
    } lists[] = {{"model.mean", model->mean.count}, {"model.stddev", model->stddev.count}};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        if (lists[i].count != 0 && lists[i].count != model->input_channels)
            config_problem(config, lists[i].key, "%d values for %d input channels", lists[i].count,
                           model->input_channels);
    }
    if (model->freeze_batch_norm && model->sync_batch_norm)
        config_problem(config, "model.sync_batch_norm",
                       "and model.freeze_batch_norm exclude each other: frozen statistics stay what they are");
    if ((model->mean.count == 0) != (model->stddev.count == 0))
        config_problem(config, model->mean.count ? "model.mean" : "model.stddev",
                       "model.mean and model.stddev go together");
}

/** How gradients are added, and by how many. */
static void check_collective(struct config *config, const struct trainer_config *values) {
    const struct trainer_collective_config *collective = &values->collective;
    bool solo = strcmp(collective->name, "solo") == 0, on_gpus = strcmp(values->device.name, "cuda") == 0;
    if (solo && values->device.ranks > 1)
        config_problem(config, "collective.name", "solo is for one rank, device.ranks is %d",
                       values->device.ranks);
    if (solo && values->cluster.nodes > 1)
        config_problem(config, "collective.name", "solo is for one rank, cluster.nodes is %d", values->cluster.nodes);
    if (strcmp(collective->name, "gloo") == 0 && on_gpus)
        config_problem(config, "collective.name", "gloo adds what is in the memory of the host, device.name is cuda");
    if (strcmp(collective->name, "nccl") == 0 && !on_gpus)
        config_problem(config, "collective.name", "nccl adds what is in the memory of GPUs, device.name is %s",
                       values->device.name);
}

/** Gradients leave the machine where key's address is not loopback. */
static void check_trusted(struct config *config, const struct trainer_config *values, const char *key, bool local) {
    if (!local && !values->collective.trusted_network)
        config_problem(config, key,
                       "gradients travel in the clear: say collective.trusted_network: true if the whole "
                       "network is trusted");
}

static void check_ranks(struct config *config, const struct trainer_config *values) {
    int ranks = values->device.ranks > 0 ? values->device.ranks : 1; /* 0: as many as there are GPUs, which is seen later */
    if (values->train.batch_size % ((int64_t)ranks * values->train.parts) != 0)
        config_problem(config, "train.batch_size", "%d images cannot be shared evenly by device.ranks %d and train.parts %d",
                       values->train.batch_size, ranks, values->train.parts);
    const char *address = values->collective.address;
    check_collective(config, values);
    check_trusted(config, values, "collective.address", !given(address) || address_host_is_local(address));
}

/** Who coordinates, and which of the nodes this is, where the file says so. */
static void check_coordinator(struct config *config, const struct trainer_config *values) {
    const struct trainer_cluster_config *cluster = &values->cluster;
    char endpoint[CLUSTER_ENDPOINT_SIZE];
    struct error why = {0};
    bool local = true;
    if (!given(cluster->coordinator)) {
        if (cluster->nodes > 1 || cluster->node > 0)
            config_problem(config, cluster->nodes > 1 ? "cluster.nodes" : "cluster.node",
                           "goes with cluster.coordinator: a launcher tells both of them itself");
        return;
    }
    if (!cluster_endpoint(cluster->coordinator, endpoint, &local, &why))
        config_problem(config, "cluster.coordinator", "%s; %s", why.message, why.hint);
    check_trusted(config, values, "cluster.coordinator", local);
    if (cluster->node >= cluster->nodes)
        config_problem(config, "cluster.node", "%d, but cluster.nodes is %d: they count from 0", cluster->node, cluster->nodes);
}

/** How nodes know each other. */
static void check_cluster_keys(struct config *config, const struct trainer_config *values) {
    const struct trainer_cluster_config *cluster = &values->cluster;
    bool coordinates = given(cluster->coordinator) && cluster->node == 0;
    if (given(cluster->secret) && given(cluster->server_key))
        config_problem(config, "cluster.server_key", "and cluster.secret exclude each other");
    security_config_check_server(config, &values->security, "cluster.server_key", given(cluster->server_key), NULL, 0);
    if (given(cluster->server_key) && given(values->security.key) && !given(values->security.allow) && coordinates)
        config_problem(config, "cluster.server_key", "the coordinator has to know the others: list them in security.allow");
}

static void check_cluster(struct config *config, const struct trainer_config *values) {
    const struct trainer_cluster_config *cluster = &values->cluster;
    bool launched = cluster->launcher == TRAINER_LAUNCHER_SLURM || cluster->launcher == TRAINER_LAUNCHER_TORCHRUN;
    bool known = !launched && (given(cluster->coordinator) || cluster->launcher == TRAINER_LAUNCHER_NONE);
    int64_t ranks = (int64_t)cluster->nodes * values->device.ranks;
    check_coordinator(config, values);
    check_cluster_keys(config, values);
    if (known && ranks > 0 && cluster->min_ranks > ranks)
        config_problem(config, "cluster.min_ranks", "%d, but device.ranks %d and cluster.nodes %d are %lld in all",
                       cluster->min_ranks, values->device.ranks, cluster->nodes, (long long)ranks);
}

static void check_training(struct config *config, const struct trainer_config *values) {
    check_source(config, &values->data);
    check_classes(config, values);
    check_augment(config, values);
    check_model(config, &values->model);
    check_ranks(config, values);
    check_cluster(config, values);
    if (values->schedule.warmup_epochs > values->train.epochs)
        config_problem(config, "schedule.warmup_epochs", "longer than train.epochs %d", values->train.epochs);
}

/** What a job hands over is offered, and judged, by the publisher that it goes to. */
static void check_handover(struct config *config, const struct trainer_config *values) {
    if (!given(values->publish.to))
        return;
    if (strncmp(values->publish.to, "tcp://", 6) != 0 && strncmp(values->publish.to, "ipc://", 6) != 0)
        config_problem(config, "publish.to", "expected tcp://HOST:PORT or ipc://PATH, found \"%.80s\"", values->publish.to);
    if (!values->trains)
        config_problem(config, "publish.to", "is for training jobs: there is no train: section");
    if (values->publish.enabled)
        config_problem(config, "publish.to",
                       "and publish.enabled: true exclude each other: models are handed over, or offered here");
    if (values->publish.gate.count > 0)
        config_problem(config, "publish.gate",
                       "judges nothing here: it belongs into the configuration of the publisher at publish.to");
}

static void check_publishing(struct config *config, const struct trainer_config *values) {
    if (given(values->publish.name))
        check_name(config, "publish.name", values->publish.name);
    check_name(config, "publish.operating_point.name", values->publish.operating_point.name);
    check_handover(config, values);
    const struct trainer_intended_use_config *use = &values->intended_use;
    if (use->age_min_years > use->age_max_years)
        config_problem(config, "intended_use.age_min_years", "above age_max_years %g", use->age_max_years);
    if (use->views.count > MANIFEST_MAX_VIEWS)
        config_problem(config, "intended_use.views", "%d views; %d are possible", use->views.count,
                       MANIFEST_MAX_VIEWS);
    if (!values->publish.stage && values->publish.activate == TRAINER_ACTIVATE_AUTO)
        config_problem(config, "publish.stage", "false, but publish.activate: auto activates what is staged by itself");
    const char *const endpoints[] = {values->publish.announce, values->publish.control,
                                     values->publish.blobs};
    security_config_check(config, &values->security, endpoints, values->publish.enabled ? 3 : 0);
    security_config_check_server(config, &values->security, "publish.server_key", given(values->publish.server_key),
                                 &values->publish.to, given(values->publish.to));
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < i; k++) {
            if (strcmp(endpoints[i], endpoints[k]) == 0 && !strchr(endpoints[i], '*'))
                config_problem(config, i == 1 ? "publish.control" : "publish.blobs",
                               "%.80s is taken by another socket", endpoints[i]);
        }
    }
}

static void check_all(struct config *config, const struct trainer_config *values) {
    check_name(config, "run.name", values->run.name);
    check_publishing(config, values);
    if (values->trains)
        check_training(config, values);
    else if (!values->publish.enabled)
        config_problem(config, "train", "nothing to do: neither a train: section nor publish.enabled: true");
}

bool trainer_config_load(const struct trainer_config_source *source, struct config *config,
                         struct trainer_config *out, struct error *err) {
    *out = (struct trainer_config){0};
    if (!config_load(config, source->path, err))
        return false;
    for (int i = 0; i < source->override_count; i++) {
        if (!config_set(config, source->overrides[i], err))
            return false;
    }
    schema_read(&trainer_config_schema, config, out, NULL);
    out->trains = config_has(config, "train");
    check_all(config, out);
    return config_ok(config, err);
}

const struct augment *trainer_config_augment(const struct trainer_config *config, const char *class_name) {
    for (int i = 0; i < config->augment_class.count; i++) {
        if (strcmp(config->augment_class.names[i], class_name) == 0)
            return (const struct augment *)config->augment_class.entries + i;
    }
    return &config->augment;
}
