#include "inferd/acceptance.h"
#include "common/base/file.h"
#include "common/image/preprocess.h"
#include "common/metrics/confusion.h"
#include "inferd/acceptance_set.h"
#include "inferd/decide.h"
#include <stdlib.h>

/** What one run works with. */
struct run {
    const struct acceptance_spec *spec;
    struct model *model;
    uint8_t *grey;
    float *images; /* (max_batch, C, H, W), of which the first counts */
};

static bool read_picture(const struct run *run, const char *path) {
    struct bytes bytes;
    struct image image = {0};
    if (!file_read(path, run->spec->limits.max_bytes, &bytes, NULL)) {
        return false;
    }
    const struct recipe *recipe = &run->model->info.recipe;
    bool ok = image_decode(bytes.data, bytes.size, &run->spec->limits, &image, NULL) &&
              preprocess_pixels(recipe, &image, run->grey, NULL);
    if (ok) {
        preprocess_normalise(recipe, run->grey, run->images);
    }
    image_fini(&image);
    free(bytes.data);
    return ok;
}

/** The most probable class of the picture that was read; -1: the model cannot compute it. */
static int judge(const struct run *run, struct error *err) {
    const struct model_info *info = &run->model->info;
    float logits[MODEL_MAX_CLASSES];
    double probabilities[MODEL_MAX_CLASSES];
    int best = 0;
    if (!run->model->ops->compute(run->model, 0, run->images, 1, logits, err) ||
        !decide_probabilities(logits, info->class_count, info->temperature, probabilities, err)) {
        error_prefix(err, "a picture of the acceptance set");
        return -1;
    }
    for (int i = 1; i < info->class_count; i++) {
        best = probabilities[i] > probabilities[best] ? i : best;
    }
    return best;
}

static bool judge_all(const struct run *run, const struct acceptance_set *set, struct confusion *confusion,
                      struct acceptance_result *out, struct error *err) {
    for (int i = 0; i < set->count; i++) {
        if (!read_picture(run, set->pictures[i].path)) {
            out->unreadable++;
            continue;
        }
        int judged = judge(run, err);
        if (judged < 0 || !confusion_add(confusion, set->pictures[i].label, judged, err)) {
            return false;
        }
        out->images++;
    }
    return true;
}

static bool conclude(const struct acceptance_spec *spec, const struct confusion *confusion,
                     struct acceptance_result *out, struct error *err) {
    struct confusion_summary summary = confusion_summarise(confusion);
    int seen = 0;
    for (int i = 0; i < confusion->classes; i++) {
        seen += summary.by_class[i].support > 0 ? 1 : 0;
    }
    out->balanced_accuracy = summary.balanced_accuracy;
    if (seen < 2) {
        return error_set(err, ERROR_FORMAT,
                         "the acceptance set has readable pictures of %d classes; expected at least two",
                         seen);
    }
    return out->balanced_accuracy >= spec->min_balanced_accuracy ||
           error_set(err, ERROR_INVALID,
                     "acceptance set: balanced accuracy %.4f of %d images is below the limit of %.4f",
                     out->balanced_accuracy, out->images, spec->min_balanced_accuracy);
}

bool acceptance_run(const struct acceptance_spec *spec, struct model *model, struct acceptance_result *out,
                    struct error *err) {
    const struct recipe *recipe = &model->info.recipe;
    struct acceptance_set set = {0};
    struct confusion confusion;
    struct run run = {.spec = spec,
                      .model = model,
                      .grey = malloc(recipe_pixels(recipe)),
                      .images = calloc(recipe_values(recipe) * (size_t)model->max_batch, sizeof *run.images)};
    *out = (struct acceptance_result){0};
    bool ok = (run.grey && run.images) || error_set(err, ERROR_MEMORY, "no memory for the acceptance set");
    ok = ok && confusion_init(&confusion, model->info.class_count, err) &&
         acceptance_set_open(spec, &model->info, &set, err) && judge_all(&run, &set, &confusion, out, err) &&
         conclude(spec, &confusion, out, err);
    acceptance_set_close(&set);
    free(run.grey);
    free(run.images);
    return ok;
}
