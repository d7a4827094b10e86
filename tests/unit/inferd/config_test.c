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
                                        "configs/inferd/router.yaml", "configs/inferd/router-secure.yaml",
                                        "configs/inferd/member-secure.yaml"};
    for (int i = 0; i < 5; i++) {
        struct config config;
        struct inferd_config values;
        struct error err = {0};
        if (!config_load(&config, files[i], &err) || !inferd_config_read(&config, NULL, &values, &err)) {
            fail_msg("%s", err.message);
        }
        assert_int_equal(values.follows, i == 0 || i == 4);
        assert_int_equal(values.routes, i == 2 || i == 3);
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
        {"device: {instances: -1}", "device.instances"},
        {"device: {index: 1}", "device.index"},
        {"device: {instances: 65}", "device.instances"},
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

static void keys_and_lists_go_together(void **state) {
    (void)state;
    static const struct {
        const char *text, *word;
    } wrong[] = {
        {"security: {allow: list}", "security.allow: an allow-list needs security.key"},
        {"security: {key: own.key}", "security.key: tcp://127.0.0.1:5700 is bound"},
        {"publisher: {server_key: its.pub}", "publisher.server_key: it needs security.key"},
        {"security: {key: own.key, allow: list}\npublisher: {}", "publisher.server_key: missing"},
        {"role: router\nrouter: {members: ['tcp://127.0.0.1:1'], server_keys: [a]}", "router.server_keys: it needs"},
        {"role: router\nsecurity: {key: k, allow: l}\nrouter: {members: ['tcp://127.0.0.1:1']}",
         "router.server_keys: missing"},
        {"role: router\nsecurity: {key: k, allow: l}\nrouter: {members: ['tcp://a:1', 'tcp://a:2', 'tcp://a:3'], "
         "server_keys: [a, b]}",
         "2 keys for 3 members"},
        {"server: {allow_cleartext_remote: true}", "server.allow_cleartext_remote: unknown key"},
    };
    static const char *const right[] = {
        "security: {key: own.key}\nserver: {bind: ['ipc:///tmp/a']}",
        "security: {key: own.key, allow: list}\npublisher: {server_key: its.pub}",
        ("security: {key: own.key, allow: list}\n"
         "publisher: {announce: 'ipc:///tmp/a', control: 'ipc:///tmp/b', blobs: 'ipc:///tmp/c'}"),
        "role: router\nsecurity: {key: k, allow: l}\nrouter: {members: ['tcp://a:1', 'tcp://a:2'], server_keys: [a]}",
        "role: router\nsecurity: {key: k, allow: l}\nrouter: {members: ['tcp://a:1', 'tcp://a:2'], server_keys: [a, b]}",
        "security: {insecure: true}",
    };
    struct inferd_config out;
    struct error err = {0};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *model = strstr(wrong[i].text, "publisher: {}") ? NULL : "m";
        if (read_text(wrong[i].text, model, &out, &err) || !strstr(err.message, wrong[i].word)) {
            fail_msg("%s: %s", wrong[i].text, err.message);
        }
    }
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        const char *model = strstr(right[i], "publisher: {") ? NULL : "m";
        if (!read_text(right[i], model, &out, &err)) {
            fail_msg("%s: %s", right[i], err.message);
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
        cmocka_unit_test(keys_and_lists_go_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
