#include "common/config/yaml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct yaml_node *parse(struct arena *arena, const char *text, struct error *err) {
    arena_init(arena, 0);
    return yaml_parse(arena, text, strlen(text), "a.yaml", err);
}

static void tree_keeps_values_and_places(void **state) {
    (void)state;
    struct arena arena;
    struct error err;
    struct yaml_node *root = parse(&arena, "train:\n  epochs: 3\n  views: [AP, 'PA']\n", &err);
    assert_non_null(root);
    const struct yaml_node *epochs = yaml_find_path(root, "train.epochs");
    assert_string_equal(epochs->text, "3");
    assert_int_equal(epochs->line, 2);
    assert_int_equal(epochs->column, 3);
    const struct yaml_node *views = yaml_find_path(root, "train.views");
    assert_int_equal(views->kind, YAML_SEQUENCE);
    assert_int_equal(views->count, 2);
    assert_false(views->first->quoted);
    assert_string_equal(views->last->text, "PA");
    assert_true(views->last->quoted);
    assert_null(yaml_find_path(root, "train.epochs.deeper"));
    arena_fini(&arena);
}

static void empty_text_is_an_empty_mapping(void **state) {
    (void)state;
    static const char *const texts[] = {"", "# only a comment\n"};
    for (size_t i = 0; i < 2; i++) {
        struct arena arena;
        struct yaml_node *root = parse(&arena, texts[i], NULL);
        assert_non_null(root);
        assert_int_equal(root->kind, YAML_MAPPING);
        assert_int_equal(root->count, 0);
        arena_fini(&arena);
    }
}

static void only_plain_words_are_null(void **state) {
    (void)state;
    struct arena arena;
    struct yaml_node *root = parse(&arena, "a:\nb: ~\nc: null\nd: ''\ne: 'null'\nf: none\n", NULL);
    static const bool expected[] = {true, true, true, false, false, false};
    int i = 0;
    for (const struct yaml_node *node = root->first; node; node = node->next)
        assert_int_equal(yaml_is_null(node), expected[i++]);
    assert_int_equal(i, 6);
    arena_fini(&arena);
}

static void bad_text_is_refused_with_its_place(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum error_code code;
        const char *place, *what;
    } cases[] = {
        {"a: 1\nb: 2\na: 3\n", ERROR_FORMAT, "a.yaml:3:1:", "twice; first in line 1"},
        {"x: {k: 1, k: 2}\n", ERROR_FORMAT, "a.yaml:1:11:", "twice"},
        {"a: &one 1\n", ERROR_UNSUPPORTED, "a.yaml:1:4:", "anchors"},
        {"a: &m {b: 1}\n", ERROR_UNSUPPORTED, "a.yaml:1:4:", "anchors"},
        {"a: *one\n", ERROR_UNSUPPORTED, "a.yaml:1:4:", "aliases"},
        {"a: !!int 3\n", ERROR_UNSUPPORTED, "a.yaml:1:4:", "tags"},
        {"a: 1\n---\nb: 2\n", ERROR_UNSUPPORTED, "a.yaml:2:1:", "second document"},
        {"? [a, b]\n: 1\n", ERROR_FORMAT, "a.yaml:1:3:", "key must be plain"},
        {"a: \"x\\0y\"\n", ERROR_FORMAT, "a.yaml:1:4:", "NUL"},
        {"a: [1, 2\nb: 3\n", ERROR_FORMAT, "a.yaml:2:", "expected"},
        {"a:\n\t- 1\n", ERROR_FORMAT, "a.yaml:2:1:", "token"},
        {"a: \xff\xfe\n", ERROR_FORMAT, "a.yaml:", "UTF-8"},
        {"'': 1\n", ERROR_FORMAT, "a.yaml:1:1:", "empty key"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena arena;
        struct error err = {0};
        assert_null(parse(&arena, cases[i].text, &err));
        assert_int_equal(err.code, cases[i].code);
        if (!strstr(err.message, cases[i].place) || !strstr(err.message, cases[i].what))
            fail_msg("case %zu: %s", i, err.message);
        arena_fini(&arena);
    }
}

static void limits_hold(void **state) {
    (void)state;
    struct arena arena;
    struct error err;
    char deep[] = "[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]";
    assert_int_equal(strlen(deep), 2 * (YAML_MAX_DEPTH + 1));
    assert_null(parse(&arena, deep, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
    arena_fini(&arena);
    deep[0] = deep[sizeof deep - 2] = ' ';
    assert_non_null(parse(&arena, deep, &err));
    arena_fini(&arena);

    size_t size = 3 * (size_t)YAML_MAX_NODES;
    char *many = malloc(size + 1);
    for (size_t i = 0; i < size; i += 3)
        memcpy(many + i, "- \n", 4);
    assert_null(parse(&arena, many, &err)); /* the list itself is one value more */
    assert_int_equal(err.code, ERROR_TOO_LARGE);
    arena_fini(&arena);
    free(many);

    char *large = calloc(1, YAML_MAX_BYTES + 1);
    memset(large, '#', YAML_MAX_BYTES + 1);
    arena_init(&arena, 0);
    assert_non_null(yaml_parse(&arena, large, YAML_MAX_BYTES, "a.yaml", &err));
    assert_null(yaml_parse(&arena, large, YAML_MAX_BYTES + 1, "a.yaml", &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
    arena_fini(&arena);
    free(large);
}

static void missing_file_is_named(void **state) {
    (void)state;
    struct arena arena;
    struct error err;
    arena_init(&arena, 0);
    assert_null(yaml_load(&arena, "/nonexistent/thorax.yaml", &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nonexistent/thorax.yaml"));
    arena_fini(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tree_keeps_values_and_places),
        cmocka_unit_test(empty_text_is_an_empty_mapping),
        cmocka_unit_test(only_plain_words_are_null),
        cmocka_unit_test(bad_text_is_refused_with_its_place),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(missing_file_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
