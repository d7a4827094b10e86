#pragma once
#include "common/device/device.h"
#include "common/graph/plan.h"

#include <getopt.h>

/** What is measured: one network in one plan on one device, and how often. */
struct subject_options {
    const char *architecture, *device;
    int size, channels, batch, threads, rounds;
    bool infer, json;
};

enum { SUBJECT_CLASSES = 3, SUBJECT_MAX_ROUNDS = 64 };

struct subject {
    struct subject_options options;
    struct graph *graph;
    struct device *device;
    struct parameters *parameters;
    struct plan *plan;
};

/** ResNet-50 at 224 pixels, batch 16, 2 threads, 5 rounds, training on oneDNN. */
struct subject_options subject_options_default(void);

/**
 * Rows of struct option for what all benchmarks take; the table ends with the zeroed row of the caller, whose
 * own rows use values from 'A' to 'Z'.
 */
#define SUBJECT_OPTION_ROWS                                                                                  \
    {"architecture", required_argument, 0, 'a'}, {"size", required_argument, 0, 's'},                        \
        {"channels", required_argument, 0, 'c'}, {"batch", required_argument, 0, 'b'},                       \
        {"threads", required_argument, 0, 't'}, {"rounds", required_argument, 0, 'r'},                       \
        {"device", required_argument, 0, 'd'}, {                                                             \
        "json", no_argument, 0, 'j'                                                                          \
    }

/** Takes one option that getopt_long found. False: a value out of range (said on stderr), or none of these
 * options. */
bool subject_take_option(struct subject_options *options, int option, const char *value);

/** Reads a number from 1 to most; false, said on stderr, where it is none. */
bool subject_take_number(const char *text, int most, int *out);

/** Builds the network and its plan (SGD with momentum and a moving average). subject_close frees, also what
 * is half open. */
bool subject_open(struct subject *subject, struct error *err);
void subject_close(struct subject *subject);

/** A batch of made-up pixels and labels. */
bool subject_fill(struct subject *subject, struct error *err);

/** Forward and, in training, backward; then the weights' update. update_ms, where not NULL, gets the latter's
 * time. */
bool subject_run(struct subject *subject, double *update_ms, struct error *err);

double subject_elapsed_ms(int64_t start_ns);
/** Of at most SUBJECT_MAX_ROUNDS values; they stay as they are. */
double subject_median(const double *values, int count);
