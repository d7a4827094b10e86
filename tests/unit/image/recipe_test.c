#include "common/image/recipe.h"

#include "tests/unit/image/support.h"

#include <math.h>

static const char GOOD[] =
    "{\"version\":1,\"width\":224,\"height\":192,\"channels\":1,\"resize\":\"squash_triangle\","
    "\"mean\":[0.5],\"stddev\":[0.25]}";

static void test_reads_what_it_should(void **state) {
    (void)state;
    struct recipe recipe;
    assert_true(recipe_parse(GOOD, strlen(GOOD), &recipe, NULL));
    assert_int_equal(recipe.width, 224);
    assert_int_equal(recipe.height, 192);
    assert_int_equal(recipe.channels, 1);
    assert_true(recipe.mean[0] == 0.5f && recipe.stddev[0] == 0.25f);
}

/* Whatever floats a recipe has, its JSON gives the same bits back. */
static void test_print_and_parse_are_inverse(void **state) {
    (void)state;
    struct recipe recipe = recipe_default(28, 512, 3), again;
    recipe.mean[0] = 127.0f / 255.0f;
    recipe.mean[1] = -0.1f;
    recipe.mean[2] = nextafterf(0.3f, 1);
    recipe.stddev[0] = 128.0f / 255.0f;
    recipe.stddev[1] = 1.0f / 256;
    char json[RECIPE_JSON_SIZE];
    assert_true(recipe_print(&recipe, json, sizeof json, NULL));
    assert_true(recipe_parse(json, strlen(json), &again, NULL));
    assert_memory_equal(again.mean, recipe.mean, sizeof recipe.mean);
    assert_memory_equal(again.stddev, recipe.stddev, sizeof recipe.stddev);
    assert_true(recipe_equal(&recipe, &again));
    again.mean[2] = 0.3f;
    assert_false(recipe_equal(&recipe, &again));
}

static void test_refuses(void **state) {
    (void)state;
#define REST "\"resize\":\"squash_triangle\",\"mean\":[0.5],\"stddev\":[0.25]}"
    static const struct {
        const char *json;
        enum error_code code;
        const char *says;
    } cases[] = {
        {"", ERROR_FORMAT, "recipe"},
        {"[]", ERROR_FORMAT, "object"},
        {"{\"version\":1", ERROR_FORMAT, "recipe"},
        {"{}", ERROR_FORMAT, "version"},
        {"{\"version\":2}", ERROR_UNSUPPORTED, "version"},
        {"{\"version\":1,\"version\":1,\"width\":28,\"height\":28,\"channels\":1," REST, ERROR_FORMAT,
         "duplicate"},
        {"{\"version\":1,\"width\":28,\"height\":28,\"channels\":1,\"crop\":1," REST, ERROR_UNSUPPORTED,
         "crop"},
        {"{\"version\":1,\"width\":27,\"height\":28,\"channels\":1," REST, ERROR_INVALID, "width"},
        {"{\"version\":1,\"width\":28,\"height\":513,\"channels\":1," REST, ERROR_INVALID, "height"},
        {"{\"version\":1,\"width\":4294967324,\"height\":28,\"channels\":1," REST, ERROR_INVALID, "width"},
        {"{\"version\":1,\"width\":28.0,\"height\":28,\"channels\":1," REST, ERROR_FORMAT, "width"},
        {"{\"version\":1,\"height\":28,\"channels\":1," REST, ERROR_FORMAT, "width"},
        {"{\"version\":1,\"width\":28,\"height\":28,\"channels\":2," REST, ERROR_INVALID, "channels"},
        {"{\"version\":1,\"width\":28,\"height\":28,\"channels\":3," REST, ERROR_FORMAT, "mean"},
        {"{\"version\":1,\"width\":28,\"height\":28,\"channels\":1,\"resize\":\"crop\",\"mean\":[0],"
         "\"stddev\":[1]}",
         ERROR_UNSUPPORTED, "resize"},
        {"{\"version\":1,\"width\":28,\"height\":28,\"channels\":1,\"resize\":\"squash_triangle\",\"mean\":["
         "0],"
         "\"stddev\":[0]}",
         ERROR_INVALID, "stddev"},
        {"{\"version\":1,\"width\":28,\"height\":28,\"channels\":1,\"resize\":\"squash_triangle\",\"mean\":["
         "1e300],"
         "\"stddev\":[1]}",
         ERROR_INVALID, "mean"},
        {"{\"version\":1,\"width\":28,\"height\":28,\"channels\":1,\"resize\":\"squash_triangle\",\"mean\":["
         "\"0\"],"
         "\"stddev\":[1]}",
         ERROR_FORMAT, "mean"},
    };
#undef REST
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct recipe recipe = {.width = -7};
        struct error err = {0};
        if (recipe_parse(cases[i].json, strlen(cases[i].json), &recipe, &err))
            fail_msg("taken: %s", cases[i].json);
        if (err.code != cases[i].code || !strstr(err.message, cases[i].says))
            fail_msg("%s: %s (%s)", cases[i].json, err.message, error_code_name(err.code));
        assert_int_equal(recipe.width, -7);
    }
}

static void test_refuses_what_is_too_long(void **state) {
    (void)state;
    static char spaces[1 << 16];
    memset(spaces, ' ', sizeof spaces);
    struct recipe recipe;
    struct error err = {0};
    assert_false(recipe_parse(spaces, sizeof spaces, &recipe, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
}

static void test_print_wants_room(void **state) {
    (void)state;
    struct recipe recipe = recipe_default(224, 224, 3);
    char small[40];
    struct error err = {0};
    assert_false(recipe_print(&recipe, small, sizeof small, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
}

static void test_defaults_pass_their_check(void **state) {
    (void)state;
    struct recipe grey = recipe_default(224, 224, 1), colour = recipe_default(28, 512, 3);
    assert_true(recipe_check(&grey, NULL));
    assert_true(recipe_check(&colour, NULL));
    grey.stddev[0] = NAN;
    assert_false(recipe_check(&grey, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_what_it_should),
        cmocka_unit_test(test_print_and_parse_are_inverse),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_refuses_what_is_too_long),
        cmocka_unit_test(test_print_wants_room),
        cmocka_unit_test(test_defaults_pass_their_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
