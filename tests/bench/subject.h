#pragma once
#include "common/device/device.h"
#include "common/graph/plan.h"

#include <getopt.h>

/** What is measured: one network in one plan on one device, and how often. */
struct subject_options {
    const char *architecture, *device;
    const char *weights; /**< a safetensors file to start from; NULL: fresh ones */
    enum precision precision;
    int size, channels, batch, threads, rounds;
    size_t bucket_bytes; /**< 0: the plan's own choice */
    bool bf16_gradients; /**< they travel in bf16 */
    bool infer, json;
};

enum { SUBJECT_CLASSES = 3, SUBJECT_MAX_ROUNDS = 64 };

struct subject {
    struct subject_options options;
    struct graph *graph;
    struct device *device;
    struct parameters *parameters;
    struct plan *plan;
    bool beside; /**< only the plan is its own */
};

/** ResNet-50 at 224 pixels, batch 16, 2 threads, 5 rounds, training in f32 on oneDNN. */
struct subject_options subject_options_default(void);

/**
 * Rows of struct option for what all benchmarks take; the table ends with the zeroed row of the caller, whose
 * own rows use values from 'A' to 'Z'.
 */
#define SUBJECT_OPTION_ROWS                                                                                  \
    {"architecture", required_argument, 0, 'a'}, {"size", required_argument, 0, 's'},                        \
        {"channels", required_argument, 0, 'c'}, {"batch", required_argument, 0, 'b'},                       \
        {"threads", required_argument, 0, 't'}, {"rounds", required_argument, 0, 'r'},                       \
        {"device", required_argument, 0, 'd'}, {"precision", required_argument, 0, 'p'},                     \
        {"weights", required_argument, 0, 'w'}, {                                                            \
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
/** Another plan of an open subject, for another batch size: network, device and (in inference) the prepared weights are borrowed
 * from first, which is closed after it. */
bool subject_open_beside(struct subject *subject, const struct subject *first, int batch, struct error *err);
/** Makes the network of an open device one that computes in 8 bits; subject_open does it where the precision is int8. */
bool subject_quantise(struct subject *subject, struct error *err);
void subject_close(struct subject *subject);

/** A batch of made-up pixels and labels: value i of the pixels (N, C, H, W) is (i * 2654435761 mod 2001) / 1000 - 1, label i
 * is i mod SUBJECT_CLASSES. */
bool subject_fill(struct subject *subject, struct error *err);
/** Those pixels alone. */
void subject_draw(float *pixels, size_t count);

/** The numbers of an update where that many ranks add their gradients. */
void subject_hyper(float hyper[HYPER_COUNT], int ranks);
/** Forward and, in training, backward; then the weights' update. update_ms, where not NULL, gets the latter's
 * time. */
bool subject_run(struct subject *subject, double *update_ms, struct error *err);

double subject_elapsed_ms(int64_t start_ns);

/** The value below which that part of at most SUBJECT_MAX_ROUNDS values lies, between two of them where need be; they stay as
 * they are. */
double subject_quantile(const double *values, int count, double part);
double subject_median(const double *values, int count);
