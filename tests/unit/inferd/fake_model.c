#include "tests/unit/inferd/fake_model.h"
#include "common/base/clock.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fake {
    struct model model;
    struct fake_model_spec spec;
};

static bool compute(struct model *model, int instance, const float *images, int count, float *logits, struct error *err) {
    const struct fake *fake = (const struct fake *)model;
    (void)instance;
    (void)images;
    clock_sleep_ms(fake->spec.compute_ms);
    if (fake->spec.computed) {
        atomic_fetch_add(fake->spec.computed, count);
    }
    for (int i = 0; i < count; i++) {
        memcpy(logits + 3 * i, fake->spec.logits, sizeof fake->spec.logits);
    }
    return !fake->spec.fails || error_set(err, ERROR_INTERNAL, "the fake fails");
}

static void destroy(struct model *model) {
    struct fake *fake = (struct fake *)model;
    if (fake->spec.alive) {
        atomic_fetch_sub(fake->spec.alive, 1);
    }
    free(fake);
}

static const struct model_ops ops = {.compute = compute, .destroy = destroy};

struct model *fake_model(const struct fake_model_spec *spec) {
    struct fake *fake = calloc(1, sizeof *fake);
    struct model_info *info = &fake->model.info;
    fake->spec = *spec;
    fake->model.ops = &ops;
    atomic_init(&fake->model.references, 1);
    fake->model.max_batch = spec->max_batch ? spec->max_batch : 4;
    snprintf(info->name, sizeof info->name, "%s", spec->name);
    snprintf(info->version, sizeof info->version, "1");
    info->digest = digest_of(spec->name, strlen(spec->name));
    info->class_count = 3;
    static const char *const classes[] = {"NORMAL", "PNEUMONIA", "INVALID"};
    for (int i = 0; i < 3; i++) {
        snprintf(info->classes[i], sizeof info->classes[i], "%s", classes[i]);
    }
    info->invalid_class = 2;
    info->temperature = 1;
    info->point_count = 2;
    info->points[0] = (struct decision_point){"balanced", 1, 0.6, 0.4};
    info->points[1] = (struct decision_point){"sensitive", 1, 0.1, 0.1};
    info->recipe = recipe_default(28, 28, 1);
    info->age_min_years = 1;
    info->age_max_years = 5;
    info->views = 1u << 2; /* VIEW_AP */
    if (spec->alive) {
        atomic_fetch_add(spec->alive, 1);
    }
    return &fake->model;
}
