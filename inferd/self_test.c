#include "inferd/self_test.h"
#include "common/image/preprocess.h"
#include "inferd/decide.h"
#include <math.h>
#include <stdlib.h>

enum { GOLDEN_MAX = 1024 };

struct self_test {
    const struct self_test_spec *spec;
    int instance;  /* that answers now */
    float *images; /* a batch, of which the first picture is used */
};

static bool compare_image(const struct self_test *test, int index, const uint8_t *grey, const float *expected,
                          struct error *err) {
    struct model *model = test->spec->model;
    const struct model_info *info = &model->info;
    float logits[MODEL_MAX_CLASSES];
    double probabilities[MODEL_MAX_CLASSES];
    preprocess_normalise(&info->recipe, grey, test->images);
    if (!model->ops->compute(model, test->instance, test->images, 1, logits, err) ||
        !decide_probabilities(logits, info->class_count, info->temperature, probabilities, err)) {
        return error_prefix(err, "golden image %d", index);
    }
    for (int k = 0; k < info->class_count; k++) {
        if (!(fabs(probabilities[k] - (double)expected[k]) <= test->spec->tolerance)) {
            return error_set(
                err, ERROR_INVALID,
                "self-test: golden image %d gives %s %.4f here and %.4f where the model was made", index,
                info->classes[k], probabilities[k], (double)expected[k]);
        }
    }
    return true;
}

static bool compare_all(const struct self_test *test, const struct tensor *greys, const struct tensor *expected,
                        struct error *err) {
    const struct model_info *info = &test->spec->model->info;
    const struct shape *shape = &greys->shape;
    if (shape->dims[0] > GOLDEN_MAX || shape->dims[1] != 1 || shape->dims[2] != info->recipe.height ||
        shape->dims[3] != info->recipe.width || expected->shape.dims[0] != shape->dims[0] ||
        expected->shape.dims[1] != info->class_count) {
        return error_set(err, ERROR_SHAPE,
                         "the model file's golden images or probabilities do not fit its network");
    }
    for (int i = 0; i < (int)shape->dims[0]; i++) {
        const uint8_t *grey = (const uint8_t *)greys->data + recipe_pixels(&info->recipe) * (size_t)i;
        const float *row = (const float *)expected->data + (size_t)info->class_count * (size_t)i;
        if (!compare_image(test, i, grey, row, err)) {
            return false;
        }
    }
    return true;
}

bool self_test_run(const struct self_test_spec *spec, const struct model_file *file, int *count, struct error *err) {
    struct tensor greys = {0}, expected = {0};
    struct error reason = {0};
    struct self_test test = {.spec = spec};
    *count = 0;
    if (!model_file_extra(file, "golden.images", DTYPE_U8, 4, &greys, &reason)) {
        return reason.code == ERROR_NOT_FOUND || error_set(err, reason.code, "%s", reason.message);
    }
    test.images =
        calloc(recipe_values(&spec->model->info.recipe) * (size_t)spec->model->max_batch, sizeof *test.images);
    bool ok = test.images || error_set(err, ERROR_MEMORY, "no memory for the self-test");
    ok = ok && model_file_extra(file, "golden.probabilities", DTYPE_F32, 2, &expected, err);
    for (; ok && test.instance < spec->instances; test.instance++) {
        ok = compare_all(&test, &greys, &expected, err) ||
             (spec->instances > 1 && error_prefix(err, "instance %d", test.instance));
    }
    *count = ok ? (int)greys.shape.dims[0] : 0;
    free(test.images);
    tensor_fini(&greys);
    tensor_fini(&expected);
    return ok;
}
