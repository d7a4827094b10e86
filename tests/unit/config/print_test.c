#include "tests/unit/config/example.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char *printed(void (*print)(const struct schema *, FILE *)) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    print(&example_schema, out);
    fclose(out);
    return text;
}

static char *printed_values(const struct example *example) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    schema_print_yaml(&example_schema, example, out);
    fclose(out);
    return text;
}

static void help_tells_all_of_a_key(void **state) {
    (void)state;
    char *text = printed(schema_print_help);
    assert_non_null(
        strstr(text, "  train.batch_size  (int, images, 1..4096, default 64)\n      a | in the help\n"));
    assert_non_null(strstr(text, "  train.kind  (choice, sgd|adamw, default sgd)\n"));
    assert_non_null(strstr(text, "  run.name  (text, required)\n"));
    for (int i = 0; i < example_schema.row_count; i++)
        assert_non_null(strstr(text, example_schema.rows[i].key));
    assert_non_null(strstr(text, "NAME.strength"));
    free(text);
}

static void markdown_has_a_row_for_each_key(void **state) {
    (void)state;
    char *text = printed(schema_print_markdown);
    assert_non_null(strstr(text, "## train\n\n| key |"));
    assert_non_null(
        strstr(text, "| `train.batch_size` | int, images | `64` | 1..4096 | a \\| in the help |\n"));
    assert_non_null(strstr(text, "| `run.name` | text | required |  | must be given |\n"));
    free(text);
}

static void printed_values_read_back(void **state) {
    (void)state;
    const char *text = "run: {name: \"a: \\\"b\\\"\\n\\\\ #\", folder: 'x$$y ~', seed: -7}\n"
                       "train: {rate: 0.30000000000000004}\nbucket: 3MiB\npatience: 1500ms\n"
                       "classes: {\"odd name\": ['null', 'true'], B: []}\nbetas: [0.1, 0.123456789]\n"
                       "parts: {A: {strength: 0.7}, \"1\": {times: 3}}\n";
    struct config first, second;
    struct example a, b;
    struct error err;
    assert_true(config_parse(&first, text, strlen(text), "a.yaml", &err));
    assert_true(schema_read(&example_schema, &first, &a, &err));
    assert_string_equal(a.run.folder, "x$y ~");
    char *once = printed_values(&a);
    assert_true(config_parse(&second, once, strlen(once), "b.yaml", &err));
    assert_true(schema_read(&example_schema, &second, &b, &err));
    assert_string_equal(b.run.name, a.run.name);
    assert_string_equal(b.run.folder, a.run.folder);
    assert_true(b.train.rate == a.train.rate);
    assert_int_equal(b.bucket, 3 << 20);
    assert_int_equal(b.patience_ms, 1500);
    assert_string_equal(b.classes.items[0].list.items[0], "null");
    assert_true(((const struct example_part *)b.parts.entries)[0].strength == 0.7f);
    assert_int_equal(((const struct example_part *)b.parts.entries)[1].times, 3);
    char *twice = printed_values(&b);
    assert_string_equal(once, twice);
    free(once);
    free(twice);
    config_fini(&first);
    config_fini(&second);
}

static void numbers_are_printed_as_people_write_them(void **state) {
    (void)state;
    struct config config;
    struct example example;
    struct error err;
    assert_true(config_parse(&config, "run: {name: x}", 14, "a.yaml", &err));
    assert_true(schema_read(&example_schema, &config, &example, &err));
    char *text = printed_values(&example);
    assert_non_null(
        strstr(text, "train:\n  epochs: 10\n  batch_size: 64\n  rate: 0.1\n  kind: sgd\nrun:\n  name: x\n"));
    assert_non_null(
        strstr(text, "bucket: 25MB\npatience: 30s\nviews: [AP]\nbetas: [0.9, 0.999]\nclasses: {}\n"));
    assert_non_null(strstr(text, "parts: {}\n"));
    free(text);
    config_fini(&config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_tells_all_of_a_key),
        cmocka_unit_test(markdown_has_a_row_for_each_key),
        cmocka_unit_test(printed_values_read_back),
        cmocka_unit_test(numbers_are_printed_as_people_write_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
