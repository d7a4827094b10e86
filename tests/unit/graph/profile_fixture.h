#pragma once
#include "common/graph/profile.h"
#include "tests/unit/graph/network.h"

enum { PROFILE_BATCH = 2, PROFILE_RUNS = 3 };

/** With a learning rate of nothing, weights stay where they are. */
extern const float profile_still[HYPER_COUNT];

/** A profile of the small network on the reference device. */
struct profile_fixture {
    struct device_ops ops; /**< the device's table, for a test to change before it makes the plan */
    const struct device_ops *plain;
    struct device *device;
    struct graph *graph;
    struct parameters *parameters;
    bool bf16_reductions; /**< of a training plan that is made */
    struct plan *plan;
    struct profile *profile;
};

void profile_fixture_init(struct profile_fixture *fixture);
void profile_fixture_fini(struct profile_fixture *fixture);
/** The fixture whose table a device has. */
const struct profile_fixture *profile_fixture_of(const struct device *device);

/** parts 0: an inference plan. */
void make_plan(struct profile_fixture *fixture, int parts);
/** A plan and its profile, of PROFILE_RUNS runs. */
void make_profile(struct profile_fixture *fixture, int parts);

/** NULL: there is none. */
const struct profile_row *find_row(const struct profile *profile, const char *kind, const char *pass);
