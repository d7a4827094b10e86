/* Any bytes as a rule of the gate: reading them ends, cleanly, in a whole rule that reads back, or in an error. */
#include "trainerd/gate.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_word(const char *text) {
    return *text && strnlen(text, REGISTRY_BY_SIZE) < REGISTRY_BY_SIZE && strcspn(text, " \t") == strlen(text);
}

static void check_reads_back(const struct gate_rule *rule) {
    char text[2 * REGISTRY_BY_SIZE + 64];
    struct gate_rule again;
    struct error err;
    if (!is_word(rule->metric) || !is_word(rule->split) || !isfinite(rule->tolerance) || rule->tolerance < 0)
        abort();
    snprintf(text, sizeof text, "%s on %s within %.17g", rule->metric, rule->split, rule->tolerance);
    if (!gate_parse(text, &again, &err) || strcmp(again.metric, rule->metric) != 0 ||
        strcmp(again.split, rule->split) != 0 || again.tolerance != rule->tolerance)
        abort();
}

/** A model is never worse than itself, and one that says nothing never passes. */
static void check_judges(const struct gate_rule *rule) {
    struct registry_metric metric = {.data_set = "data", .value = .5};
    char against[REGISTRY_TEXT_SIZE];
    memcpy(metric.name, rule->metric, sizeof metric.name);
    memcpy(metric.split, rule->split, sizeof metric.split);
    struct gate_figures figures = {&metric, 1}, nothing = {NULL, 0};
    gate_judge(rule, 1, &figures, &figures, against);
    if (against[0])
        abort();
    gate_judge(rule, 1, &nothing, &figures, against);
    if (!against[0])
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct gate_rule rule;
    struct error err;
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    if (gate_parse(text, &rule, &err)) {
        check_reads_back(&rule);
        check_judges(&rule);
    }
    free(text);
    return 0;
}
