#pragma once
#include "trainerd/config.h"

struct engine_profile_options {
    int runs;          /**< training steps, 1 to PROFILE_MAX_RUNS */
    const char *trace; /**< file to write; NULL: none */
    bool json;         /**< prints the table as JSON */
    char *const *argv; /**< the program's arguments, to start it anew with OpenMP's settings */
};

/**
 * Makes rank 0's network and plan as a training run would, in its place on the machine, times training steps of its share of a
 * batch on made-up images, and prints where the time goes. There need be no data, and nothing is written but the trace: no
 * run's folder, no sockets. Without data the number of classes is what the configuration says, or else 3.
 */
bool engine_profile_run(const struct trainer_config *config, const struct engine_profile_options *options, struct error *err);
