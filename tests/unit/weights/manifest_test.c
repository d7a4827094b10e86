#include "tests/unit/weights/sample_manifest.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void everything_survives_a_round_trip(void **state) {
    (void)state;
    struct manifest in = sample_manifest(), out;
    struct error err;
    char *text = manifest_print(&in, 2, &err);
    assert_non_null(text);
    assert_true(manifest_parse(text, strlen(text), &out, &err));
    assert_string_equal(out.name, "chest");
    assert_string_equal(out.version, "1.0-rc_2");
    assert_string_equal(out.architecture.name, "resnet18");
    assert_string_equal(out.architecture.stem, "3x3");
    assert_int_equal(out.architecture.size, 28);
    assert_int_equal(out.class_count, 3);
    assert_string_equal(out.classes[2], "INVALID");
    assert_true(out.temperature == 1.25);
    assert_int_equal(out.operating_point_count, 2);
    assert_string_equal(out.operating_points[1].name, "sensitive");
    assert_true(out.operating_points[1].threshold == 0.1);
    assert_true(out.metrics[0].value == in.metrics[0].value);
    assert_true(out.intended_use.age_max_years == 5);
    assert_int_equal(out.intended_use.view_count, 2);
    assert_string_equal(out.intended_use.statement, in.intended_use.statement);
    assert_true(out.training.seed == INT64_MAX);
    char *again = manifest_print(&out, 2, &err);
    assert_string_equal(text, again);
    free(text);
    free(again);
    manifest_fini(&out);
}

static void precision_and_quantisation_survive_a_round_trip(void **state) {
    struct manifest_quantised rows[] = {{"input", "f32", "s8", 0.1}, {"layer1.0.conv1", "int8", "u8", 0.0123456789f}};
    struct manifest in = sample_manifest(), out;
    struct error err = {0};
    (void)state;
    in.format = 2;
    in.precision = "int8";
    in.quantised = rows;
    in.quantised_count = 2;
    char *text = manifest_print(&in, 0, &err);
    assert_non_null(text);
    assert_true(manifest_parse(text, strlen(text), &out, &err));
    assert_string_equal(out.precision, "int8");
    assert_int_equal(out.quantised_count, 2);
    assert_string_equal(out.quantised[1].node, "layer1.0.conv1");
    assert_true((float)out.quantised[1].scale == 0.0123456789f);
    manifest_fini(&out);
    rows[0].dtype = "f32";
    assert_null(manifest_print(&in, 0, &err));
    assert_non_null(strstr(err.message, "quantised: node input"));
    free(text);
}

/* As all models were before precisions had names. */
static void files_of_format_1_are_f32(void **state) {
    struct manifest out, in = sample_manifest();
    (void)state;
    char *text = manifest_print(&in, 0, NULL);
    json_t *root = json_loads(text, 0, NULL);
    json_object_del(root, "precision");
    json_object_del(root, "quantised");
    free(text);
    text = json_dumps(root, 0);
    assert_true(manifest_parse(text, strlen(text), &out, NULL));
    assert_string_equal(out.precision, "f32");
    assert_int_equal(out.quantised_count, 0);
    manifest_fini(&out);
    json_decref(root);
    free(text);
}

static void the_recipe_is_kept_with_its_values(void **state) {
    (void)state;
    struct manifest in = sample_manifest(), out;
    char *text = manifest_print(&in, 0, NULL);
    assert_true(manifest_parse(text, strlen(text), &out, NULL));
    json_t *recipe = json_loads(out.preprocessing, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(recipe, "version")), 1);
    assert_true(json_real_value(json_array_get(json_object_get(recipe, "mean"), 0)) == 0.1);
    json_decref(recipe);
    free(text);
    manifest_fini(&out);
}

static void lookups_find_by_name(void **state) {
    (void)state;
    struct manifest manifest = sample_manifest();
    assert_int_equal(manifest_class(&manifest, "PNEUMONIA"), 1);
    assert_int_equal(manifest_class(&manifest, "pneumonia"), -1);
    assert_string_equal(manifest_operating_point(&manifest, "")->name, "balanced");
    assert_string_equal(manifest_operating_point(&manifest, "sensitive")->name, "sensitive");
    assert_null(manifest_operating_point(&manifest, "other"));
}

/** Replaces the value at a key (a dotted path; numbers are indices) of the sample's JSON, or removes it
 * (NULL). */
static bool parse_changed(const char *path, const char *value, struct error *err) {
    struct manifest in = sample_manifest(), out;
    char *text = manifest_print(&in, 0, NULL);
    json_t *root = json_loads(text, 0, NULL), *at = root;
    char key[40];
    for (const char *dot; (dot = strchr(path, '.')); path = dot + 1) {
        snprintf(key, sizeof key, "%.*s", (int)(dot - path), path);
        at = json_is_array(at) ? json_array_get(at, strtoul(key, NULL, 10)) : json_object_get(at, key);
        assert_non_null(at);
    }
    if (value)
        assert_int_equal(json_object_set_new(at, path, json_loads(value, JSON_DECODE_ANY, NULL)), 0);
    else
        assert_int_equal(json_object_del(at, path), 0);
    free(text);
    text = json_dumps(root, 0);
    bool ok = manifest_parse(text, strlen(text), &out, err);
    if (ok)
        manifest_fini(&out);
    json_decref(root);
    free(text);
    return ok;
}

static void bad_values_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *path, *value;
        enum error_code code;
        const char *what;
    } cases[] = {
        {"format", "3", ERROR_UNSUPPORTED, "newer"},
        {"format", "2", ERROR_INVALID, "precision: f32 in format 2"},
        {"precision", "\"bf16\"", ERROR_INVALID, "precision: bf16 in format 1"},
        {"precision", "\"f64\"", ERROR_UNSUPPORTED, "f64"},
        {"precision", "8", ERROR_FORMAT, "precision: expected text"},
        {"quantised", "[{\"node\":\"conv1\",\"computes\":\"int8\",\"dtype\":\"u8\",\"scale\":0.1}]", ERROR_INVALID,
         "quantised: 1 nodes in precision f32"},
        {"quantised", "[{\"node\":\"conv1\",\"computes\":\"int8\",\"dtype\":\"u8\",\"scale\":0}]", ERROR_INVALID,
         "quantised 1: scale"},
        {"quantised", "[{\"node\":\"conv1\"}]", ERROR_FORMAT, "quantised 1: computes: missing"},
        {"format", "0", ERROR_INVALID, "format"},
        {"format", "\"1\"", ERROR_FORMAT, "format: expected a whole number"},
        {"name", NULL, ERROR_FORMAT, "name: missing"},
        {"name", "\"\"", ERROR_INVALID, "name: expected 1 to 100 letters"},
        {"name", "\"../x\"", ERROR_INVALID, "name"},
        {"version", "3", ERROR_FORMAT, "version: expected text"},
        {"architecture", "[]", ERROR_FORMAT, "architecture: expected an object"},
        {"architecture.size", "27", ERROR_INVALID, "architecture: size: 27 is not in 28..512"},
        {"architecture.size", "99999999999", ERROR_INVALID, "architecture: size"},
        {"architecture.input_channels", "4", ERROR_INVALID, "input_channels"},
        {"architecture.stem", NULL, ERROR_FORMAT, "architecture: stem: missing"},
        {"classes", "[\"A\"]", ERROR_INVALID, "classes"},
        {"classes", "[\"A\",\"A\"]", ERROR_INVALID, "\"A\" stands twice"},
        {"classes", "[\"A\",\"\"]", ERROR_INVALID, "entry 2"},
        {"classes", "[\"A\",\"\\u001b[2J\"]", ERROR_INVALID, "entry 2"},
        {"classes", "[\"A\",2]", ERROR_FORMAT, "classes: expected a list of text"},
        {"classes", "{}", ERROR_FORMAT, "classes: expected a list of text"},
        {"preprocessing", "\"{}\"", ERROR_FORMAT, "preprocessing: expected an object"},
        {"temperature", "0", ERROR_INVALID, "temperature"},
        {"temperature", "-1", ERROR_INVALID, "temperature"},
        {"temperature", "null", ERROR_FORMAT, "temperature: expected a number"},
        {"operating_points.0.threshold", "1.5", ERROR_INVALID,
         "operating_points 1: threshold: 1.5 is not in 0..1"},
        {"operating_points.1.name", "\"balanced\"", ERROR_INVALID, "balanced stands twice"},
        {"operating_points.1.class", "\"FLU\"", ERROR_INVALID, "\"FLU\", which is no class"},
        {"operating_points", "[1]", ERROR_FORMAT, "operating_points"},
        {"metrics.0.value", "1e300", ERROR_INVALID, "metrics 1: value"},
        {"intended_use.age_min_years", "7", ERROR_INVALID, "age_min_years is above"},
        {"intended_use.age_max_years", "200", ERROR_INVALID, "age_max_years"},
        {"data_digest", "\"abc\"", ERROR_INVALID, "data_digest: expected 64"},
        {"weights_digest", "\"ZZ\"", ERROR_INVALID, "weights_digest"},
        {"training.seed", "-1", ERROR_INVALID, "training: seed"},
        {"training.run_name", "\"a\\u0007\"", ERROR_INVALID, "run_name"},
        {"training", NULL, ERROR_FORMAT, "training: missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err = {0};
        bool ok = parse_changed(cases[i].path, cases[i].value, &err);
        if (ok || err.code != cases[i].code || !strstr(err.message, cases[i].what))
            fail_msg("case %zu (%s): %d, %s", i, cases[i].path, err.code, err.message);
    }
}

static void keys_of_later_programs_are_ignored(void **state) {
    (void)state;
    struct error err = {0};
    assert_true(parse_changed("something_new", "[1, {\"a\": 2}]", &err));
}

static void what_is_no_manifest_is_refused(void **state) {
    (void)state;
    static const char *const texts[] = {"", "[]", "{", "{\"format\":1,\"format\":1}", "nul", "{}", "\xff"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct manifest out;
        struct error err = {0};
        assert_false(manifest_parse(texts[i], strlen(texts[i]), &out, &err));
        assert_int_equal(err.code, ERROR_FORMAT);
    }
    char *large = calloc(1, MANIFEST_MAX_BYTES + 2);
    struct manifest out;
    struct error err;
    memset(large, ' ', MANIFEST_MAX_BYTES + 1);
    assert_false(manifest_parse(large, MANIFEST_MAX_BYTES + 1, &out, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
    free(large);
}

static void values_that_are_not_finite_are_not_written(void **state) {
    (void)state;
    struct manifest manifest = sample_manifest();
    manifest.temperature = NAN;
    assert_null(manifest_print(&manifest, 0, NULL));
    manifest = sample_manifest();
    manifest.intended_use.age_max_years = INFINITY;
    assert_null(manifest_print(&manifest, 0, NULL));
    manifest = sample_manifest();
    manifest.preprocessing = "{\"a\":1,\"a\":2}";
    assert_null(manifest_print(&manifest, 0, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_survives_a_round_trip),
        cmocka_unit_test(precision_and_quantisation_survive_a_round_trip),
        cmocka_unit_test(files_of_format_1_are_f32),
        cmocka_unit_test(the_recipe_is_kept_with_its_values),
        cmocka_unit_test(lookups_find_by_name),
        cmocka_unit_test(bad_values_are_refused_by_name),
        cmocka_unit_test(keys_of_later_programs_are_ignored),
        cmocka_unit_test(what_is_no_manifest_is_refused),
        cmocka_unit_test(values_that_are_not_finite_are_not_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
