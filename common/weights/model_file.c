#include "common/weights/model_file.h"

#include "common/tensor/element.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_extra(const char *name) {
    return strncmp(name, MODEL_FILE_EXTRA, strlen(MODEL_FILE_EXTRA)) == 0;
}

/* The digest of the weights */

static int by_name(const void *a, const void *b) {
    const struct safetensors_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static void digest_tensor(struct digest_state *state, const struct safetensors_tensor *tensor) {
    /* Lengths go first, so that no two lists of tensors give the same bytes. */
    uint64_t numbers[3] = {strlen(tensor->name), (uint64_t)tensor->shape.rank, tensor->bytes};
    const char *dtype = safetensors_dtype_name(tensor->dtype);
    digest_update(state, numbers, sizeof numbers);
    digest_update(state, tensor->name, strlen(tensor->name));
    digest_update(state, dtype, strlen(dtype) + 1);
    digest_update(state, tensor->shape.dims, (size_t)tensor->shape.rank * sizeof *tensor->shape.dims);
    digest_update(state, tensor->data, tensor->bytes);
}

bool model_file_digest(const struct safetensors_tensor *tensors, int count, struct digest *out,
                       struct error *err) {
    const struct safetensors_tensor **order = malloc(((size_t)count + 1) * sizeof *order);
    if (!order)
        return error_set(err, ERROR_MEMORY, "out of memory");
    size_t used = 0;
    for (int i = 0; i < count; i++) {
        if (!is_extra(tensors[i].name))
            order[used++] = &tensors[i];
    }
    qsort(order, used, sizeof *order, by_name);
    struct digest_state state;
    digest_init(&state);
    for (size_t i = 0; i < used; i++)
        digest_tensor(&state, order[i]);
    *out = digest_final(&state);
    free(order);
    return true;
}

/* Saving */

static bool check_extras(const struct model_content *content, struct error *err) {
    for (int i = 0; i < content->extra_count; i++) {
        if (!is_extra(content->extras[i].name))
            return error_set(err, ERROR_INVALID, "extra tensor %s: its name must start with %s",
                             content->extras[i].name, MODEL_FILE_EXTRA);
    }
    return true;
}

/** The graph's parameters and the extras as one owned list. */
static struct safetensors_tensor *gather(const struct model_content *content, int *count, struct error *err) {
    const struct graph *graph = content->graph;
    *count = graph->parameter_count + content->extra_count;
    struct safetensors_tensor *tensors = calloc((size_t)*count + 1, sizeof *tensors);
    if (!tensors) {
        error_set(err, ERROR_MEMORY, "out of memory");
        return NULL;
    }
    for (int i = 0; i < graph->parameter_count; i++) {
        const struct tensor *tensor = &content->parameters->tensors[i];
        tensors[i] = (struct safetensors_tensor){graph->parameters[i].name, tensor->dtype, tensor->shape,
                                                 tensor->data, tensor_bytes(tensor)};
    }
    for (int i = 0; i < content->extra_count; i++)
        tensors[graph->parameter_count + i] = content->extras[i];
    return tensors;
}

static bool save(const char *path, const struct model_content *content,
                 const struct safetensors_tensor *tensors, int count, struct error *err) {
    struct digest digest;
    char hex[DIGEST_HEX_SIZE];
    if (!model_file_digest(tensors, count, &digest, err))
        return false;
    struct manifest manifest = *content->manifest;
    manifest.weights_digest = digest_hex(&digest, hex);
    char *text = manifest_print(&manifest, 0, err);
    if (!text)
        return false;
    struct safetensors_text metadata[] = {{"format", "pt"}, {MODEL_FILE_METADATA, text}};
    bool ok = safetensors_write(path, &(struct safetensors_content){tensors, count, metadata, 2}, err);
    free(text);
    return ok;
}

bool model_file_save(const char *path, const struct model_content *content, struct error *err) {
    int count;
    struct safetensors_tensor *tensors = check_extras(content, err) ? gather(content, &count, err) : NULL;
    bool ok = tensors && save(path, content, tensors, count, err);
    free(tensors);
    return ok;
}

/* Opening */

static bool check_digest(const struct model_file *file, struct error *err) {
    struct digest digest;
    char hex[DIGEST_HEX_SIZE];
    if (!model_file_digest(file->tensors.tensors, file->tensors.count, &digest, err))
        return false;
    if (strcmp(digest_hex(&digest, hex), file->manifest.weights_digest) == 0)
        return true;
    return error_set(err, ERROR_FORMAT, "the weights are not those that the manifest names");
}

static bool read_file(struct model_file *out, struct error *err) {
    if (!safetensors_parse(out->map.data ? out->map.data : (const uint8_t *)"", out->map.size, &out->tensors,
                           err))
        return false;
    const char *text = safetensors_metadata(&out->tensors, MODEL_FILE_METADATA);
    if (!text) {
        error_set(err, ERROR_FORMAT, "weights without a manifest: not a model of this program");
        return error_hint(err, "trainctl import makes a model from weights");
    }
    return manifest_parse(text, strlen(text), &out->manifest, err) && check_digest(out, err);
}

bool model_file_open(const char *path, struct model_file *out, struct error *err) {
    *out = (struct model_file){0};
    if (!file_map_open(path, &out->map, err))
        return false;
    if (read_file(out, err))
        return true;
    model_file_close(out);
    return error_prefix(err, "%s", path);
}

void model_file_close(struct model_file *file) {
    manifest_fini(&file->manifest);
    safetensors_fini(&file->tensors);
    file_map_close(&file->map);
}

struct model_spec model_file_spec(const struct model_file *file) {
    const struct manifest_architecture *architecture = &file->manifest.architecture;
    return (struct model_spec){
        .architecture = architecture->name,
        .stem = architecture->stem,
        .input_channels = architecture->input_channels,
        .size = architecture->size,
        .classes = file->manifest.class_count,
    };
}

/* Loading */

/** A network with a NaN inside answers nonsense for every image, so one is refused here and not found out
 * later. */
static bool check_values(const struct tensor *tensor, const struct graph_parameter *parameter,
                         struct error *err) {
    struct view values = {tensor->data, tensor->dtype};
    bool variance = parameter->role.arg == ARG_RUNNING_VARIANCE;
    for (int64_t i = 0; element_is_floating(tensor->dtype) && i < shape_count(&tensor->shape); i++) {
        double value = view_get(values, i);
        if (!isfinite(value))
            return error_set(err, ERROR_FORMAT, "%s: element %lld is not a finite number", parameter->name,
                             (long long)i);
        if (variance && value < 0)
            return error_set(err, ERROR_FORMAT, "%s: element %lld is a negative variance", parameter->name,
                             (long long)i);
    }
    return true;
}

static bool load_one(const struct safetensors *tensors, const struct graph_parameter *parameter,
                     struct tensor *to, struct error *err) {
    const struct safetensors_tensor *from = safetensors_find(tensors, parameter->name);
    if (!from)
        return error_set(err, ERROR_NOT_FOUND, "the tensor %s is missing", parameter->name);
    if (from->dtype != to->dtype)
        return error_set(err, ERROR_UNSUPPORTED, "%s: elements of type %s, expected %s", from->name,
                         dtype_name(from->dtype), dtype_name(to->dtype));
    if (!shape_equal(&from->shape, &to->shape)) {
        char found[SHAPE_TEXT_SIZE], expected[SHAPE_TEXT_SIZE];
        return error_set(err, ERROR_SHAPE, "%s: shape %s, the network needs %s", from->name,
                         shape_text(&from->shape, found), shape_text(&to->shape, expected));
    }
    memcpy(to->data, from->data, from->bytes);
    return check_values(to, parameter, err);
}

bool model_file_load_tensors(const struct safetensors *tensors, const struct graph *graph,
                             struct parameters *parameters, struct error *err) {
    for (int i = 0; i < tensors->count; i++) {
        const char *name = tensors->tensors[i].name;
        if (!is_extra(name) && graph_find_parameter(graph, name) < 0)
            return error_set(err, ERROR_FORMAT,
                             "the tensor %.96s is surplus: the network has none of that name", name);
    }
    for (int i = 0; i < graph->parameter_count; i++) {
        if (!load_one(tensors, &graph->parameters[i], &parameters->tensors[i], err))
            return false;
    }
    return true;
}

bool model_file_load(const struct model_file *file, const struct graph *graph, struct parameters *parameters,
                     struct error *err) {
    return model_file_load_tensors(&file->tensors, graph, parameters, err) ||
           error_prefix(err, "model %s", file->manifest.name);
}

bool model_file_extra(const struct model_file *file, const char *name, enum dtype dtype, int rank,
                      struct tensor *out, struct error *err) {
    const struct safetensors_tensor *tensor = safetensors_find(&file->tensors, name);
    if (!tensor)
        return error_set(err, ERROR_NOT_FOUND, "model %s has no tensor %s", file->manifest.name, name);
    if (tensor->dtype != dtype || tensor->shape.rank != rank)
        return error_set(err, ERROR_SHAPE, "%s: %s of rank %d, expected %s of rank %d", name,
                         dtype_name(tensor->dtype), tensor->shape.rank, dtype_name(dtype), rank);
    return safetensors_copy(tensor, out, err);
}
