/* Gradients that go to the collective in bf16: what the plan hands out and takes back, on the reference device. */
#include "common/graph/plan_internal.h"
#include "common/tensor/element.h"
#include "tests/unit/graph/network.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 2 };

/* With synchronised batch norms, whose sums are reduced beside the gradients. */
static struct plan *make(const struct network_fixture *fixture, bool narrow) {
    struct plan_spec spec = {.graph = fixture->graph, .parameters = fixture->parameters, .device = fixture->device,
                             .mode = PLAN_TRAIN, .batch = BATCH, .optimizer = OP_ADAMW, .ema = true, .bucket_bytes = 600,
                             .synchronise_batch_norm = true, .bf16_reductions = narrow};
    return network_plan(&spec);
}

static void buckets_in_bf16_are_cut_as_in_f32(void **state) {
    struct plan *wide = make(*state, false), *narrow = make(*state, true);
    const struct plan_reduction *f32, *bf16;
    assert_int_equal(plan_segment_count(wide), plan_segment_count(narrow));
    for (int segment = 0; segment < plan_segment_count(wide); segment++) {
        int count = plan_reductions(wide, segment, &f32);
        assert_int_equal(plan_reductions(narrow, segment, &bf16), count);
        for (int i = 0; i < count; i++) {
            assert_int_equal(f32[i].count, bf16[i].count);
            assert_int_equal(f32[i].blocking, bf16[i].blocking);
            assert_int_equal(bf16[i].dtype, bf16[i].blocking ? DTYPE_F64 : DTYPE_BF16);
        }
    }
    assert_string_not_equal(plan_fingerprint(wide), plan_fingerprint(narrow));
    plan_destroy(wide);
    plan_destroy(narrow);
}

static void gradients_in_bf16_are_those_in_f32_rounded(void **state) {
    struct plan *wide = make(*state, false), *narrow = make(*state, true);
    const float still[HYPER_COUNT] = {0};
    int64_t rounded = 0;
    network_step(wide, BATCH);
    network_step(narrow, BATCH);
    assert_memory_equal(narrow->flat[PLAN_GRADIENTS], wide->flat[PLAN_GRADIENTS], (size_t)wide->flat_count * sizeof(float));
    assert_true(plan_update(narrow, still, NULL));
    for (int64_t i = 0; i < wide->flat_count; i++) {
        float before = ((const float *)wide->flat[PLAN_GRADIENTS])[i], after = ((const float *)narrow->flat[PLAN_GRADIENTS])[i];
        uint16_t bits;
        element_store(&bits, DTYPE_BF16, 0, before);
        assert_true(after == (float)element_load(&bits, DTYPE_BF16, 0));
        rounded += after != before;
    }
    assert_true(rounded > 100);
    plan_destroy(wide);
    plan_destroy(narrow);
}

/** bf16 ends where f32 does: what is infinite or no number stays so, and the largest f32 is rounded up. */
static void the_check_sees_through_bf16(void **state) {
    struct network_fixture *fixture = *state;
    struct plan *plan = make(fixture, true);
    const float hyper[HYPER_COUNT] = {[HYPER_LEARNING_RATE] = 1, [HYPER_GRADIENT_SCALE] = 1};
    struct parameters *before = fixture->parameters, *after = network_parameters(fixture->graph, 4);
    double norm[2];
    network_step(plan, BATCH);
    float *gradients = plan->flat[PLAN_GRADIENTS];
    const float wild[] = {INFINITY, -INFINITY, NAN, FLT_MAX};
    memcpy(gradients, wild, sizeof wild);
    for (int i = 0; i < plan->segment_count; i++)
        assert_true(plan_narrow_buckets(plan, &plan->segments[i], NULL));
    assert_true(plan_update(plan, hyper, NULL) && plan_read_gradient_norm(plan, 1, norm, NULL));
    assert_true(norm[1] == 4);
    assert_true(plan_export(plan, PLAN_VALUES, after, NULL));
    for (int i = 0; i < before->count; i++) {
        if (fixture->graph->parameters[i].role.diff != ARG_NONE)
            assert_memory_equal(after->tensors[i].data, before->tensors[i].data, tensor_bytes(&before->tensors[i]));
    }
    parameters_destroy(after);
    plan_destroy(plan);
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, network_setup, network_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH(buckets_in_bf16_are_cut_as_in_f32),
        WITH(gradients_in_bf16_are_those_in_f32_rounded),
        WITH(the_check_sees_through_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
