#pragma once
#include "common/device/device.h"
#include "common/graph/plan.h"
#include "common/models/layers.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/*
 * A network small enough for the reference device, with all that the passes look for: a residual block, a projection with no
 * activation behind it, dropout, and a value with two consumers.
 */
enum {
    NETWORK_SIDE = 8,
    NETWORK_CHANNELS = 2,
    NETWORK_CLASSES = 3,
    NETWORK_PIXELS = NETWORK_CHANNELS * NETWORK_SIDE * NETWORK_SIDE
};

/** Returns owned; dropout 0: none. Fails the test on error. */
struct graph *network_graph(double dropout);

/** Parameters far from their defaults, running statistics too. Returns owned. */
struct parameters *network_parameters(const struct graph *graph, uint64_t seed);

/** Images (count, C, H, W), owned; image i is the same whatever the count. */
float *network_images(int count);

/** The reference device, whose table the test may replace by one of its own. */
struct device *network_device(void);

/** plan_create that fails the test on error. */
struct plan *network_plan(const struct plan_spec *spec);

/** Sets images, runs, and reads the logits (batch, classes). */
void network_answer(struct plan *plan, int batch, float *logits);

/** One run of a training plan on the images, with labels i % classes; no update. */
void network_step(struct plan *plan, int batch);

/** For cmocka's groups and tests: a reference device, a network with dropout, and parameters. */
struct network_fixture {
    struct device *device;
    struct graph *graph;
    struct parameters *parameters;
};
int network_setup(void **state);
int network_teardown(void **state);
