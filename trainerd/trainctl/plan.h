#pragma once
#include "common/config/config.h"
#include "common/pool/message.h"
#include <stdio.h>

enum { PLAN_MAX_STEPS = 16 };

/** A plan of a rollout, read from YAML (configs/rollouts has some): `message` is what the publisher is sent.
 */
struct plan {
    struct config config; /**< owns the name */
    Thorax__V1__RolloutPlan message;
    Thorax__V1__RolloutGates gates;
    Thorax__V1__RolloutStep steps[PLAN_MAX_STEPS], *pointers[PLAN_MAX_STEPS];
};

/** Reads a file. The error names file, line, column and key. plan_fini it, also after an error. plan must
 * stay where it is: it points into itself. */
bool plan_load(struct plan *plan, const char *path, struct error *err);
/**
 * Reads the plan that a person named: a file, where name ends in .yaml or has a slash, else NAME.yaml in
 * folder. folder NULL: where the program's own plans are, the installed ones or those beside the source.
 * ERROR_NOT_FOUND.
 */
bool plan_find(struct plan *plan, const char *name, const char *folder, struct error *err);
/** Every key of a plan, for people, or as Markdown tables. */
void plan_print_keys(bool markdown, FILE *out);
/** Takes a zeroed one. */
void plan_fini(struct plan *plan);
