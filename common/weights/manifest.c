#include "common/weights/manifest.h"

#include "common/weights/json_fields.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define FIELD(type, name, ...)                                                                               \
    { .key = #name, .offset = offsetof(struct type, name), __VA_ARGS__ }

enum { TEXT_BYTES = 4096, LABEL_BYTES = 200 };

static const struct json_field architecture_fields[] = {
    FIELD(manifest_architecture, name, .kind = JSON_FIELD_NAME),
    FIELD(manifest_architecture, stem, .kind = JSON_FIELD_NAME),
    FIELD(manifest_architecture, input_channels, .kind = JSON_FIELD_INT, .min = 1, .max = 3),
    FIELD(manifest_architecture, size, .kind = JSON_FIELD_INT, .min = 28, .max = 512),
    {0},
};

static const struct json_field operating_point_fields[] = {
    FIELD(manifest_operating_point, name, .kind = JSON_FIELD_NAME),
    {.key = "class",
     .offset = offsetof(struct manifest_operating_point, class_name),
     .kind = JSON_FIELD_TEXT,
     .max = LABEL_BYTES},
    FIELD(manifest_operating_point, threshold, .kind = JSON_FIELD_DOUBLE, .max = 1),
    FIELD(manifest_operating_point, sensitivity, .kind = JSON_FIELD_DOUBLE, .max = 1),
    FIELD(manifest_operating_point, specificity, .kind = JSON_FIELD_DOUBLE, .max = 1),
    {0},
};

static const struct json_field metric_fields[] = {
    FIELD(manifest_metric, name, .kind = JSON_FIELD_TEXT, .max = LABEL_BYTES),
    FIELD(manifest_metric, data_set, .kind = JSON_FIELD_TEXT, .max = LABEL_BYTES),
    FIELD(manifest_metric, split, .kind = JSON_FIELD_TEXT, .max = LABEL_BYTES),
    FIELD(manifest_metric, value, .kind = JSON_FIELD_DOUBLE, .min = -1e12, .max = 1e12),
    {0},
};

static const struct json_field intended_use_fields[] = {
    FIELD(manifest_intended_use, age_min_years, .kind = JSON_FIELD_DOUBLE, .max = 150),
    FIELD(manifest_intended_use, age_max_years, .kind = JSON_FIELD_DOUBLE, .max = 150),
    FIELD(manifest_intended_use, views, .kind = JSON_FIELD_TEXTS, .max = MANIFEST_MAX_VIEWS,
          .count_offset = offsetof(struct manifest_intended_use, view_count)),
    FIELD(manifest_intended_use, statement, .kind = JSON_FIELD_TEXT, .max = TEXT_BYTES),
    {0},
};

static const struct json_field training_fields[] = {
    FIELD(manifest_training, config_digest, .kind = JSON_FIELD_DIGEST),
    FIELD(manifest_training, run_name, .kind = JSON_FIELD_TEXT, .max = LABEL_BYTES),
    FIELD(manifest_training, seed, .kind = JSON_FIELD_INT64, .max = 9.3e18),
    FIELD(manifest_training, epochs, .kind = JSON_FIELD_INT, .max = INT_MAX),
    FIELD(manifest_training, software_version, .kind = JSON_FIELD_TEXT, .max = LABEL_BYTES),
    FIELD(manifest_training, finished_at, .kind = JSON_FIELD_TEXT, .max = 40),
    {0},
};

static const struct json_field quantised_fields[] = {
    FIELD(manifest_quantised, node, .kind = JSON_FIELD_NAME),
    FIELD(manifest_quantised, computes, .kind = JSON_FIELD_NAME),
    FIELD(manifest_quantised, dtype, .kind = JSON_FIELD_NAME),
    FIELD(manifest_quantised, scale, .kind = JSON_FIELD_DOUBLE, .min = 1e-25, .max = 1e25),
    {0},
};

static const struct json_field manifest_fields[] = {
    FIELD(manifest, format, .kind = JSON_FIELD_INT, .min = 1, .max = MANIFEST_FORMAT),
    FIELD(manifest, name, .kind = JSON_FIELD_NAME),
    FIELD(manifest, version, .kind = JSON_FIELD_NAME),
    FIELD(manifest, architecture, .kind = JSON_FIELD_OBJECT, .fields = architecture_fields),
    FIELD(manifest, precision, .kind = JSON_FIELD_NAME, .optional = true),
    FIELD(manifest, quantised, .kind = JSON_FIELD_OBJECTS, .max = MANIFEST_MAX_QUANTISED,
          .count_offset = offsetof(struct manifest, quantised_count), .fields = quantised_fields,
          .size = sizeof(struct manifest_quantised), .optional = true),
    FIELD(manifest, classes, .kind = JSON_FIELD_TEXTS, .min = 2, .max = MANIFEST_MAX_CLASSES,
          .count_offset = offsetof(struct manifest, class_count)),
    FIELD(manifest, preprocessing, .kind = JSON_FIELD_RAW, .max = 4 * TEXT_BYTES),
    FIELD(manifest, temperature, .kind = JSON_FIELD_DOUBLE, .min = 0.01, .max = 100),
    FIELD(manifest, operating_points, .kind = JSON_FIELD_OBJECTS, .max = MANIFEST_MAX_OPERATING_POINTS,
          .count_offset = offsetof(struct manifest, operating_point_count), .fields = operating_point_fields,
          .size = sizeof(struct manifest_operating_point)),
    FIELD(manifest, metrics, .kind = JSON_FIELD_OBJECTS, .max = MANIFEST_MAX_METRICS,
          .count_offset = offsetof(struct manifest, metric_count), .fields = metric_fields,
          .size = sizeof(struct manifest_metric)),
    FIELD(manifest, intended_use, .kind = JSON_FIELD_OBJECT, .fields = intended_use_fields),
    FIELD(manifest, data_digest, .kind = JSON_FIELD_DIGEST),
    FIELD(manifest, weights_digest, .kind = JSON_FIELD_DIGEST),
    FIELD(manifest, training, .kind = JSON_FIELD_OBJECT, .fields = training_fields),
    {0},
};

struct manifest manifest_empty(void) {
    return (struct manifest){
        .format = 1,
        .precision = "f32",
        .name = "",
        .version = "",
        .architecture = {.name = "", .stem = ""},
        .preprocessing = "",
        .temperature = 1,
        .intended_use = {.age_max_years = 150, .statement = ""},
        .data_digest = "",
        .weights_digest = "",
        .training = {.config_digest = "", .run_name = "", .software_version = "", .finished_at = ""},
    };
}

void manifest_fini(struct manifest *manifest) {
    arena_fini(&manifest->arena);
    *manifest = (struct manifest){0};
}

static bool check_operating_points(const struct manifest *manifest, struct error *err) {
    for (int i = 0; i < manifest->operating_point_count; i++) {
        const struct manifest_operating_point *point = &manifest->operating_points[i];
        if (manifest_class(manifest, point->class_name) < 0)
            return error_set(err, ERROR_INVALID, "operating_points: %s is about \"%.60s\", which is no class",
                             point->name, point->class_name);
        for (int k = 0; k < i; k++) {
            if (strcmp(point->name, manifest->operating_points[k].name) == 0)
                return error_set(err, ERROR_INVALID, "operating_points: %s stands twice", point->name);
        }
    }
    return true;
}

static bool is_one_of(const char *text, const char *const *names) {
    while (*names && strcmp(text, *names) != 0)
        names++;
    return *names != NULL;
}

static bool check_precision(const struct manifest *manifest, struct error *err) {
    static const char *const precisions[] = {"f32", "bf16", "int8", NULL}, *const computes[] = {"f32", "int8", NULL},
                             *const dtypes[] = {"u8", "s8", NULL};
    if (!is_one_of(manifest->precision, precisions))
        return error_set(err, ERROR_UNSUPPORTED, "precision: this program computes in no \"%.20s\"", manifest->precision);
    if ((manifest->format == 1) != (strcmp(manifest->precision, "f32") == 0))
        return error_set(err, ERROR_INVALID, "precision: %s in format %d", manifest->precision, manifest->format);
    if ((manifest->quantised_count > 0) != (strcmp(manifest->precision, "int8") == 0))
        return error_set(err, ERROR_INVALID, "quantised: %d nodes in precision %s", manifest->quantised_count,
                         manifest->precision);
    for (int i = 0; i < manifest->quantised_count; i++) {
        const struct manifest_quantised *row = &manifest->quantised[i];
        if (!is_one_of(row->computes, computes) || !is_one_of(row->dtype, dtypes))
            return error_set(err, ERROR_INVALID, "quantised: node %s computes in \"%.20s\" and is kept in \"%.20s\"", row->node,
                             row->computes, row->dtype);
    }
    return true;
}

static bool check_values(const struct manifest *manifest, struct error *err) {
    if (!json_fields_check(manifest_fields, manifest, err) || !check_precision(manifest, err))
        return false;
    if (manifest->intended_use.age_min_years > manifest->intended_use.age_max_years)
        return error_set(err, ERROR_INVALID, "intended_use: age_min_years is above age_max_years");
    return check_operating_points(manifest, err);
}

bool manifest_check(const struct manifest *manifest, struct error *err) {
    return check_values(manifest, err) || error_prefix(err, "manifest");
}

static bool read_values(const json_t *root, struct manifest *out, struct error *err) {
    const json_t *format = json_object_get(root, "format");
    if (!json_is_object(root))
        return error_set(err, ERROR_FORMAT, "not a JSON object");
    if (json_is_integer(format) && json_integer_value(format) > MANIFEST_FORMAT)
        return error_set(err, ERROR_UNSUPPORTED, "format %lld is newer than this program's %d",
                         (long long)json_integer_value(format), MANIFEST_FORMAT);
    return json_fields_read(manifest_fields, root, &out->arena, out, err) && check_values(out, err);
}

bool manifest_parse(const char *json, size_t length, struct manifest *out, struct error *err) {
    *out = manifest_empty();
    if (length > MANIFEST_MAX_BYTES)
        return error_set(err, ERROR_TOO_LARGE, "manifest: %zu bytes, the limit is %d", length,
                         MANIFEST_MAX_BYTES);
    json_error_t why;
    json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return error_set(err, ERROR_FORMAT, "manifest: not proper JSON: line %d: %s", why.line, why.text);
    bool ok = read_values(root, out, err) || error_prefix(err, "manifest");
    json_decref(root);
    if (!ok)
        manifest_fini(out);
    return ok;
}

char *manifest_print(const struct manifest *manifest, int indent, struct error *err) {
    if (!manifest_check(manifest, err))
        return NULL;
    json_t *root = json_fields_write(manifest_fields, manifest, err);
    char *text = root ? json_dumps(root, indent > 0 ? JSON_INDENT((size_t)indent) : JSON_COMPACT) : NULL;
    if (root && !text)
        error_set(err, ERROR_MEMORY, "manifest: out of memory");
    json_decref(root);
    return text;
}

const struct manifest_operating_point *manifest_operating_point(const struct manifest *manifest,
                                                                const char *name) {
    for (int i = 0; i < manifest->operating_point_count; i++) {
        const struct manifest_operating_point *point = &manifest->operating_points[i];
        if (!name || !*name || strcmp(point->name, name) == 0)
            return point;
    }
    return NULL;
}

int manifest_class(const struct manifest *manifest, const char *name) {
    for (int i = 0; i < manifest->class_count; i++) {
        if (strcmp(manifest->classes[i], name) == 0)
            return i;
    }
    return -1;
}
