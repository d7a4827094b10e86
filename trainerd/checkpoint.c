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
enum { SECTIONS = sizeof sections / sizeof *sections, NAME_SIZE = 64 };

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

static void name_of(int64_t step, char out[NAME_SIZE]) {
    snprintf(out, NAME_SIZE, "step-%09lld.safetensors", (long long)step);
}

bool checkpoint_path(const char *folder, int64_t step, char out[CHECKPOINT_PATH_SIZE], struct error *err) {
    char name[NAME_SIZE];
    name_of(step, name);
    return file_join(out, CHECKPOINT_PATH_SIZE, folder, name, err);
}

size_t checkpoint_bytes_max(const struct parameters *parameters) {
    size_t most = SAFETENSORS_MAX_HEADER + sizeof(uint64_t);
    for (int i = 0; i < parameters->count; i++)
        most += SECTIONS * tensor_bytes(&parameters->tensors[i]);
    return most;
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

void checkpoint_clean(const char *folder) {
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

/** Newer ones than the one that was saved last are another run's, or damaged: those do not count. */
static void remove_oldest(const char *folder, int64_t saved, int keep_last) {
    struct dirent **names = NULL;
    int count = list_checkpoints(folder, &names), kept = 0;
    char path[CHECKPOINT_PATH_SIZE], newest[NAME_SIZE];
    name_of(saved, newest);
    while (kept < count && strcmp(names[kept]->d_name, newest) <= 0)
        kept++;
    for (int i = 0; i < kept - (keep_last > 1 ? keep_last : 1); i++) {
        if (file_join(path, sizeof path, folder, names[i]->d_name, NULL))
            unlink(path);
    }
    if (count >= 0)
        free_list(names, count);
}

bool checkpoint_save(const char *folder, struct plan *plan, const struct graph *graph, const struct training_state *state,
                     int keep_last, struct error *err) {
    char path[CHECKPOINT_PATH_SIZE];
    struct snapshot snapshot = {0};
    char *text = checkpoint_state_print(state, err);
    bool ok = text && file_make_folders(folder, err) && checkpoint_path(folder, state->global_step, path, err) &&
              snapshot_take(&snapshot, plan, graph, err);
    if (ok) {
        struct safetensors_text metadata = {METADATA_KEY, text};
        struct safetensors_content content = {
            .tensors = snapshot.tensors, .count = snapshot.count, .metadata = &metadata, .metadata_count = 1};
        ok = safetensors_write(path, &content, err);
    }
    snapshot_fini(&snapshot);
    free(text);
    if (ok)
        remove_oldest(folder, state->global_step, keep_last);
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

/** Reads a checkpoint; without a plan only its header and state. bytes may be NULL. */
static bool load(const char *path, struct plan *plan, const struct graph *graph, struct training_state *state, size_t *bytes,
                 struct error *err) {
    struct file_map map;
    struct safetensors file;
    if (!file_map_open(path, &map, err))
        return false;
    if (bytes)
        *bytes = map.size;
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
    return load(path, plan, graph, state, NULL, err);
}

bool checkpoint_find(const char *folder, uint64_t run, struct checkpoint_found *out, struct error *err) {
    struct dirent **names = NULL;
    int count = list_checkpoints(folder, &names);
    bool found = false;
    out->skipped = 0;
    for (int i = count - 1; i >= 0 && !found; i--) {
        bool whole = file_join(out->path, sizeof out->path, folder, names[i]->d_name, NULL) &&
                     load(out->path, NULL, NULL, &out->state, &out->bytes, NULL);
        found = whole && (run == 0 || out->state.run == run);
        out->skipped += !whole;
    }
    if (count >= 0)
        free_list(names, count);
    return found || error_set(err, ERROR_NOT_FOUND, "%s: no checkpoint to resume from", folder);
}

bool checkpoint_newest(const char *folder, char *out, int *skipped, struct error *err) {
    struct checkpoint_found found;
    bool ok = checkpoint_find(folder, 0, &found, err);
    *skipped = found.skipped;
    if (ok)
        memcpy(out, found.path, sizeof found.path);
    return ok;
}
