#include "trainerd/job.h"

#include "common/base/cpu.h"
#include "common/base/file.h"
#include "common/base/signals.h"
#include "trainerd/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *or_null(const char *text) {
    return *text ? text : NULL;
}

static bool open_dataset(struct job *job, struct error *err) {
    const struct trainer_data_config *data = &job->config->data;
    struct dataset_folders mapping[DATASET_MAX_CLASSES];
    if (data->classes.count > DATASET_MAX_CLASSES)
        return error_set(err, ERROR_INVALID, "data.classes: at most %d classes", DATASET_MAX_CLASSES);
    for (int i = 0; i < data->classes.count; i++) {
        const struct named_list *row = &data->classes.items[i];
        mapping[i] = (struct dataset_folders){row->name, row->list.items, row->list.count};
    }
    struct dataset_spec spec = {.class_names = data->class_names.items, .classes = data->class_names.count,
                                .directory = or_null(data->directory), .mapping = mapping, .mappings = data->classes.count,
                                .manifest = or_null(data->manifest), .npz = or_null(data->npz),
                                .invalid_directory = or_null(data->invalid), .validation_list = or_null(data->validation_list),
                                .validation_fraction = data->validation_fraction, .seed = (uint64_t)job->config->run.seed};
    return dataset_open(&job->dataset, &spec, err);
}

struct recipe job_recipe(const struct trainer_config *config) {
    const struct trainer_model_config *model = &config->model;
    struct recipe recipe = recipe_default(model->size, model->size, model->input_channels);
    for (int i = 0; i < model->mean.count && i < RECIPE_MAX_CHANNELS; i++)
        recipe.mean[i] = (float)model->mean.items[i];
    for (int i = 0; i < model->stddev.count && i < RECIPE_MAX_CHANNELS; i++)
        recipe.stddev[i] = (float)model->stddev.items[i];
    return recipe;
}

static bool open_cache(struct job *job, const struct job_watch *watch, struct error *err) {
    struct cpu_set cores;
    if (!cpu_available(&cores, err))
        return false;
    struct image_cache_spec spec = {.folder = job->config->data.cache_dir, .recipe = &job->recipe, .threads = cores.count,
                                    .progress = watch ? watch->progress : NULL, .context = watch ? watch->context : NULL,
                                    .stop = &signals_stop};
    return image_cache_open(&job->cache, &job->dataset, &spec, err);
}

/** Lists the training samples, and weighs the classes: total / (classes x count), so that the weights' mean over samples is 1. */
static bool list_training(struct job *job, struct error *err) {
    size_t room = (size_t)job->dataset.count + 1;
    job->train_indices = malloc(room * sizeof(int32_t));
    job->train_labels = malloc(room * sizeof(int32_t));
    if (!job->train_indices || !job->train_labels)
        return error_set(err, ERROR_MEMORY, "out of memory for the list of training images");
    job->train_count = image_cache_part(&job->cache, &job->dataset, DATASET_TRAIN, job->train_indices);
    int64_t counts[DATASET_MAX_CLASSES] = {0};
    for (int64_t i = 0; i < job->train_count; i++) {
        job->train_labels[i] = job->dataset.samples[job->train_indices[i]].label;
        counts[job->train_labels[i]]++;
    }
    for (int i = 0; i < job->dataset.classes; i++) {
        bool weighted = job->config->imbalance.class_weighted_loss && counts[i] > 0;
        job->class_weights[i] =
            weighted ? (float)((double)job->train_count / ((double)job->dataset.classes * (double)counts[i]))
                     : 1.0f;
        job->augment[i] = trainer_config_augment(job->config, job->dataset.class_names[i]);
    }
    return true;
}

/* Keys, and sections by their dot, that a text of the configuration leaves out. */

/** What each node may have otherwise: where things lie, how it computes the same results, what only the coordinator heeds. */
static const char *const of_a_node[] = {
    "run.directory", "data.directory", "data.manifest", "data.npz", "data.invalid", "data.validation_list", "data.cache_dir",
    "data.loader_threads", "data.prefetch", "device.ranks", "device.threads", "device.graphs", "device.augment",
    "device.algorithm_cache", "collective.address", "collective.timeout_seconds", "collective.trusted_network", "cluster.",
    "publish.", "report.", "security.", "http.", "log.", NULL};

/** What all nodes need alike, but no result follows from but for rounding, of which checkpoints tell by themselves. */
static const char *const of_a_run[] = {"train.parts", "checkpoint.", NULL};

static bool is_listed(const char *key, const char *const list[]) {
    for (int i = 0; list[i]; i++) {
        size_t length = strlen(list[i]);
        if (strncmp(key, list[i], length) == 0 && (list[i][length - 1] == '.' || key[length] == '\0'))
            return true;
    }
    return false;
}

/** The values of all keys that are on neither list, as YAML. */
static char *print_without(const struct trainer_config *config, const char *const list[], const char *const other[],
                           struct error *err) {
    const struct schema *all = &trainer_config_schema;
    char *text = NULL;
    size_t size = 0;
    struct schema_row *rows = calloc((size_t)all->row_count, sizeof *rows);
    struct schema kept = {rows, 0, all->size};
    FILE *out = rows ? open_memstream(&text, &size) : NULL;
    for (int i = 0; out && i < all->row_count; i++) {
        if (!is_listed(all->rows[i].key, list) && !is_listed(all->rows[i].key, other))
            rows[kept.row_count++] = all->rows[i];
    }
    if (out) {
        schema_print_yaml(&kept, config, out);
        fclose(out);
    }
    free(rows);
    if (!text)
        error_set(err, ERROR_MEMORY, "out of memory");
    return text;
}

char *job_decisive_config(const struct trainer_config *config, struct error *err) {
    return print_without(config, of_a_node, of_a_run, err);
}

char *job_shared_config(const struct trainer_config *config, struct error *err) {
    static const char *const nothing[] = {NULL};
    return print_without(config, of_a_node, nothing, err);
}

/** Frees the text. */
static bool digest_text(char *text, char out[DIGEST_HEX_SIZE]) {
    if (!text)
        return false;
    struct digest digest = digest_of(text, strlen(text));
    digest_hex(&digest, out);
    free(text);
    return true;
}

static bool digest_config(struct job *job, struct error *err) {
    return digest_text(job_decisive_config(job->config, err), job->config_digest) &&
           digest_text(job_shared_config(job->config, err), job->shared_digest);
}

bool job_open(struct job *job, const struct trainer_config *config, const struct job_watch *watch, struct error *err) {
    *job = (struct job){.config = config};
    job->recipe = job_recipe(config);
    if (!recipe_check(&job->recipe, err) || !open_dataset(job, err))
        return false;
    digest_hex(&job->dataset.digest, job->data_digest);
    job->model = engine_model(config, job->dataset.classes);
    job->folder = job->folder_text;
    return file_join(job->folder_text, sizeof job->folder_text, config->run.directory, config->run.name, err) &&
           open_cache(job, watch, err) && list_training(job, err) && digest_config(job, err);
}

void job_close(struct job *job) {
    free(job->train_indices);
    free(job->train_labels);
    image_cache_close(&job->cache);
    dataset_close(&job->dataset);
    *job = (struct job){0};
}

const char *job_model_name(const struct job *job) {
    return *job->config->publish.name ? job->config->publish.name : job->config->run.name;
}

bool job_path(const struct job *job, const char *part, char *out, size_t size, struct error *err) {
    return file_join(out, size, job->folder, part, err);
}
