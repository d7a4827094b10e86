#include "common/image/recipe.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

/* The one method so far: its name stands in the file, so that a reader which knows another cannot mistake it.
 */
static const char RESIZE_METHOD[] = "squash_triangle";

enum { MAX_JSON_BYTES = 4096, FLOAT_DIGITS = 9 /* enough to give any float back */ };

struct recipe recipe_default(int width, int height, int channels) {
    struct recipe recipe = {.version = RECIPE_VERSION,
                            .width = width,
                            .height = height,
                            .channels = channels,
                            .stddev = {1, 1, 1}};
    if (channels == 3)
        return (struct recipe){.version = RECIPE_VERSION,
                               .width = width,
                               .height = height,
                               .channels = 3,
                               .mean = {0.485f, 0.456f, 0.406f},
                               .stddev = {0.229f, 0.224f, 0.225f}};
    recipe.mean[0] = 0.5f;
    recipe.stddev[0] = 0.25f;
    return recipe;
}

static bool side_ok(const char *name, int value, struct error *err) {
    if (value >= RECIPE_MIN_SIDE && value <= RECIPE_MAX_SIDE)
        return true;
    return error_set(err, ERROR_INVALID, "recipe: %s is %d; %d to %d is possible", name, value,
                     RECIPE_MIN_SIDE, RECIPE_MAX_SIDE);
}

/* Written so that a NaN fails. */
static bool value_ok(const char *name, float value, float low, float high, struct error *err) {
    if (value >= low && value <= high)
        return true;
    return error_set(err, ERROR_INVALID, "recipe: %s is %g; %g to %g is possible", name, (double)value,
                     (double)low, (double)high);
}

bool recipe_check(const struct recipe *recipe, struct error *err) {
    if (recipe->version != RECIPE_VERSION)
        return error_set(err, ERROR_UNSUPPORTED, "recipe: version is %d; this program knows %d",
                         recipe->version, RECIPE_VERSION);
    if (!side_ok("width", recipe->width, err) || !side_ok("height", recipe->height, err))
        return false;
    if (recipe->channels != 1 && recipe->channels != 3)
        return error_set(err, ERROR_INVALID, "recipe: channels is %d; 1 or 3 is possible", recipe->channels);
    for (int c = 0; c < recipe->channels; c++)
        if (!value_ok("mean", recipe->mean[c], -4.0f, 5.0f, err) ||
            !value_ok("stddev", recipe->stddev[c], 1.0f / 256, 8.0f, err))
            return false;
    return true;
}

bool recipe_equal(const struct recipe *a, const struct recipe *b) {
    bool same = a->version == b->version && a->width == b->width && a->height == b->height &&
                a->channels == b->channels;
    for (int c = 0; same && c < a->channels && c < RECIPE_MAX_CHANNELS; c++)
        same = a->mean[c] == b->mean[c] && a->stddev[c] == b->stddev[c];
    return same;
}

static json_t *float_array(const float *values, int count) {
    json_t *array = json_array();
    for (int i = 0; array && i < count; i++)
        json_array_append_new(array, json_real((double)values[i]));
    return array;
}

bool recipe_print(const struct recipe *recipe, char *out, size_t size, struct error *err) {
    if (!recipe_check(recipe, err))
        return false;
    json_t *root = json_pack("{s:i, s:i, s:i, s:i, s:s, s:o, s:o}", "version", recipe->version, "width",
                             recipe->width, "height", recipe->height, "channels", recipe->channels, "resize",
                             RESIZE_METHOD, "mean", float_array(recipe->mean, recipe->channels), "stddev",
                             float_array(recipe->stddev, recipe->channels));
    if (!root)
        return error_set(err, ERROR_MEMORY, "recipe: no memory");
    size_t length = json_dumpb(root, out, size, JSON_COMPACT | JSON_REAL_PRECISION(FLOAT_DIGITS));
    json_decref(root);
    if (length == 0 || length >= size)
        return error_set(err, ERROR_TOO_LARGE, "recipe: %zu bytes do not fit into %zu", length + 1, size);
    out[length] = '\0';
    return true;
}

static bool read_int(const json_t *root, const char *key, int *out, struct error *err) {
    const json_t *value = json_object_get(root, key);
    if (!json_is_integer(value))
        return error_set(err, ERROR_FORMAT, "recipe: %s is %s", key, value ? "no integer" : "missing");
    json_int_t number = json_integer_value(value);
    if (number < -1000000 || number > 1000000)
        return error_set(err, ERROR_INVALID, "recipe: %s is out of range", key);
    *out = (int)number;
    return true;
}

static bool read_floats(const json_t *root, const char *key, int count, float *out, struct error *err) {
    const json_t *array = json_object_get(root, key);
    if (!json_is_array(array) || json_array_size(array) != (size_t)count)
        return error_set(err, ERROR_FORMAT, "recipe: %s must be a list of %d numbers", key, count);
    for (int i = 0; i < count; i++) {
        const json_t *value = json_array_get(array, (size_t)i);
        if (!json_is_number(value))
            return error_set(err, ERROR_FORMAT, "recipe: %s must be a list of %d numbers", key, count);
        double number = json_number_value(value);
        if (!(fabs(number) < 1e6)) /* before the cast, which must not overflow */
            return error_set(err, ERROR_INVALID, "recipe: %s is out of range", key);
        out[i] = (float)number;
    }
    return true;
}

static bool check_keys(json_t *root, struct error *err) {
    static const char *const known[] = {"version", "width", "height", "channels", "resize", "mean", "stddev"};
    if (!json_is_object(root))
        return error_set(err, ERROR_FORMAT, "recipe: not a JSON object");
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value) {
        bool found = false;
        for (size_t i = 0; !found && i < sizeof known / sizeof *known; i++)
            found = strcmp(key, known[i]) == 0;
        if (!found)
            return error_set(err, ERROR_UNSUPPORTED, "recipe: the key \"%.40s\" is not known", key);
    }
    return true;
}

static bool read_recipe(json_t *root, struct recipe *recipe, struct error *err) {
    *recipe = (struct recipe){.stddev = {1, 1, 1}};
    /* The version first: another one may have other keys. */
    if (!json_is_object(root))
        return error_set(err, ERROR_FORMAT, "recipe: not a JSON object");
    if (!read_int(root, "version", &recipe->version, err))
        return false;
    if (recipe->version != RECIPE_VERSION)
        return error_set(err, ERROR_UNSUPPORTED, "recipe: version is %d; this program knows %d",
                         recipe->version, RECIPE_VERSION);
    if (!check_keys(root, err) || !read_int(root, "width", &recipe->width, err) ||
        !read_int(root, "height", &recipe->height, err) ||
        !read_int(root, "channels", &recipe->channels, err))
        return false;
    const char *method = json_string_value(json_object_get(root, "resize"));
    if (!method || strcmp(method, RESIZE_METHOD) != 0)
        return error_set(err, ERROR_UNSUPPORTED, "recipe: resize must be \"%s\"", RESIZE_METHOD);
    if (recipe->channels != 1 && recipe->channels != 3)
        return error_set(err, ERROR_INVALID, "recipe: channels is %d; 1 or 3 is possible", recipe->channels);
    return read_floats(root, "mean", recipe->channels, recipe->mean, err) &&
           read_floats(root, "stddev", recipe->channels, recipe->stddev, err) && recipe_check(recipe, err);
}

bool recipe_parse(const char *json, size_t length, struct recipe *out, struct error *err) {
    if (length > MAX_JSON_BYTES)
        return error_set(err, ERROR_TOO_LARGE, "recipe: %zu bytes; the limit is %d", length, MAX_JSON_BYTES);
    json_error_t where;
    json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return error_set(err, ERROR_FORMAT, "recipe: byte %d: %s", where.position, where.text);
    struct recipe recipe;
    bool ok = read_recipe(root, &recipe, err);
    json_decref(root);
    if (ok)
        *out = recipe;
    return ok;
}
