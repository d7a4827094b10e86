#include "inferd/config.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

/** Reads a text; false with the first problem in err. */
static bool read_text(const char *text, const char *model_file, struct inferd_config *out,
                      struct error *err) {
    struct config config;
    if (!config_parse(&config, text, strlen(text), "test", err)) {
        return false;
    }
    bool ok = inferd_config_read(&config, model_file, out, err);
    bool follows = out->follows;
    config_fini(&config);
    memset(out, 0, sizeof *out); /* its strings are gone */
    out->follows = follows;
    return ok;
}

static void every_example_can_be_used(void **state) {
    (void)state;
    static const char *const files[] = {"configs/inferd/member.yaml", "configs/inferd/standalone.yaml",
                                        "configs/inferd/router.yaml"};
    for (int i = 0; i < 3; i++) {
        struct config config;
        struct inferd_config values;
        struct error err = {0};
        if (!config_load(&config, files[i], &err) || !inferd_config_read(&config, NULL, &values, &err)) {
            fail_msg("%s", err.message);
        }
        assert_int_equal(values.follows, i == 0);
        assert_int_equal(values.routes, i == 2);
        config_fini(&config);
    }
}

static void a_model_file_or_a_publisher_is_needed(void **state) {
    (void)state;
    struct inferd_config out;
    struct error err = {0};
    assert_false(read_text("member: a", NULL, &out, &err));
    assert_non_null(strstr(err.message, "model.file"));
    assert_true(read_text("member: a", "m.safetensors", &out, &err));
    assert_true(read_text("publisher: {}", NULL, &out, &err) && out.follows);
}

static void a_router_needs_members_and_no_model(void **state) {
    (void)state;
    struct inferd_config out;
    struct error err = {0};
    assert_false(read_text("role: router", NULL, &out, &err));
    assert_non_null(strstr(err.message, "router.members"));
    assert_true(read_text("role: router\nrouter: {members: ['tcp://127.0.0.1:1']}", NULL, &out, &err));
    assert_false(read_text("role: judge", "m.safetensors", &out, &err));
}

static void a_model_file_stands_above_a_publisher(void **state) {
    (void)state;
    struct inferd_config out;
    assert_true(read_text("publisher: {}", "m.safetensors", &out, NULL));
    assert_false(out.follows);
}

static void what_makes_no_sense_is_named(void **state) {
    (void)state;
    static const struct {
        const char *text, *word;
    } rows[] = {
        {"member: 'a b'", "member"},
        {"member: \"a\\n\"", "member"},
        {"server: {bind: []}", "server.bind"},
        {"server: {default_timeout: 10min}", "server.default_timeout"},
        {"server: {queue: 0}", "server.queue"},
        {"batch: {max: 65}", "batch.max"},
        {"batch: {maximum: 6}", "maximum"},
        {"log: {style: xml}", "log.style"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct inferd_config out;
        struct error err = {0};
        if (read_text(rows[i].text, "m", &out, &err) || !strstr(err.message, rows[i].word)) {
            fail_msg("%s: %s", rows[i].text, err.message);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_example_can_be_used),
        cmocka_unit_test(a_model_file_or_a_publisher_is_needed),
        cmocka_unit_test(a_router_needs_members_and_no_model),
        cmocka_unit_test(a_model_file_stands_above_a_publisher),
        cmocka_unit_test(what_makes_no_sense_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
