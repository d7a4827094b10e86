#include "inferd/model_info.h"
#include "common/base/text.h"
#include "proto/diagnosis.pb-c.h"
#include <string.h>
#include <strings.h>

static bool copy_name(char out[MODEL_NAME_SIZE], const char *name, struct error *err) {
    return text_copy(out, MODEL_NAME_SIZE, name) ||
           error_set(err, ERROR_INVALID, "the model file has a name of more than %d bytes",
                     MODEL_NAME_SIZE - 1);
}

static bool copy_classes(const struct manifest *manifest, struct model_info *out, struct error *err) {
    if (manifest->class_count < 2 || manifest->class_count > MODEL_MAX_CLASSES) {
        return error_set(err, ERROR_INVALID, "the model file has %d classes; expected 2 to %d",
                         manifest->class_count, MODEL_MAX_CLASSES);
    }
    out->class_count = manifest->class_count;
    out->invalid_class = manifest_class(manifest, "INVALID");
    for (int i = 0; i < out->class_count; i++) {
        if (!copy_name(out->classes[i], manifest->classes[i], err)) {
            return false;
        }
    }
    return true;
}

static struct decision_point *find_point(struct model_info *info, const char *name) {
    for (int i = 0; i < info->point_count; i++) {
        if (strcmp(info->points[i].name, name) == 0) {
            return &info->points[i];
        }
    }
    return NULL;
}

/** Adds "triage" where the model has both of its halves and they leave something between them. */
static void add_triage(struct model_info *info) {
    const struct decision_point *in = find_point(info, "rule_in"), *out = find_point(info, "rule_out");
    if (!in || !out || in->class_index != out->class_index || out->rule_out > in->rule_in ||
        find_point(info, MODEL_INFO_TRIAGE) || info->point_count == MODEL_MAX_POINTS) {
        return;
    }
    struct decision_point *point = &info->points[info->point_count++];
    *point = (struct decision_point){
        .class_index = in->class_index, .rule_in = in->rule_in, .rule_out = out->rule_out};
    text_copy(point->name, sizeof point->name, MODEL_INFO_TRIAGE);
}

static bool copy_points(const struct manifest *manifest, struct model_info *out, struct error *err) {
    if (manifest->operating_point_count < 1 || manifest->operating_point_count >= MODEL_MAX_POINTS) {
        return error_set(err, ERROR_INVALID, "the model file has %d operating points; expected 1 to %d",
                         manifest->operating_point_count, MODEL_MAX_POINTS - 1);
    }
    for (int i = 0; i < manifest->operating_point_count; i++) {
        const struct manifest_operating_point *from = &manifest->operating_points[i];
        struct decision_point *to = &out->points[out->point_count++];
        to->class_index = manifest_class(manifest, from->class_name);
        to->rule_in = to->rule_out = from->threshold;
        if (to->class_index < 0) {
            return error_set(err, ERROR_INVALID, "operating point %s: the model has no class %s", from->name,
                             from->class_name);
        }
        if (!copy_name(to->name, from->name, err)) {
            return false;
        }
    }
    add_triage(out);
    return true;
}

/** A DICOM View Position as the protocol has it. */
static Thorax__V1__View view_of(const char *name) {
    static const struct {
        const char *name;
        Thorax__V1__View view;
    } rows[] = {
        {"PA", THORAX__V1__VIEW__VIEW_PA},           {"AP", THORAX__V1__VIEW__VIEW_AP},
        {"LL", THORAX__V1__VIEW__VIEW_LATERAL},      {"RL", THORAX__V1__VIEW__VIEW_LATERAL},
        {"LATERAL", THORAX__V1__VIEW__VIEW_LATERAL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcasecmp(name, rows[i].name) == 0) {
            return rows[i].view;
        }
    }
    return THORAX__V1__VIEW__VIEW_OTHER;
}

bool model_info_from_manifest(const struct manifest *manifest, struct model_info *out, struct error *err) {
    memset(out, 0, sizeof *out);
    out->temperature = manifest->temperature;
    out->age_min_years = manifest->intended_use.age_min_years;
    out->age_max_years = manifest->intended_use.age_max_years;
    for (int i = 0; i < manifest->intended_use.view_count; i++) {
        out->views |= UINT32_C(1) << view_of(manifest->intended_use.views[i]);
    }
    return copy_name(out->name, manifest->name, err) && copy_name(out->version, manifest->version, err) &&
           copy_classes(manifest, out, err) && copy_points(manifest, out, err) &&
           recipe_parse(manifest->preprocessing, strlen(manifest->preprocessing), &out->recipe, err);
}
