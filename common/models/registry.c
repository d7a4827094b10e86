#include "common/models/registry.h"

#include "common/models/architectures.h"

#include <stdio.h>
#include <string.h>

static const struct model_architecture rows[] = {
    {"resnet18", "ResNet-18, 11 million parameters", resnet_build, {2, 2, 2, 2}, false, "conv1", "fc"},
    {"resnet34", "ResNet-34, 21 million parameters", resnet_build, {3, 4, 6, 3}, false, "conv1", "fc"},
    {"resnet50", "ResNet-50, 24 million parameters", resnet_build, {3, 4, 6, 3}, true, "conv1", "fc"},
    {"resnet101", "ResNet-101, 43 million parameters", resnet_build, {3, 4, 23, 3}, true, "conv1", "fc"},
    {"efficientnet_lite0", "EfficientNet-Lite0, 3.4 million parameters", efficientnet_lite_build, {1, 2, 2, 3, 3, 4, 1}, false,
     "_conv_stem", "_fc"},
};

const struct model_architecture *model_find(const char *name, struct error *err) {
    char names[200] = "";
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", rows[i].name);
    }
    error_set(err, ERROR_NOT_FOUND, "there is no architecture \"%.60s\": there are %s", name, names);
    return NULL;
}

static bool check_spec(const struct model_spec *spec, struct error *err) {
    if (spec->input_channels != 1 && spec->input_channels != 3)
        return error_set(err, ERROR_INVALID, "a model has 1 or 3 input channels, not %d", spec->input_channels);
    if (spec->size < 28 || spec->size > 512)
        return error_set(err, ERROR_INVALID, "a model's size is 28 to 512 pixels, not %d", spec->size);
    if (spec->classes < 2 || spec->classes > 10000)
        return error_set(err, ERROR_INVALID, "a model has 2 to 10000 classes, not %d", spec->classes);
    if (!(spec->dropout >= 0 && spec->dropout < 1))
        return error_set(err, ERROR_INVALID, "dropout must be at least 0 and under 1, not %g", spec->dropout);
    if (spec->stem && strcmp(spec->stem, "7x7") != 0 && strcmp(spec->stem, "3x3") != 0)
        return error_set(err, ERROR_INVALID, "a stem is \"7x7\" or \"3x3\", not \"%.20s\"", spec->stem);
    return true;
}

struct graph *model_build(const struct model_spec *spec, struct error *err) {
    const struct model_architecture *row = model_find(spec->architecture, err);
    if (!row || !check_spec(spec, err))
        return NULL;
    struct graph *graph = graph_create();
    if (!graph) {
        error_set(err, ERROR_MEMORY, "out of memory");
        return NULL;
    }
    if (row->build(graph, row, spec, err) < 0) {
        error_prefix(err, "%s at %d pixels", row->name, spec->size);
        graph_destroy(graph);
        return NULL;
    }
    return graph;
}
