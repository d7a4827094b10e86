#include "tests/golden/pattern.h"

#include <math.h>
#include <string.h>

void pattern_fill(const char *name, float *out, int64_t count) {
    uint64_t seed = 0xcbf29ce484222325u;
    for (const char *c = name; *c; c++)
        seed = (seed ^ (uint8_t)*c) * 0x100000001b3u;
    for (int64_t i = 0; i < count; i++) {
        uint64_t z = seed + (uint64_t)(i + 1) * 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        z ^= z >> 31;
        out[i] = (float)(2.0 * ((double)(z >> 40) / 16777216.0) - 1.0);
    }
}

/** The last batch norm of a bottleneck, kept small: make_golden.py says why. */
static bool is_bottleneck_end(const char *name) {
    const char *end = "bn3.weight";
    size_t length = strlen(name);
    return length >= strlen(end) && strcmp(name + length - strlen(end), end) == 0;
}

static void scale_and_shift(float *data, int64_t count, float scale, float shift) {
    for (int64_t i = 0; i < count; i++)
        data[i] = shift + scale * data[i];
}

void pattern_parameters(const struct graph *graph, struct parameters *parameters) {
    for (int i = 0; i < graph->parameter_count; i++) {
        const struct graph_parameter *row = &graph->parameters[i];
        const struct shape *shape = &row->role.shape;
        float *data = parameters->tensors[i].data;
        int64_t count = shape_count(shape);
        pattern_fill(row->name, data, count);
        if (row->role.arg == ARG_RUNNING_MEAN)
            scale_and_shift(data, count, 0.1f, 0);
        else if (row->role.arg == ARG_RUNNING_VARIANCE)
            scale_and_shift(data, count, 0.5f, 1);
        else if (shape->rank == 4)
            scale_and_shift(data, count, sqrtf(6.0f / (float)(shape->dims[1] * shape->dims[2] * shape->dims[3])), 0);
        else if (shape->rank == 2)
            scale_and_shift(data, count, 0.05f, 0);
        else if (row->role.arg == ARG_SCALE && is_bottleneck_end(row->name))
            scale_and_shift(data, count, 0.2f * 0.1f, 0.2f);
        else if (row->role.arg == ARG_SCALE)
            scale_and_shift(data, count, 0.1f, 1);
        else
            scale_and_shift(data, count, 0.1f, 0);
    }
}
