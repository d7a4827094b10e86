#include "inferd/model.h"
#include <stdio.h>
#include <string.h>

struct model *model_retain(struct model *model) {
    atomic_fetch_add(&model->references, 1);
    return model;
}

void model_release(struct model *model) {
    if (model && atomic_fetch_sub(&model->references, 1) == 1) {
        model->ops->destroy(model);
    }
}

const struct decision_point *model_point(const struct model *model, const char *name, struct error *err) {
    char names[256] = "";
    for (int i = 0; i < model->info.point_count; i++) {
        const struct decision_point *point = &model->info.points[i];
        if (!*name || strcmp(name, point->name) == 0) {
            return point;
        }
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", point->name);
    }
    error_set(err, ERROR_INVALID, "operating_point: the model has no such one; it has %s", names);
    return NULL;
}
