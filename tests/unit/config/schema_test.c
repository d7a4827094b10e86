#include "tests/unit/config/example.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static bool read_text(struct config *config, const char *text, struct example *out, struct error *err) {
    assert_true(config_parse(config, text, strlen(text), "a.yaml", err));
    return schema_read(&example_schema, config, out, err);
}

/** The one problem that reading the text finds. The config is the caller's to finish. */
static const char *only_problem(struct config *config, const char *text) {
    struct example example;
    struct error err;
    assert_false(read_text(config, text, &example, &err));
    if (config->problem_count != 1)
        config_print_problems(config, stderr);
    assert_int_equal(config->problem_count, 1);
    assert_string_equal(err.message, config->first_problem->text);
    return config->first_problem->text;
}

static void defaults_fill_what_is_not_given(void **state) {
    (void)state;
    struct config config;
    struct example example;
    struct error err;
    assert_true(read_text(&config, "run: {name: first}\n", &example, &err));
    assert_int_equal(example.train.epochs, 10);
    assert_true(example.train.rate == 0.1);
    assert_int_equal(example.train.kind, EXAMPLE_SGD);
    assert_string_equal(example.run.folder, "runs");
    assert_false(example.run.loud);
    assert_int_equal(example.bucket, 25000000);
    assert_int_equal(example.patience_ms, 30000);
    assert_int_equal(example.views.count, 1);
    assert_string_equal(example.views.items[0], "AP");
    assert_int_equal(example.betas.count, 2);
    assert_true(example.betas.items[1] == 0.999);
    assert_int_equal(example.classes.count, 0);
    assert_int_equal(example.parts.count, 0);
    config_fini(&config);
}

static void values_of_every_type_are_read(void **state) {
    (void)state;
    struct config config;
    struct example example;
    struct error err;
    const char *text = "train: {epochs: 3, rate: 1e-3, kind: adamw}\n"
                       "run:\n  name: NO\n  seed: 9223372036854775807\n  loud: true\n"
                       "bucket: 1.5KiB\npatience: 2min\nviews: [PA, LL]\nbetas: [0, 1]\n"
                       "classes:\n  NORMAL: [a, b]\n  INVALID: c\n";
    assert_true(read_text(&config, text, &example, &err));
    assert_int_equal(example.train.epochs, 3);
    assert_true(example.train.rate == 0.001);
    assert_int_equal(example.train.kind, EXAMPLE_ADAMW);
    assert_string_equal(example.run.name, "NO");
    assert_true(example.run.seed == INT64_MAX);
    assert_true(example.run.loud);
    assert_int_equal(example.bucket, 1536);
    assert_int_equal(example.patience_ms, 120000);
    assert_string_equal(example.views.items[1], "LL");
    assert_true(example.betas.items[0] == 0.0 && example.betas.items[1] == 1.0);
    assert_int_equal(example.classes.count, 2);
    assert_string_equal(example.classes.items[0].list.items[1], "b");
    assert_string_equal(example.classes.items[1].name, "INVALID");
    assert_int_equal(example.classes.items[1].list.count, 1);
    config_fini(&config);
}

static void each_mistake_is_told_with_its_place(void **state) {
    (void)state;
    static const struct {
        const char *text, *problem;
    } cases[] = {
        {"run: {name: x}\ntrain:\n  epochs: many\n",
         "a.yaml:3:3: train.epochs: expected a whole number in 1..1000, found \"many\""},
        {"run: {name: x}\ntrain: {epochs: 0}\n",
         "a.yaml:2:9: train.epochs: expected a whole number in 1..1000, found \"0\""},
        {"run: {name: x}\ntrain: {epochs: 1.5}\n", "expected a whole number in 1..1000, found \"1.5\""},
        {"run: {name: x}\ntrain: {epochs: }\n", "found nothing"},
        {"run: {name: x}\ntrain: {epochs: [1]}\n", "found a list"},
        {"run: {name: x}\ntrain: {epochs: 99999999999999999999}\n", "expected a whole number"},
        {"run: {name: x}\ntrain: {rate: .nan}\n", "expected a number in 1e-09..10, found \".nan\""},
        {"run: {name: x}\ntrain: {rate: 0x1p-1}\n", "expected a number"},
        {"run: {name: x}\ntrain: {rate: inf}\n", "expected a number"},
        {"run: {name: x}\ntrain: {kind: adamv}\n",
         "expected one of sgd, adamw, found \"adamv\"; did you mean adamw?"},
        {"run: {name: x, loud: yes}\n", "expected true or false, found \"yes\""},
        {"run: {name: x}\nbucket: 5 parsecs\n", "a size such as"},
        {"run: {name: x}\nbucket: -5\n", "a size such as"},
        {"run: {name: x}\nbucket: 1.0001KiB\n", "a size such as"},
        {"run: {name: x}\npatience: 5\n",
         "a duration such as 250ms, 30s, 5min or 2h in 10..3600000 ms, found \"5\""},
        {"run: {name: x}\npatience: 5ms\n", "in 10..3600000 ms"},
        {"run: {name: x}\nviews: [AP, XX]\n", "found \"XX\""},
        {"run: {name: x}\nviews: {a: b}\n", "found a mapping"},
        {"run: {name: x}\nbetas: [0.9]\n", "2 of them, found a list"},
        {"run: {name: x}\nbetas: [0.9, 2]\n", "found \"2\""},
        {"run: {name: x}\nclasses: [a]\n", "expected names with lists"},
        {"run: {name: x}\nclasses: {A: {b: c}}\n", "found a mapping"},
        {"run: {name: x}\ntrain: 5\n", "a.yaml:2:1: train: expected a section with keys, found text"},
        {"run: {name: x}\nparts: {A: 5}\n", "a.yaml:2:9: parts.A: expected a section"},
        {"run: {name: x}\nparts: {A: {strength: 7}}\n",
         "a.yaml:2:13: parts.A.strength: expected a number in 0..1, found \"7\""},
        {"run: {folder: x}\n", "a.yaml: run.name: missing; it must be given"},
        {"run: {name: }\n", "a.yaml:1:7: run.name: expected text"},
        {"run: {name: x, folder: $THORAX_NOT_SET/x}\n",
         "a.yaml:1:16: run.folder: the environment variable THORAX_NOT_SET is not set"},
        {"run: {name: x, folder: '${HOME'}\n", "does not end as ${NAME}"},
        {"run: {name: x, folder: 'a$'}\n", "without the name of a variable"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config config;
        const char *problem = only_problem(&config, cases[i].text);
        if (!strstr(problem, cases[i].problem))
            fail_msg("case %zu: %s", i, problem);
        config_fini(&config);
    }
}

static void unknown_keys_are_told_with_the_nearest_known(void **state) {
    (void)state;
    static const struct {
        const char *text, *problem;
    } cases[] = {
        {"run: {name: x}\ntrain: {epoch: 1}\n",
         "a.yaml:2:9: train.epoch: unknown key; did you mean train.epochs?"},
        {"run: {name: x}\ntrain: {batchsize: 1}\n", "did you mean train.batch_size?"},
        {"run: {name: x}\ntrian: {epochs: 1}\n", "a.yaml:2:1: trian: unknown key; did you mean train?"},
        {"run: {name: x}\ntrain: {seed: 1}\n", "train.seed: unknown key; did you mean run.seed?"},
        {"run: {name: x}\nepochs: 1\n", "epochs: unknown key; did you mean train.epochs?"},
        {"run: {name: x}\nparts: {A: {strenght: 1}}\n",
         "parts.A.strenght: unknown key; did you mean parts.A.strength?"},
        {"run: {name: x}\nzebra: 1\n", "a.yaml:2:1: zebra: unknown key"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config config;
        const char *problem = only_problem(&config, cases[i].text);
        if (!strstr(problem, cases[i].problem))
            fail_msg("case %zu: %s", i, problem);
        config_fini(&config);
    }
}

static void all_mistakes_are_told_at_once(void **state) {
    (void)state;
    struct config config;
    struct example example;
    struct error err;
    assert_false(
        read_text(&config, "train: {epochs: x, rate: -1, color: red}\nrun: {loud: 1}\n", &example, &err));
    assert_int_equal(config.problem_count, 5); /* and run.name is missing */
    assert_non_null(strstr(err.message, "5 problems; the first: a.yaml:1:"));
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    config_print_problems(&config, out);
    fclose(out);
    int lines = 0;
    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    assert_int_equal(lines, 5);
    free(text);
    assert_int_equal(example.train.epochs, 10); /* still usable for further checks */
    assert_string_equal(example.run.name, "");
    config_fini(&config);
}

static void sections_of_a_table_start_from_their_base(void **state) {
    (void)state;
    struct config config;
    struct example example;
    struct error err;
    assert_true(read_text(&config, "run: {name: x}\npart: {times: 7}\nparts:\n  A: {strength: 0.25}\n  B:\n",
                          &example, &err));
    assert_int_equal(example.parts.count, 2);
    const struct example_part *parts = example.parts.entries;
    assert_string_equal(example.parts.names[0], "A");
    assert_true(parts[0].strength == 0.25f);
    assert_int_equal(parts[0].times, 7);
    assert_true(parts[1].strength == 0.5f);
    config_fini(&config);
}

static void set_replaces_values(void **state) {
    (void)state;
    struct config config;
    struct example example;
    struct error err;
    const char *text = "run: {name: x, loud: false}\nviews: [AP]\n";
    assert_true(config_parse(&config, text, strlen(text), "a.yaml", &err));
    assert_true(config_set(&config, "run.loud=true", &err));
    assert_true(config_set(&config, "train.epochs=2", &err));
    assert_true(config_set(&config, "train.epochs=3", &err));
    assert_true(config_set(&config, "views=[PA, LL]", &err));
    assert_true(config_set(&config, "parts.A.times=9", &err));
    assert_true(config_set(&config, "run.name=a=b", &err));
    assert_true(schema_read(&example_schema, &config, &example, &err));
    assert_true(example.run.loud);
    assert_int_equal(example.train.epochs, 3);
    assert_int_equal(example.views.count, 2);
    assert_int_equal(((const struct example_part *)example.parts.entries)[0].times, 9);
    assert_string_equal(example.run.name, "a=b");
    config_fini(&config);
}

static void set_is_named_in_messages(void **state) {
    (void)state;
    struct config config;
    struct example example;
    struct error err;
    const char *text = "run: {name: x}\n";
    assert_true(config_parse(&config, text, strlen(text), "a.yaml", &err));
    assert_true(config_set(&config, "train.epochs=none", &err));
    assert_true(config_set(&config, "train.epoch=1", &err));
    assert_false(schema_read(&example_schema, &config, &example, &err));
    assert_string_equal(config.first_problem->text,
                        "--set train.epoch: unknown key; did you mean train.epochs?");
    assert_string_equal(config.last_problem->text,
                        "--set train.epochs: expected a whole number in 1..1000, found \"none\"");
    static const char *const broken[] = {"train.epochs", "=1",           ".a=1", "a..b=1",
                                         "a.=1",         "run.name.x=1", "a={",  "a=&b c"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        assert_false(config_set(&config, broken[i], &err));
        assert_non_null(strstr(err.message, "--set"));
    }
    config_fini(&config);
}

static void checks_of_the_caller_point_at_the_key(void **state) {
    (void)state;
    struct config config;
    struct example example;
    struct error err;
    assert_true(read_text(&config, "run: {name: x}\ntrain:\n  epochs: 3\n", &example, &err));
    assert_true(config_has(&config, "train"));
    assert_false(config_has(&config, "part"));
    assert_true(config_ok(&config, &err));
    config_problem(&config, "train.epochs", "needs at least %d", 4);
    assert_false(config_ok(&config, &err));
    assert_string_equal(err.message, "a.yaml:3:3: train.epochs: needs at least 4");
    config_problem(&config, "part.times", "x");
    assert_string_equal(config.last_problem->text, "a.yaml: part.times: x");
    config_fini(&config);
}

static void variables_are_expanded_in_paths(void **state) {
    (void)state;
    assert_int_equal(setenv("THORAX_TEST_DIR", "/data/x", 1), 0);
    assert_int_equal(setenv("HOME", "/home/me", 1), 0);
    unsetenv("THORAX_NOT_SET");
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"$THORAX_TEST_DIR/a", "/data/x/a"},
        {"'${THORAX_TEST_DIR}y'", "/data/xy"},
        {"'${THORAX_NOT_SET:-/tmp/z}/c'", "/tmp/z/c"},
        {"'${THORAX_TEST_DIR:-no}'", "/data/x"},
        {"~/a", "/home/me/a"},
        {"a$$b", "a$b"},
        {"a~b", "a~b"},
        {"\"\"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config config;
        struct example example;
        struct error err;
        char text[200];
        snprintf(text, sizeof text, "run: {name: $HOME}\n");
        assert_true(config_parse(&config, text, strlen(text), "a.yaml", &err));
        snprintf(text, sizeof text, "run.folder=%s", cases[i].text);
        assert_true(config_set(&config, text, &err));
        assert_true(schema_read(&example_schema, &config, &example, &err));
        assert_string_equal(example.run.folder, cases[i].expected);
        assert_string_equal(example.run.name, "$HOME"); /* only paths */
        config_fini(&config);
    }
}

static void text_of_the_file_cannot_steer_a_terminal(void **state) {
    (void)state;
    struct config config;
    const char *problem = only_problem(&config, "run: {name: x}\n\"\\e[2Jx\": 1\n");
    assert_null(strchr(problem, '\x1b'));
    config_fini(&config);
}

static void a_flood_of_mistakes_is_cut_short(void **state) {
    (void)state;
    struct config config;
    struct example example;
    struct error err;
    char text[4000] = "run: {name: x}\n", *printed = NULL;
    for (int i = 0; i < 203; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "zz%d: 1\n", i);
    assert_false(read_text(&config, text, &example, &err));
    assert_int_equal(config.problem_count, 203);
    size_t size = 0;
    FILE *out = open_memstream(&printed, &size);
    config_print_problems(&config, out);
    fclose(out);
    assert_non_null(strstr(printed, "zz199: unknown key\n... and 3 more\n"));
    free(printed);
    config_fini(&config);
}

static void a_root_that_is_no_mapping_is_refused(void **state) {
    (void)state;
    struct config config;
    struct error err;
    assert_false(config_parse(&config, "- a\n", 4, "a.yaml", &err));
    assert_non_null(strstr(err.message, "a.yaml:1:1: expected keys and values"));
    assert_true(config_parse(&config, "---\n", 4, "a.yaml", &err)); /* nothing at all is no mistake */
    config_fini(&config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_fill_what_is_not_given),
        cmocka_unit_test(values_of_every_type_are_read),
        cmocka_unit_test(each_mistake_is_told_with_its_place),
        cmocka_unit_test(unknown_keys_are_told_with_the_nearest_known),
        cmocka_unit_test(all_mistakes_are_told_at_once),
        cmocka_unit_test(sections_of_a_table_start_from_their_base),
        cmocka_unit_test(set_replaces_values),
        cmocka_unit_test(set_is_named_in_messages),
        cmocka_unit_test(checks_of_the_caller_point_at_the_key),
        cmocka_unit_test(variables_are_expanded_in_paths),
        cmocka_unit_test(text_of_the_file_cannot_steer_a_terminal),
        cmocka_unit_test(a_flood_of_mistakes_is_cut_short),
        cmocka_unit_test(a_root_that_is_no_mapping_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
