#include "trainerd/checkpoint.h"

#include "common/base/file.h"
#include "common/base/text.h"
#include "common/weights/model_file.h"
#include "trainerd/checkpoint_state.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define METADATA_KEY "thorax.checkpoint"

/** The plan's buffers by the name that their tensors' names start with. */
static const struct {
    const char *prefix;
    enum plan_buffer buffer;
} sections[] = {{"value/", PLAN_VALUES}, {"state/", PLAN_STATE}, {"state2/", PLAN_STATE2}, {"ema/", PLAN_EMA}};
enum { SECTIONS = sizeof sections / sizeof *sections };

/** Host copies of the plan's buffers, and their tensors for writing. */
struct snapshot {
    struct parameters *buffers[SECTIONS];
    struct safetensors_tensor *tensors;
    char (*names)[GRAPH_NAME_SIZE + 8];
    int count;
};

static void snapshot_fini(struct snapshot *snapshot) {
    for (int i = 0; i < SECTIONS; i++)
        parameters_destroy(snapshot->buffers[i]);
    free(snapshot->tensors);
    free(snapshot->names);
}

/** Running statistics have a value, but no optimiser state. */
static bool in_section(const struct graph *graph, int parameter, enum plan_buffer buffer) {
    return buffer == PLAN_VALUES || graph->parameters[parameter].role.diff != ARG_NONE;
}

static void snapshot_add(struct snapshot *snapshot, int section, const struct graph *graph, int parameter) {
    const struct tensor *tensor = &snapshot->buffers[section]->tensors[parameter];
    char *name = snapshot->names[snapshot->count];
    snprintf(name, sizeof snapshot->names[0], "%s%s", sections[section].prefix, graph->parameters[parameter].name);
    snapshot->tensors[snapshot->count++] = (struct safetensors_tensor){
        .name = name, .dtype = tensor->dtype, .shape = tensor->shape, .data = tensor->data, .bytes = tensor_bytes(tensor)};
}

static bool snapshot_take(struct snapshot *snapshot, struct plan *plan, const struct graph *graph, struct error *err) {
    size_t most = (size_t)graph->parameter_count * SECTIONS + 1;
    snapshot->tensors = calloc(most, sizeof *snapshot->tensors);
    snapshot->names = calloc(most, sizeof *snapshot->names);
    if (!snapshot->tensors || !snapshot->names)
        return error_set(err, ERROR_MEMORY, "checkpoint: out of memory");
    for (int i = 0; i < SECTIONS; i++) {
        if (!plan_has_buffer(plan, sections[i].buffer))
            continue;
        if (!(snapshot->buffers[i] = parameters_create(graph, err)) ||
            !plan_export(plan, sections[i].buffer, snapshot->buffers[i], err))
            return false;
        for (int j = 0; j < graph->parameter_count; j++) {
            if (in_section(graph, j, sections[i].buffer))
                snapshot_add(snapshot, i, graph, j);
        }
    }
    return true;
}

static int is_checkpoint(const struct dirent *entry) {
    size_t length = strlen(entry->d_name);
    return strncmp(entry->d_name, "step-", 5) == 0 && length > 17 && strcmp(entry->d_name + length - 12, ".safetensors") == 0;
}

/** Names of checkpoints in the folder, oldest first; free each and the list. -1: cannot be read. */
static int list_checkpoints(const char *folder, struct dirent ***names) {
    return scandir(folder, names, is_checkpoint, alphasort);
}

static void free_list(struct dirent **names, int count) {
    for (int i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

/** A file under way (file_write_atomic): between two writes there is one only where a writer was killed. */
static int is_torn(const struct dirent *entry) {
    return strncmp(entry->d_name, "step-", 5) == 0 && strstr(entry->d_name, ".safetensors.") != NULL;
}

static void remove_torn(const char *folder) {
    struct dirent **names = NULL;
    int count = scandir(folder, &names, is_torn, NULL);
    char path[CHECKPOINT_PATH_SIZE];
    for (int i = 0; i < count; i++) {
        if (file_join(path, sizeof path, folder, names[i]->d_name, NULL))
            unlink(path);
    }
    if (count >= 0)
        free_list(names, count);
}

static void remove_oldest(const char *folder, int keep_last) {
    struct dirent **names = NULL;
    int count = list_checkpoints(folder, &names);
    char path[CHECKPOINT_PATH_SIZE];
    for (int i = 0; i < count - (keep_last > 1 ? keep_last : 1); i++) {
        if (file_join(path, sizeof path, folder, names[i]->d_name, NULL))
            unlink(path);
    }
    if (count >= 0)
        free_list(names, count);
}

bool checkpoint_save(const char *folder, struct plan *plan, const struct graph *graph, const struct training_state *state,
                     int keep_last, struct error *err) {
    char path[CHECKPOINT_PATH_SIZE], name[64];
    snprintf(name, sizeof name, "step-%09lld.safetensors", (long long)state->global_step);
    struct snapshot snapshot = {0};
    char *text = checkpoint_state_print(state, err);
    bool ok = text && file_make_folders(folder, err) && file_join(path, sizeof path, folder, name, err) &&
              snapshot_take(&snapshot, plan, graph, err);
    if (ok) {
        remove_torn(folder);
        struct safetensors_text metadata = {METADATA_KEY, text};
        struct safetensors_content content = {
            .tensors = snapshot.tensors, .count = snapshot.count, .metadata = &metadata, .metadata_count = 1};
        ok = safetensors_write(path, &content, err);
    }
    snapshot_fini(&snapshot);
    free(text);
    if (ok)
        remove_oldest(folder, keep_last);
    return ok;
}

/** Copies a section's tensors from the file; every one must be there with its shape. */
static bool load_section(const struct safetensors *file, int section, struct plan *plan,
                         const struct graph *graph, struct error *err) {
    struct parameters *host = parameters_create(graph, err);
    bool ok = host;
    for (int i = 0; ok && i < graph->parameter_count; i++) {
        if (!in_section(graph, i, sections[section].buffer))
            continue;
        char name[GRAPH_NAME_SIZE + 8];
        snprintf(name, sizeof name, "%s%s", sections[section].prefix, graph->parameters[i].name);
        const struct safetensors_tensor *tensor = safetensors_find(file, name);
        if (!tensor || tensor->dtype != DTYPE_F32 || !shape_equal(&tensor->shape, &host->tensors[i].shape))
            ok = error_set(err, ERROR_INVALID,
                           "tensor %s is missing or has another shape: a checkpoint of another network?",
                           name);
        else
            memcpy(host->tensors[i].data, tensor->data, tensor->bytes);
    }
    ok = ok && plan_import(plan, sections[section].buffer, host, err);
    parameters_destroy(host);
    return ok;
}

static bool load_parsed(const struct safetensors *file, struct plan *plan, const struct graph *graph,
                        struct training_state *state, struct error *err) {
    const char *text = safetensors_metadata(file, METADATA_KEY);
    if (!text)
        return error_set(err, ERROR_FORMAT, "no checkpoint: metadata " METADATA_KEY " is missing");
    if (!checkpoint_state_parse(text, state, err))
        return false;
    for (int i = 0; plan && i < SECTIONS; i++) {
        if (plan_has_buffer(plan, sections[i].buffer) && !load_section(file, i, plan, graph, err))
            return false;
    }
    return true;
}

/** Reads a checkpoint; without a plan only its header and state. */
static bool load(const char *path, struct plan *plan, const struct graph *graph, struct training_state *state,
                 struct error *err) {
    struct file_map map;
    struct safetensors file;
    if (!file_map_open(path, &map, err))
        return false;
    bool ok = safetensors_parse(map.data, map.size, &file, err);
    if (ok) {
        ok = load_parsed(&file, plan, graph, state, err);
        safetensors_fini(&file);
    }
    file_map_close(&map);
    return ok || error_prefix(err, "%s", path);
}

bool checkpoint_load(const char *path, struct plan *plan, const struct graph *graph,
                     struct training_state *state, struct error *err) {
    return load(path, plan, graph, state, err);
}

bool checkpoint_newest(const char *folder, char *out, int *skipped, struct error *err) {
    struct dirent **names = NULL;
    int count = list_checkpoints(folder, &names);
    bool found = false;
    *skipped = 0;
    for (int i = count - 1; i >= 0 && !found; i--) {
        struct training_state state;
        found = file_join(out, CHECKPOINT_PATH_SIZE, folder, names[i]->d_name, NULL) && load(out, NULL, NULL, &state, NULL);
        *skipped += !found;
    }
    if (count >= 0)
        free_list(names, count);
    return found || error_set(err, ERROR_NOT_FOUND, "%s: no checkpoint to resume from", folder);
}
