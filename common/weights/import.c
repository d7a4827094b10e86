#include "common/weights/import.h"

#include "common/base/file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct importer {
    const struct safetensors *source;
    const struct graph *graph;
    const struct model_architecture *architecture;
    struct import_report *report;
    struct error *err;
};

static float f32_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/** IEEE 754 binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits. */
static float f32_from_f16(uint16_t half) {
    int exponent = half >> 10 & 31, fraction = half & 1023;
    float magnitude = exponent == 0    ? ldexpf((float)fraction, -24)
                      : exponent == 31 ? (fraction ? NAN : INFINITY)
                                       : ldexpf((float)(fraction | 1024), exponent - 25);
    return half >> 15 ? -magnitude : magnitude;
}

/** Element i as f32; the data may stand at any address. */
static float element(const struct safetensors_tensor *tensor, int64_t i) {
    const char *at = (const char *)tensor->data + (size_t)i * dtype_size(tensor->dtype);
    uint16_t half;
    uint32_t bits;
    double wide;
    switch (tensor->dtype) {
    case DTYPE_F64:
        memcpy(&wide, at, sizeof wide);
        return (float)wide;
    case DTYPE_F16:
        memcpy(&half, at, sizeof half);
        return f32_from_f16(half);
    case DTYPE_BF16:
        memcpy(&half, at, sizeof half);
        return f32_from_bits((uint32_t)half << 16);
    default:
        memcpy(&bits, at, sizeof bits);
        return f32_from_bits(bits);
    }
}

static bool is_floating(enum dtype dtype) {
    return dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16 || dtype == DTYPE_F64;
}

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/** True for "NODE.weight" and the like. */
static bool belongs_to(const char *name, const char *node) {
    size_t length = strlen(node);
    return strncmp(name, node, length) == 0 && name[length] == '.';
}

static bool wrong_shape(const struct importer *importer, const struct safetensors_tensor *from,
                        const struct tensor *to) {
    char found[SHAPE_TEXT_SIZE], expected[SHAPE_TEXT_SIZE];
    return error_set(importer->err, ERROR_SHAPE, "%s: shape %s, the network needs %s", from->name,
                     shape_text(&from->shape, found), shape_text(&to->shape, expected));
}

static bool not_finite(const struct importer *importer, const struct safetensors_tensor *from) {
    return error_set(importer->err, ERROR_FORMAT, "%s: holds a value that is not finite", from->name);
}

static bool copy_values(const struct importer *importer, const struct safetensors_tensor *from,
                        struct tensor *to) {
    float *values = to->data; // to->shape, the same as from->shape
    for (int64_t i = 0; i < shape_count(&to->shape); i++) {
        values[i] = element(from, i);
        if (!isfinite(values[i]))
            return not_finite(importer, from);
    }
    importer->report->taken++;
    return true;
}

/** (O, 3, KH, KW) -> (O, 1, KH, KW): on a grey picture the three channels see the same, so their filters add
 * up. */
static bool sum_channels(const struct importer *importer, const struct safetensors_tensor *from,
                         struct tensor *to) {
    float *values = to->data; // (O, 1, KH, KW)
    int64_t outputs = to->shape.dims[0], area = to->shape.dims[2] * to->shape.dims[3],
            channels = from->shape.dims[1];
    for (int64_t o = 0; o < outputs; o++) {
        for (int64_t k = 0; k < area; k++) {
            double sum = 0;
            for (int64_t c = 0; c < channels; c++)
                sum += (double)element(from, (o * channels + c) * area + k);
            values[o * area + k] = (float)sum;
            if (!isfinite(sum))
                return not_finite(importer, from);
        }
    }
    importer->report->taken++;
    importer->report->summed_channels = true;
    return true;
}

static bool channels_can_be_summed(const struct importer *importer, const struct safetensors_tensor *from,
                                   const struct tensor *to) {
    struct shape grey = from->shape;
    if (!belongs_to(from->name, importer->architecture->first_convolution) || grey.rank != 4 ||
        grey.dims[1] != 3)
        return false;
    grey.dims[1] = 1;
    return shape_equal(&grey, &to->shape);
}

/** The imported head has other classes: it stays as it was initialised. */
static bool is_other_head(const struct importer *importer, const char *name) {
    return importer->report->fresh_head && belongs_to(name, importer->architecture->head);
}

static bool import_one(const struct importer *importer, const struct graph_parameter *parameter,
                       struct tensor *to) {
    const struct safetensors_tensor *from = safetensors_find(importer->source, parameter->name);
    if (is_other_head(importer, parameter->name))
        return true;
    if (!from)
        return error_set(importer->err, ERROR_NOT_FOUND,
                         "the tensor %s is missing: are these weights of a %s?", parameter->name,
                         importer->architecture->name);
    if (!is_floating(from->dtype))
        return error_set(importer->err, ERROR_UNSUPPORTED, "%s: elements of type %s", from->name,
                         dtype_name(from->dtype));
    if (channels_can_be_summed(importer, from, to))
        return sum_channels(importer, from, to);
    if (!shape_equal(&from->shape, &to->shape))
        return wrong_shape(importer, from, to);
    return copy_values(importer, from, to);
}

/** Looks at the head's bias first: it tells the number of classes that the weights were made for. */
static bool look_at_head(const struct importer *importer, const struct parameters *parameters) {
    char name[GRAPH_NAME_SIZE];
    snprintf(name, sizeof name, "%s.bias", importer->architecture->head);
    int own = graph_find_parameter(importer->graph, name);
    if (own < 0)
        return error_set(importer->err, ERROR_INTERNAL, "the network has no %s", name);
    const struct safetensors_tensor *bias = safetensors_find(importer->source, name);
    importer->report->source_classes = bias && bias->shape.rank == 1 ? (int)bias->shape.dims[0] : 0;
    importer->report->fresh_head = importer->report->source_classes != parameters->tensors[own].shape.dims[0];
    return true;
}

static bool check_surplus(const struct importer *importer) {
    for (int i = 0; i < importer->source->count; i++) {
        const char *name = importer->source->tensors[i].name;
        if (ends_with(name, ".num_batches_tracked"))
            importer->report->dropped++;
        else if (!is_other_head(importer, name) && graph_find_parameter(importer->graph, name) < 0)
            return error_set(importer->err, ERROR_FORMAT,
                             "the tensor %.96s is surplus: are these weights of a %s?", name,
                             importer->architecture->name);
    }
    return true;
}

bool import_weights(const struct safetensors *source, const struct graph *graph,
                    const struct model_architecture *architecture, struct parameters *parameters,
                    struct import_report *report, struct error *err) {
    *report = (struct import_report){0};
    struct importer importer = {source, graph, architecture, report, err};
    if (!look_at_head(&importer, parameters) || !check_surplus(&importer))
        return false;
    for (int i = 0; i < graph->parameter_count; i++) {
        if (!import_one(&importer, &graph->parameters[i], &parameters->tensors[i]))
            return false;
    }
    return true;
}

bool import_weights_file(const char *path, const struct graph *graph, const struct model_architecture *architecture,
                         struct parameters *parameters, struct import_report *report, struct error *err) {
    struct file_map map;
    struct safetensors source;
    if (!file_map_open(path, &map, err))
        return false;
    bool ok = safetensors_parse(map.data, map.size, &source, err);
    if (ok) {
        ok = import_weights(&source, graph, architecture, parameters, report, err);
        safetensors_fini(&source);
    }
    file_map_close(&map);
    return ok || error_prefix(err, "%s", path);
}
