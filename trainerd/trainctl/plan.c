#include "trainerd/trainctl/plan.h"

#include "common/base/file.h"
#include "common/base/program.h"
#include "common/base/text.h"
#include "common/config/schema.h"
#include "common/pool/descriptor.h"
#include "common/pool/message_check.h"

#include <stdio.h>
#include <string.h>

enum { MAX_TIME_MS = 30 * 24 * 3600 * 1000u };

#define COUNT(rows) (int)(sizeof(rows) / sizeof *(rows))

/* ---- keys ---- */

/* In the order of RolloutStepKind and RolloutReaction, from 1. */
static const char *const kinds[] = {"stage", "shadow", "canary", "wave", NULL};
static const char *const reactions[] = {"pause", "rollback", NULL};

struct step_config {
    int kind, members, percent, permille, min_requests;
    int64_t min_time_ms, max_time_ms;
};

struct plan_config {
    const char *name;
    int on_failure, min_healthy;
    double error_rate, p99_ratio, agreement, score_drift, confidence;
    struct schema_table steps;
};

/* clang-format off: a table reads best as one */
#define ROW(OWNER, KEY, TYPE, FIELD, FALLBACK, LOW, HIGH, HELP, ...)                                         \
    {                                                                                                        \
        .key = KEY, .type = SCHEMA_##TYPE, .offset = offsetof(struct OWNER, FIELD), .fallback = FALLBACK,    \
        .min = LOW, .max = HIGH, .help = HELP, __VA_ARGS__                                                   \
    }

static const struct schema_row step_rows[] = {
    ROW(step_config, "kind", ENUM, kind, NULL, 0, 0, "what the step does", .choices = kinds),
    ROW(step_config, "members", INT, members, "0", 0, 256, "canary: how many members"),
    ROW(step_config, "percent", INT, percent, "0", 0, 100, "wave: the least share of all members"),
    ROW(step_config, "permille", INT, permille, "0", 0, 1000,
        "shadow: how many of a thousand pictures are compared"),
    ROW(step_config, "min_requests", INT, min_requests, "0", 0, 2e9,
        "the gates are looked at when the model has answered so many pictures (shadow: compared)"),
    ROW(step_config, "min_time", DURATION, min_time_ms, "0ms", 0, MAX_TIME_MS,
        "and can pass only so long after all that the step wants run it"),
    ROW(step_config, "max_time", DURATION, max_time_ms, "0ms", 0, MAX_TIME_MS,
        "longer than this without a verdict pauses the rollout; 0ms: waits for ever"),
};
static const struct schema step_schema = {step_rows, COUNT(step_rows), sizeof(struct step_config)};

static const struct schema_row rows[] = {
    ROW(plan_config, "name", STRING, name, NULL, 0, 0, "what status and records call the plan"),
    ROW(plan_config, "on_failure", ENUM, on_failure, "pause", 0, 0,
        "when a gate fails, or a member cannot activate the model", .choices = reactions),
    ROW(plan_config, "min_healthy", INT, min_healthy, "0", 0, 256,
        "fewer healthy members pause it; 0: at least one"),
    ROW(plan_config, "steps", TABLE, steps, NULL, 0, 0, "one after the other, each under a name",
        .entries = &step_schema),
    ROW(plan_config, "gates.error_rate", DOUBLE, error_rate, "0", 0, 1,
        "largest share of failed requests; 0: not judged"),
    ROW(plan_config, "gates.p99_ratio", DOUBLE, p99_ratio, "0", 0, 1000,
        "largest p99 of the latency, as a multiple of the incumbent's in the same time; 0: not judged"),
    ROW(plan_config, "gates.agreement", DOUBLE, agreement, "0", 0, 1,
        "smallest share of the same decisions in shadow; 0: not judged"),
    ROW(plan_config, "gates.score_drift", DOUBLE, score_drift, "0", 0, 1,
        "largest mean difference of the finding's probability in shadow; 0: not judged"),
    ROW(plan_config, "gates.confidence", DOUBLE, confidence, "0.95", .5, .9999,
        "of the bounds that gates are judged by"),
};
static const struct schema schema = {rows, COUNT(rows), sizeof(struct plan_config)};
/* clang-format on */

void plan_print_keys(bool markdown, FILE *out) {
    void (*print)(const struct schema *, FILE *) = markdown ? schema_print_markdown : schema_print_help;
    print(&schema, out);
    fputs(markdown ? "\n# Each step of a plan\n\n" : "\nEach step:\n\n", out);
    print(&step_schema, out);
}

/* ---- checks across keys ---- */

/** What a kind of step needs, and what belongs to no other kind. One row a key. */
static const struct {
    const char *key;
    Thorax__V1__RolloutStepKind kind;
} OWN_KEYS[] = {
    {"members", THORAX__V1__ROLLOUT_STEP_KIND__STEP_CANARY},
    {"percent", THORAX__V1__ROLLOUT_STEP_KIND__STEP_WAVE},
    {"permille", THORAX__V1__ROLLOUT_STEP_KIND__STEP_SHADOW},
};

static void check_step(struct config *config, const char *name, const Thorax__V1__RolloutStep *step) {
    char key[256];
    for (size_t i = 0; i < sizeof OWN_KEYS / sizeof *OWN_KEYS; i++) {
        bool own = OWN_KEYS[i].kind == step->kind;
        snprintf(key, sizeof key, "steps.%.100s.%s", name, OWN_KEYS[i].key);
        if (own && !config_has(config, key)) {
            snprintf(key, sizeof key, "steps.%.100s", name);
            config_problem(config, key, "a step of kind %s needs \"%s\"", kinds[step->kind - 1],
                           OWN_KEYS[i].key);
        } else if (!own && config_has(config, key)) {
            config_problem(config, key, "a step of kind %s has no such key", kinds[step->kind - 1]);
        }
    }
}

static void check(struct plan *plan, const struct plan_config *from) {
    struct config *config = &plan->config;
    if (!descriptor_name_ok(from->name))
        config_problem(config, "name", "1 to 100 of [A-Za-z0-9._-] are wanted");
    if (from->steps.count > PLAN_MAX_STEPS)
        config_problem(config, "steps", "at most %d steps are wanted", PLAN_MAX_STEPS);
    for (int i = 0; i < from->steps.count && i < PLAN_MAX_STEPS; i++)
        check_step(config, from->steps.names[i], &plan->steps[i]);
    if (from->p99_ratio != 0 && from->p99_ratio < 1)
        config_problem(config, "gates.p99_ratio", "0, or 1 and more, is wanted");
    const char *fault = config->problem_count ? NULL : pool_plan_fault(&plan->message);
    if (fault)
        config_problem(config, "steps", "%s", fault);
}

/* ---- reading ---- */

static void fill_step(Thorax__V1__RolloutStep *step, const struct step_config *from) {
    thorax__v1__rollout_step__init(step);
    step->kind = (Thorax__V1__RolloutStepKind)(from->kind + 1);
    step->members = (uint32_t)from->members;
    step->percent = (uint32_t)from->percent;
    step->shadow_permille = (uint32_t)from->permille;
    step->min_requests = (uint64_t)from->min_requests;
    step->min_ms = (uint32_t)from->min_time_ms;
    step->max_ms = (uint32_t)from->max_time_ms;
}

static void fill(struct plan *plan, const struct plan_config *from) {
    Thorax__V1__RolloutPlan *message = &plan->message;
    const struct step_config *steps = from->steps.entries;
    message->name = text_for_packing(from->name);
    message->on_failure = (Thorax__V1__RolloutReaction)(from->on_failure + 1);
    message->min_healthy = (uint32_t)from->min_healthy;
    message->gates = &plan->gates;
    message->steps = plan->pointers;
    plan->gates.error_rate = from->error_rate;
    plan->gates.p99_ratio = from->p99_ratio;
    plan->gates.agreement = from->agreement;
    plan->gates.score_drift = from->score_drift;
    plan->gates.confidence = from->confidence;
    for (int i = 0; i < from->steps.count && i < PLAN_MAX_STEPS; i++) {
        fill_step(&plan->steps[i], &steps[i]);
        plan->pointers[i] = &plan->steps[i];
        message->n_steps++;
    }
}

bool plan_load(struct plan *plan, const char *path, struct error *err) {
    struct plan_config from = {0};
    *plan = (struct plan){0};
    thorax__v1__rollout_plan__init(&plan->message);
    thorax__v1__rollout_gates__init(&plan->gates);
    if (!config_load(&plan->config, path, err))
        return false;
    if (!schema_read(&schema, &plan->config, &from, err))
        return false;
    fill(plan, &from);
    check(plan, &from);
    return config_ok(&plan->config, err);
}

void plan_fini(struct plan *plan) {
    config_fini(&plan->config);
    *plan = (struct plan){0};
}

/* ---- finding ---- */

/* From the program's own folder: where an installation has them, and where a build folder is to the source.
 */
static const char *const FOLDERS[] = {"../share/thorax/rollouts", "../../../configs/rollouts"};

static bool find_folder(char out[PATH_MAX], struct error *err) {
    char program[PATH_MAX];
    if (!program_folder(program, err))
        return false;
    for (size_t i = 0; i < sizeof FOLDERS / sizeof *FOLDERS; i++) {
        if (file_join(out, PATH_MAX, program, FOLDERS[i], err) && file_exists(out))
            return true;
    }
    return error_set(err, ERROR_NOT_FOUND,
                     "no folder of plans is beside this program; --plans DIR names one");
}

bool plan_find(struct plan *plan, const char *name, const char *folder, struct error *err) {
    char found[PATH_MAX], path[PATH_MAX], file[128];
    size_t length = strlen(name);
    *plan = (struct plan){0};
    if (strchr(name, '/') || (length > 5 && strcmp(name + length - 5, ".yaml") == 0))
        return plan_load(plan, name, err);
    if (!descriptor_name_ok(name))
        return error_set(err, ERROR_INVALID, "%.100s: neither a plan's name nor a file ending in .yaml",
                         name);
    if (!folder && !find_folder(found, err))
        return false;
    snprintf(file, sizeof file, "%s.yaml", name);
    if (!file_join(path, sizeof path, folder ? folder : found, file, err))
        return false;
    if (!file_exists(path))
        return error_set(err, ERROR_NOT_FOUND, "%s: there is no such plan", path);
    return plan_load(plan, path, err);
}
