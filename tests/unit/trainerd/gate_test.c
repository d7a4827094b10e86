#include "trainerd/gate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct registry_metric stable_metrics[] = {
    {"auc", "chest", "validation", .97},
    {"recall.NORMAL", "chest", "validation", .9},
    {"log_loss", "chest", "validation", .2},
    {"recall.NORMAL", "chest", "test", .8},
};
static const struct gate_figures stable = {stable_metrics, 4};

static struct gate_rule rule(const char *text) {
    struct gate_rule rule;
    struct error err = {0};
    if (!gate_parse(text, &rule, &err))
        fail_msg("%s", err.message);
    return rule;
}

/** What a model with this one figure is told. */
static const char *judged(const char *text, struct registry_metric metric) {
    static char out[REGISTRY_TEXT_SIZE];
    struct gate_rule rules[] = {rule(text)};
    gate_judge(rules, 1, &(struct gate_figures){&metric, 1}, &stable, out);
    return out;
}

static void rules_are_read(void **state) {
    (void)state;
    struct gate_rule read = rule("recall.NORMAL on test within 0.02");
    assert_string_equal(read.metric, "recall.NORMAL");
    assert_string_equal(read.split, "test");
    assert_true(read.tolerance == .02);
    read = rule("  auc   within 0 ");
    assert_string_equal(read.split, "validation");
    assert_true(read.tolerance == 0);
}

static void what_is_no_rule_is_refused(void **state) {
    (void)state;
    static const char *const broken[] = {"",
                                         "auc",
                                         "auc within",
                                         "auc within -1",
                                         "auc within inf",
                                         "auc within nan",
                                         "auc within 0.1 0.2",
                                         "auc on within 0.1",
                                         "auc on validation 0.1",
                                         "auc >= 0.1"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct gate_rule read;
        struct error err = {0};
        if (gate_parse(broken[i], &read, &err))
            fail_msg("\"%s\" was taken", broken[i]);
        assert_int_equal(err.code, ERROR_INVALID);
    }
    char endless[600];
    memset(endless, 'a', sizeof endless - 1);
    endless[sizeof endless - 1] = '\0';
    assert_false(gate_parse(endless, &(struct gate_rule){0}, NULL));
}

static void worse_by_more_than_the_tolerance_fails(void **state) {
    (void)state;
    assert_string_equal(
        judged("auc within 0.01", (struct registry_metric){"auc", "chest", "validation", .965}), "");
    assert_string_equal(
        judged("auc within 0.01", (struct registry_metric){"auc", "chest", "validation", .99}), "");
    const char *reason =
        judged("auc within 0.01", (struct registry_metric){"auc", "chest", "validation", .95});
    assert_non_null(strstr(reason, "0.9500"));
    assert_non_null(strstr(reason, "0.9700"));
    assert_non_null(strstr(reason, "0.01"));
}

static void a_loss_of_just_the_tolerance_is_within_it(void **state) {
    (void)state;
    struct registry_metric edge = {"recall.NORMAL", "chest", "validation", .89};
    assert_string_equal(judged("recall.NORMAL within 0.01", edge), "");
}

static void of_a_loss_less_is_better(void **state) {
    (void)state;
    assert_string_equal(
        judged("log_loss within 0.05", (struct registry_metric){"log_loss", "chest", "validation", .1}), "");
    assert_string_not_equal(
        judged("log_loss within 0.05", (struct registry_metric){"log_loss", "chest", "validation", .3}), "");
}

static void each_class_and_split_counts_for_itself(void **state) {
    (void)state;
    struct registry_metric metric = {"recall.NORMAL", "chest", "test", .81};
    assert_string_equal(judged("recall.NORMAL on test within 0", metric), "");
    assert_non_null(
        strstr(judged("recall.NORMAL within 0", metric), "the new model says nothing of recall.NORMAL"));
}

static void no_comparison_is_no_pass(void **state) {
    (void)state;
    assert_non_null(
        strstr(judged("auc within 0.01", (struct registry_metric){"auc", "other", "validation", .99}),
               "measured on other"));
    assert_non_null(
        strstr(judged("macro_f1 within 0.01", (struct registry_metric){"macro_f1", "chest", "validation", 1}),
               "the stable model says nothing"));
}

static void all_reasons_are_told(void **state) {
    (void)state;
    char out[REGISTRY_TEXT_SIZE];
    struct gate_rule rules[] = {rule("auc within 0"), rule("log_loss within 0"),
                                rule("recall.NORMAL within 1")};
    struct registry_metric fresh[] = {{"auc", "chest", "validation", .1},
                                      {"log_loss", "chest", "validation", 9},
                                      {"recall.NORMAL", "chest", "validation", 0}};
    gate_judge(rules, 3, &(struct gate_figures){fresh, 3}, &stable, out);
    assert_non_null(strstr(out, "auc"));
    assert_non_null(strstr(out, "log_loss"));
    assert_null(strstr(out, "recall"));
    struct gate_rule many[GATE_MAX_RULES];
    for (int i = 0; i < GATE_MAX_RULES; i++)
        many[i] = rule("auc within 0");
    gate_judge(many, GATE_MAX_RULES, &(struct gate_figures){fresh, 3}, &stable, out);
    assert_int_equal(strlen(out), REGISTRY_TEXT_SIZE - 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_are_read),
        cmocka_unit_test(what_is_no_rule_is_refused),
        cmocka_unit_test(worse_by_more_than_the_tolerance_fails),
        cmocka_unit_test(a_loss_of_just_the_tolerance_is_within_it),
        cmocka_unit_test(of_a_loss_less_is_better),
        cmocka_unit_test(each_class_and_split_counts_for_itself),
        cmocka_unit_test(no_comparison_is_no_pass),
        cmocka_unit_test(all_reasons_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
