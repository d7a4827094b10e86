#pragma once
#include "common/base/error.h"
#include <stdint.h>

/**
 * The learning rate as a function of the step: a linear warm-up from base/warmup to base (Goyal et al.,
 * "Accurate, Large Minibatch SGD", 2017), then a decay to base * final_fraction at total_steps: half a cosine
 * wave (Loshchilov and Hutter, "SGDR", 2017), a straight line, or none. A pure function, so a resumed run
 * needs nothing but its step.
 */
enum schedule_kind { SCHEDULE_CONSTANT, SCHEDULE_COSINE, SCHEDULE_LINEAR };

struct schedule_spec {
    enum schedule_kind kind;
    double base_rate;
    int64_t warmup_steps;  /**< 0: none; at most total_steps */
    int64_t total_steps;   /**< optimiser steps of the whole run, > 0 */
    double final_fraction; /**< of base_rate at the end, 0 to 1 */
};

/** Checks the ranges above. */
bool schedule_check(const struct schedule_spec *spec, struct error *err);

/** The rate of step 0, 1, ...; past total_steps it stays what it was at the end. Any thread. */
double schedule_rate(const struct schedule_spec *spec, int64_t step);

/** Parses "constant", "cosine" or "linear". */
bool schedule_parse(const char *name, enum schedule_kind *out, struct error *err);
