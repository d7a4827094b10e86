#include "tests/unit/graph/profile_fixture.h"

#include <string.h>

const float profile_still[HYPER_COUNT] = {[HYPER_GRADIENT_SCALE] = 1, [HYPER_MOMENTUM] = 0.9f};

void profile_fixture_init(struct profile_fixture *fixture) {
    *fixture = (struct profile_fixture){.device = network_device(), .graph = network_graph(0)};
    fixture->parameters = network_parameters(fixture->graph, 1);
    fixture->plain = fixture->device->ops;
    fixture->ops = *fixture->plain;
    fixture->device->ops = &fixture->ops;
}

void profile_fixture_fini(struct profile_fixture *fixture) {
    profile_destroy(fixture->profile);
    plan_destroy(fixture->plan);
    parameters_destroy(fixture->parameters);
    graph_destroy(fixture->graph);
    fixture->device->ops = fixture->plain;
    device_close(fixture->device);
}

const struct profile_fixture *profile_fixture_of(const struct device *device) {
    return (const struct profile_fixture *)((const char *)device->ops - offsetof(struct profile_fixture, ops));
}

void make_plan(struct profile_fixture *fixture, int parts) {
    struct plan_spec spec = {.graph = fixture->graph, .parameters = fixture->parameters, .device = fixture->device,
                             .mode = parts ? PLAN_TRAIN : PLAN_INFER, .batch = PROFILE_BATCH, .parts = parts,
                             .bucket_bytes = 1024, .bf16_reductions = fixture->bf16_reductions, .optimizer = OP_SGD};
    fixture->plan = network_plan(&spec);
}

void make_profile(struct profile_fixture *fixture, int parts) {
    struct error err = {0};
    struct profile_options options = {.runs = PROFILE_RUNS, .hyper = profile_still, .network = "a network"};
    make_plan(fixture, parts);
    if (!(fixture->profile = profile_create(fixture->plan, &options, &err)))
        fail_msg("%s", err.message);
}

const struct profile_row *find_row(const struct profile *profile, const char *kind, const char *pass) {
    for (int i = 0; i < profile->row_count; i++) {
        if (strcmp(profile->rows[i].kind, kind) == 0 && strcmp(profile->rows[i].pass, pass) == 0)
            return &profile->rows[i];
    }
    return NULL;
}
