#include "trainerd/publisher_inspect.h"

#include "common/base/text.h"

#include <stdio.h>
#include <string.h>

/* A member holds the file's weights, prepared for its device, and activations of its largest batch: measured
 * at two to three times the file for the networks that are there. */
enum { MEMORY_FACTOR = 3 };
static const uint64_t MEMORY_BASE_BYTES = UINT64_C(32) << 20;

/** The length of the file's header: 8 bytes that say how long the JSON is, and the JSON (safetensors). */
static int64_t head_of(const struct file_map *map) {
    uint64_t length = 0;
    for (int i = 7; i >= 0 && map->size >= 8; i--)
        length = length << 8 | map->data[i];
    return map->size >= 8 && length <= map->size - 8 ? (int64_t)length + 8 : 0;
}

static void take_metrics(const struct manifest *manifest, struct publisher_findings *out) {
    for (int i = 0; i < manifest->metric_count && out->metric_count < PUBLISHER_MAX_METRICS; i++) {
        const struct manifest_metric *from = &manifest->metrics[i];
        struct registry_metric *to = &out->metrics[out->metric_count];
        to->value = from->value;
        /* A figure whose name does not fit is one that no rule can name. */
        out->metric_count += text_copy(to->name, sizeof to->name, from->name) &&
                             text_copy(to->data_set, sizeof to->data_set, from->data_set) &&
                             text_copy(to->split, sizeof to->split, from->split);
    }
}

static bool take(const struct model_file *file, struct publisher_findings *out, struct error *err) {
    const struct manifest *manifest = &file->manifest;
    if (!text_copy(out->name, sizeof out->name, manifest->name) ||
        !text_copy(out->version, sizeof out->version, manifest->version) || !descriptor_name_ok(out->name) ||
        !descriptor_name_ok(out->version))
        return error_set(err, ERROR_INVALID,
                         "its name and version must be 1 to 100 of [A-Za-z0-9._-], a letter or digit first");
    text_copy(out->architecture, sizeof out->architecture, manifest->architecture.name);
    text_copy(out->precision, sizeof out->precision, manifest->precision);
    snprintf(out->provenance, sizeof out->provenance,
             "run %.100s, trainerd %.60s, data %.16s, finished %.40s", manifest->training.run_name,
             manifest->training.software_version, manifest->data_digest, manifest->training.finished_at);
    take_metrics(manifest, out);
    out->head_bytes = head_of(&file->map);
    out->memory_bytes = MEMORY_BASE_BYTES + MEMORY_FACTOR * (uint64_t)file->map.size;
    return digest_parse(manifest->weights_digest, &out->weights, err);
}

bool publisher_inspect_model(void *context, const char *path, struct publisher_findings *findings,
                             struct error *err) {
    (void)context;
    struct model_file file;
    *findings = (struct publisher_findings){0};
    if (!model_file_open(path, &file, err))
        return false;
    bool ok = take(&file, findings, err) || error_prefix(err, "%s", path);
    model_file_close(&file);
    return ok;
}

struct descriptor_spec publisher_describe(const struct publisher_findings *findings, const void *data,
                                          size_t size) {
    static const struct digest unknown;
    return (struct descriptor_spec){
        .name = findings->name,
        .version = findings->version,
        .data = data,
        .size = size,
        .head_bytes = findings->head_bytes,
        .weights = digest_equal(&findings->weights, &unknown) ? NULL : &findings->weights,
        .architecture = findings->architecture[0] ? findings->architecture : NULL,
        .precision = findings->precision[0] ? findings->precision : NULL,
        .memory_bytes = findings->memory_bytes,
        .provenance = findings->provenance,
    };
}
