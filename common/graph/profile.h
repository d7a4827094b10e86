#pragma once
#include "common/graph/plan.h"

#include <signal.h>
#include <stdio.h>

/**
 * Where the time of a plan goes: every step of it timed alone, in the order in which a run has them, on made-up images.
 * One thread at a time, that of the plan.
 */
enum { PROFILE_MAX_RUNS = 1000, PROFILE_MAX_ROWS = OP_KIND_COUNT * (PASS_COUNT + 1) + 4, PROFILE_MAX_IMPLEMENTATIONS = 12 };

struct profile_options {
    int runs;                          /**< 1 to PROFILE_MAX_RUNS, after one that warms up */
    const float *hyper;                /**< PLAN_TRAIN: (HYPER_COUNT) for plan_update; borrowed during create */
    const char *network;               /**< for titles, such as "resnet18 3x224x224"; borrowed for the profile's life */
    const volatile sig_atomic_t *stop; /**< once it is not 0, create ends with ERROR_STATE; NULL: nothing stops it */
};

/** What is timed in one go: a step of the plan; with parts, the sums of one segment's buckets; the update. */
struct profile_step {
    const char *name;               /**< the node's, or "buckets", or "weights" */
    const char *kind;               /**< op_kind_name */
    const char *pass;               /**< pass_name; of forward kernels among the backward steps "recompute", "sum_gradients" or
                                         "backward" (reorders); of buckets "sum_parts" or "narrow", of weights "update" */
    const struct kernel *kernel;    /**< borrowed from the plan */
    double flops, bytes;            /**< of all that a training step, or a run, does of it */
    double ms;                      /**< of all that a training step, or a run, does of it: the runs' median */
    int fallbacks;                  /**< how many of its kernels are the library's reference, for want of a fast one */
    int row;                        /**< where it counts in the table */
};

/** When a step ran, in nanoseconds from the first event. Events stand in the order in which they began. */
struct profile_event {
    int step;
    int64_t start_ns, duration_ns;
};

/** All steps of one kind and pass. */
struct profile_row {
    const char *kind, *pass;
    int steps, fallbacks;
    const char *first_fallback; /**< the step's name; NULL: there is none */
    double ms, share;           /**< shares of all rows add up to 1 */
    double flops, bytes;
    int implementation_count;   /**< those past the limit are the last one, "others" */
    struct {
        const char *name;
        int steps;
    } implementations[PROFILE_MAX_IMPLEMENTATIONS];
};

/** Plain data, to be read. */
struct profile {
    struct plan *plan; /**< borrowed */
    const char *network;
    struct device_info device;
    enum plan_mode mode;
    enum precision precision;
    int64_t batch; /**< images of a run; a training step runs `parts` of them */
    int parts, runs;
    double whole_ms; /**< a training step, or a run, without clocks inside: median */
    double timed_ms; /**< the same with a clock behind each step: median */
    double steps_ms; /**< the sum of the rows; below timed_ms where others had the cores now and then, which medians leave out */

    struct profile_step *steps; /**< (step_count) */
    int step_count;
    struct profile_event *events; /**< (runs * events_per_run) */
    int events_per_run;
    struct profile_row rows[PROFILE_MAX_ROWS]; /**< the slowest first */
    int row_count;
};

/**
 * Fills the plan's inputs with made-up images (and labels), and runs it: once to warm up, then options->runs times as a whole
 * and, in turns with that, step by step with a look at the clock behind each (synchronised, where the device is asynchronous).
 * A training plan is updated each time: the hyper-parameters should leave its weights next to where they are. Collectives have
 * no part in it. Returns owned, NULL on error; the plan must outlive it.
 */
struct profile *profile_create(struct plan *plan, const struct profile_options *options, struct error *err);
/** Takes NULL. */
void profile_destroy(struct profile *profile);

/** Writes a title, a line for each row, what timing cost, memory, and loudly what ran on reference kernels. */
void profile_print(const struct profile *profile, FILE *out);

/** Writes the same as one JSON object, without a line's end. */
bool profile_print_json(const struct profile *profile, FILE *out, struct error *err);

/**
 * Writes the events of all profiles as one file for chrome://tracing or Perfetto (the JSON array format's object form, complete
 * events): a process for each profile, an event for each run, within it one for each step. Times are microseconds.
 * Source: "Trace Event Format", Google, 2016.
 */
bool profile_write_trace(struct profile *const *profiles, int count, const char *path, struct error *err);
