#include "trainerd/gate.h"

#include "common/base/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char default_split[] = "validation";

/* .90 less .89 is a little more than .01 in binary. */
static const double ROUNDING = 1e-9;

/** Figures of which less is better; of all others more is. */
static bool less_is_better(const char *metric) {
    static const char *const names[] = {"log_loss", "loss", "calibration_error", "brier"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t length = strlen(names[i]);
        if (strncmp(metric, names[i], length) == 0 && (metric[length] == '\0' || metric[length] == '.'))
            return true;
    }
    return false;
}

/** The next word of a line, cut off; NULL: there is none. */
static char *next_word(char **rest) {
    char *word;
    do
        word = strsep(rest, " \t");
    while (word && !*word);
    return word;
}

bool gate_parse(const char *text, struct gate_rule *out, struct error *err) {
    char line[256], *rest = line;
    *out = (struct gate_rule){0};
    if (!text_copy(line, sizeof line, text))
        return error_set(err, ERROR_INVALID, "a rule of more than %zu characters", sizeof line - 1);
    char *metric = next_word(&rest), *word = next_word(&rest), *split = (char *)default_split;
    if (word && strcmp(word, "on") == 0) {
        split = next_word(&rest);
        word = next_word(&rest);
    }
    char *tolerance = word && strcmp(word, "within") == 0 ? next_word(&rest) : NULL;
    if (!metric || !split || !tolerance || next_word(&rest))
        return error_set(err, ERROR_INVALID, "\"%.100s\": expected METRIC [on SPLIT] within TOLERANCE", text);
    if (!text_copy(out->metric, sizeof out->metric, metric) ||
        !text_copy(out->split, sizeof out->split, split))
        return error_set(err, ERROR_INVALID, "\"%.100s\": a name is too long", text);
    return (text_to_double(tolerance, &out->tolerance, NULL) && out->tolerance >= 0 &&
            isfinite(out->tolerance)) ||
           error_set(err, ERROR_INVALID, "\"%.100s\": the tolerance is a number from 0", text);
}

/** The rule's figure among a model's; NULL: it has none. */
static const struct registry_metric *find(const struct gate_rule *rule, const struct gate_figures *figures) {
    for (int i = 0; i < figures->count; i++) {
        if (strcmp(figures->metrics[i].name, rule->metric) == 0 &&
            strcmp(figures->metrics[i].split, rule->split) == 0)
            return &figures->metrics[i];
    }
    return NULL;
}

/** What one rule has against the new model; false: nothing. */
static bool against(const struct gate_rule *rule, const struct gate_figures *fresh,
                    const struct gate_figures *stable, char *out, size_t size) {
    const struct registry_metric *mine = find(rule, fresh), *theirs = find(rule, stable);
    if (!mine || !theirs) {
        snprintf(out, size, "the %s model says nothing of %.80s on %.80s", mine ? "stable" : "new",
                 rule->metric, rule->split);
        return true;
    }
    if (strcmp(mine->data_set, theirs->data_set) != 0) {
        snprintf(out, size, "%.80s was measured on %.80s, the stable model's on %.80s", rule->metric,
                 mine->data_set, theirs->data_set);
        return true;
    }
    double worse = less_is_better(rule->metric) ? mine->value - theirs->value : theirs->value - mine->value;
    if (worse <= rule->tolerance + ROUNDING)
        return false;
    snprintf(out, size, "%.80s %.4f (%.60s, %.60s) is worse than the stable model's %.4f by more than %g",
             rule->metric, mine->value, mine->data_set, mine->split, theirs->value, rule->tolerance);
    return true;
}

void gate_judge(const struct gate_rule *rules, int count, const struct gate_figures *fresh,
                const struct gate_figures *stable, char out[REGISTRY_TEXT_SIZE]) {
    out[0] = '\0';
    for (int i = 0; i < count; i++) {
        char reason[REGISTRY_TEXT_SIZE];
        size_t used = strlen(out);
        if (against(&rules[i], fresh, stable, reason, sizeof reason))
            snprintf(out + used, REGISTRY_TEXT_SIZE - used, "%s%.400s", used ? "; " : "", reason);
    }
}
