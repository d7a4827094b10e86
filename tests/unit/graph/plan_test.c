/* What a plan promises of its memory, its segments, its buffers and its answers, on the reference device. */
#include "common/graph/plan_internal.h"
#include "tests/unit/graph/network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Every promise is kept in each of these. */
static const struct {
    const char *name;
    enum precision precision;
    bool synchronised;
} variants[] = {{"f32", PRECISION_F32, false}, {"bf16", PRECISION_BF16, false}, {"f32, synchronised", PRECISION_F32, true}};
static enum precision tested;
static bool synchronised;
enum { NORMS = 4 }; /* of the network */

static struct plan_spec spec_of(const struct network_fixture *fixture, enum plan_mode mode, int batch) {
    return (struct plan_spec){.graph = fixture->graph, .parameters = fixture->parameters, .device = fixture->device, .mode = mode,
                              .precision = tested, .batch = batch, .optimizer = OP_ADAMW, .ema = true, .bucket_bytes = 600,
                              .synchronise_batch_norm = synchronised};
}

static struct plan *make(const struct network_fixture *fixture, enum plan_mode mode, int batch) {
    struct plan_spec spec = spec_of(fixture, mode, batch);
    return network_plan(&spec);
}

/** When a value is first and last touched, as the steps have it. */
struct life {
    int first, last;
};

static struct life life_of(const struct plan *plan, int value) {
    struct life life = {-1, -1};
    for (int s = 0; s < plan->step_count; s++) {
        for (int arg = 0; arg < ARG_COUNT; arg++) {
            if (plan->steps[s].values[arg] == value)
                life = (struct life){life.first < 0 ? s : life.first, s};
        }
    }
    if (value == plan->logits)
        life.last = plan->step_count;
    return life;
}

/** Whether `out` takes over the memory of `in` in that step, as the kernel allows. */
static bool takes_over(const struct step *step, int in, int out) {
    for (int arg = 0; arg < ARG_COUNT; arg++) {
        enum arg source = step->kernel->args.in_place[arg];
        if (step->values[arg] == out && source != ARG_NONE && step->values[source] == in)
            return step->buffers[arg] == step->buffers[source];
    }
    return false;
}

static bool memory_overlaps(const struct value *a, const struct value *b) {
    const char *first = a->memory, *second = b->memory;
    return first < second + b->desc.bytes && second < first + a->desc.bytes;
}

/** No two values of the arena are in the same memory at the same time, but where a kernel works in place. */
static void check_lifetimes(const struct plan *plan) {
    for (int i = 0; i < plan->value_count; i++) {
        const struct value *a = &plan->values[i];
        struct life left = life_of(plan, i);
        if (a->storage != STORAGE_ARENA || left.first < 0)
            continue;
        const char *arena = plan->arena, *begin = a->memory;
        assert_true(begin >= arena && begin + a->desc.bytes <= arena + plan->arena_bytes);
        for (int j = 0; j < plan->value_count; j++) {
            struct life right = life_of(plan, j);
            const struct value *b = &plan->values[j];
            if (j == i || b->storage != STORAGE_ARENA || right.first < left.first || !memory_overlaps(a, b))
                continue;
            assert_true(left.last <= right.first);
            if (left.last == right.first)
                assert_true(takes_over(&plan->steps[right.first], i, j));
        }
    }
}

static void lifetimes_never_overlap_in_the_arena(void **state) {
    for (int batch = 1; batch <= 4; batch += 3) {
        for (int mode = PLAN_INFER; mode <= PLAN_TRAIN; mode++) {
            struct plan *plan = make(*state, (enum plan_mode)mode, batch);
            check_lifetimes(plan);
            plan_destroy(plan);
        }
    }
}

static void placing_by_lifetime_saves_memory(void **state) {
    for (int mode = PLAN_INFER; mode <= PLAN_TRAIN; mode++) {
        struct plan *plan = make(*state, (enum plan_mode)mode, 4);
        struct plan_memory memory;
        plan_memory(plan, &memory);
        assert_true(memory.arena_bytes > 0 && memory.arena_bytes < memory.arena_sum_bytes);
        assert_true(memory.arena_live_bytes > 0 && memory.arena_live_bytes <= memory.arena_bytes);
        plan_destroy(plan);
    }
}

/* A device that counts what is asked of it: the reference's table with these two slots replaced. */
static int allocations, preparations;
static struct device_ops plain_ops;

static void *counting_alloc(struct device *device, size_t bytes, struct error *err) {
    allocations++;
    return plain_ops.alloc(device, bytes, err);
}

static struct kernel *counting_prepare(struct device *device, const struct kernel_request *request, struct error *err) {
    preparations++;
    return plain_ops.prepare(device, request, err);
}

static void nothing_is_allocated_or_prepared_per_step(void **state) {
    struct network_fixture *fixture = *state;
    plain_ops = *fixture->device->ops;
    struct device_ops ops = plain_ops;
    ops.alloc = counting_alloc;
    ops.prepare = counting_prepare;
    fixture->device->ops = &ops;
    struct plan *plan = make(fixture, PLAN_TRAIN, 2);
    assert_true(allocations > 0 && preparations > 0);
    allocations = preparations = 0;
    const float hyper[HYPER_COUNT] = {
        [HYPER_LEARNING_RATE] = 0.01f, [HYPER_GRADIENT_SCALE] = 1, [HYPER_BIAS1] = 1, [HYPER_BIAS2] = 1};
    float loss = 0;
    for (int i = 0; i < 3; i++) {
        network_step(plan, 2);
        assert_true(plan_update(plan, hyper, NULL) && plan_read_loss(plan, &loss, NULL));
    }
    assert_int_equal(allocations, 0);
    assert_int_equal(preparations, 0);
    plan_destroy(plan);
    fixture->device->ops = &plain_ops;
}

static void segments_cover_every_step_once(void **state) {
    struct plan *plan = make(*state, PLAN_TRAIN, 2);
    int next = 0;
    assert_true(plan_segment_count(plan) > 2);
    for (int i = 0; i < plan_segment_count(plan); i++) {
        assert_int_equal(plan->segments[i].first_step, next);
        assert_true(plan->segments[i].step_count > 0);
        next += plan->segments[i].step_count;
    }
    assert_int_equal(next, plan_step_count(plan));
    plan_destroy(plan);
}

/** In how many reductions of the segments up to `last` the elements lie. */
static int reductions_of(const struct plan *plan, int last, const float *begin, const float *end) {
    int found = 0;
    for (int segment = 0; segment <= last; segment++) {
        const struct plan_reduction *rows;
        int count = plan_reductions(plan, segment, &rows);
        for (int i = 0; i < count; i++) {
            const float *buffer = rows[i].buffer;
            if (rows[i].blocking)
                continue;
            assert_int_equal(rows[i].dtype, DTYPE_F32);
            bool apart = end <= buffer || begin >= buffer + rows[i].count;
            assert_true(apart || (begin >= buffer && end <= buffer + rows[i].count));
            found += !apart;
        }
    }
    return found;
}

static int segment_of_step(const struct plan *plan, int step) {
    int segment = 0;
    while (step >= plan->segments[segment].first_step + plan->segments[segment].step_count)
        segment++;
    return segment;
}

static void every_gradient_is_reduced_once_and_not_too_early(void **state) {
    struct plan *plan = make(*state, PLAN_TRAIN, 2);
    int trainable = 0, last = plan_segment_count(plan) - 1;
    for (int i = 0; i < plan->graph->parameter_count; i++) {
        const struct flat_parameter *row = &plan->parameters[i];
        if (plan->graph->parameters[i].role.diff == ARG_NONE) {
            assert_int_equal(row->gradient, -1);
            continue;
        }
        const float *begin = (float *)plan->flat[PLAN_GRADIENTS] + row->offset;
        const float *end = begin + shape_count(&plan->graph->parameters[i].role.shape);
        assert_int_equal(reductions_of(plan, last, begin, end), 1);
        int ready = segment_of_step(plan, life_of(plan, row->gradient).first);
        assert_int_equal(reductions_of(plan, ready - 1, begin, end), 0);
        trainable++;
    }
    assert_int_equal(trainable, NORMS * 3 + 2);
    assert_int_equal(reductions_of(plan, last, plan->flat[PLAN_GRADIENTS], plan->flat[PLAN_GRADIENTS]), 0);
    plan_destroy(plan);
}

/** The step that reads what a step summed up. */
static int reader_of_sums(const struct plan *plan, int step) {
    int reader = step + 1;
    while (reader < plan->step_count && plan->steps[reader].values[ARG_SUMS] != plan->steps[step].values[ARG_SUMS])
        reader++;
    return reader;
}

/** A step's sums are the first reduction behind its segment, which ends with it; returns the segment. */
static int check_sums(const struct plan *plan, int step) {
    const struct plan_reduction *rows;
    int segment = segment_of_step(plan, step);
    assert_int_equal(plan->segments[segment].first_step + plan->segments[segment].step_count, step + 1);
    assert_true(plan_reductions(plan, segment, &rows) >= 1 && rows[0].blocking);
    assert_ptr_equal(rows[0].buffer, plan->steps[step].buffers[ARG_SUMS]);
    assert_int_equal(rows[0].dtype, DTYPE_F64);
    assert_int_equal(rows[0].count, shape_count(&plan->steps[step].kernel->args.desc[ARG_SUMS].shape));
    return segment;
}

static void statistics_are_summed_before_they_are_used(void **state) {
    struct plan *plan = make(*state, PLAN_TRAIN, 2);
    int sums = 0, blocking = 0;
    for (int i = 0; i < plan->step_count; i++) {
        if (plan->steps[i].kernel->op.kind != OP_BATCH_NORM_SUMS)
            continue;
        int reader = reader_of_sums(plan, i);
        assert_true(reader < plan->step_count && plan->steps[reader].node == plan->steps[i].node);
        assert_int_equal(plan->steps[reader].kernel->op.kind, OP_BATCH_NORM);
        assert_true(check_sums(plan, i) < segment_of_step(plan, reader));
        sums++;
    }
    for (int i = 0; i < plan->reduction_count; i++)
        blocking += plan->reductions[i].blocking;
    assert_int_equal(sums, synchronised ? 2 * NORMS : 0); /* forward and backward */
    assert_int_equal(blocking, sums);
    plan_destroy(plan);
}

/** The largest difference of two plans' gradients over the largest gradient; for plans that lay parameters out alike. */
static double gradients_apart(const struct plan *a, const struct plan *b) {
    const float *left = a->flat[PLAN_GRADIENTS], *right = b->flat[PLAN_GRADIENTS];
    double worst = 0, most = 0;
    assert_int_equal(a->flat_count, b->flat_count);
    for (int64_t i = 0; i < a->flat_count; i++) {
        worst = fmax(worst, fabs((double)left[i] - (double)right[i]));
        most = fmax(most, fabs((double)right[i]));
    }
    assert_true(most > 0);
    return worst / most;
}

static void one_rank_alone_learns_as_without_synchronising(void **state) {
    struct plan_spec spec = spec_of(*state, PLAN_TRAIN, 4);
    struct plan *plan = network_plan(&spec);
    spec.synchronise_batch_norm = !synchronised;
    struct plan *other = network_plan(&spec);
    network_step(plan, 4);
    network_step(other, 4);
    /* bf16: what differs in the last bit of f32 may be rounded to the next bf16. */
    assert_true(gradients_apart(plan, other) < (tested == PRECISION_F32 ? 1e-5 : 0x1p-6));
    plan_destroy(plan);
    plan_destroy(other);
}

static void inference_is_one_segment_without_reductions(void **state) {
    struct plan *plan = make(*state, PLAN_INFER, 1);
    const struct plan_reduction *rows;
    assert_int_equal(plan_segment_count(plan), 1);
    assert_int_equal(plan_reductions(plan, 0, &rows), 0);
    plan_destroy(plan);
}

static void fingerprints_tell_plans_apart(void **state) {
    struct plan_spec spec = spec_of(*state, PLAN_TRAIN, 2), other = spec;
    other.bucket_bytes = 3000;
    struct plan *a = network_plan(&spec), *b = network_plan(&spec), *c = network_plan(&other);
    other = spec;
    other.synchronise_batch_norm = !synchronised;
    struct plan *d = network_plan(&other);
    assert_string_not_equal(plan_fingerprint(a), plan_fingerprint(d));
    plan_destroy(d);
    assert_int_equal(strlen(plan_fingerprint(a)), 64);
    assert_string_equal(plan_fingerprint(a), plan_fingerprint(b));
    assert_string_not_equal(plan_fingerprint(a), plan_fingerprint(c));
    plan_destroy(a);
    plan_destroy(b);
    plan_destroy(c);
}

static void buffers_come_back_exactly(void **state) {
    struct network_fixture *fixture = *state;
    struct plan *plan = make(fixture, PLAN_TRAIN, 2);
    struct parameters *in[PLAN_BUFFER_COUNT], *out = parameters_create(fixture->graph, NULL);
    for (int which = 0; which < PLAN_BUFFER_COUNT; which++) {
        assert_true(plan_has_buffer(plan, (enum plan_buffer)which));
        in[which] = network_parameters(fixture->graph, 100 + (uint64_t)which);
        assert_true(plan_import(plan, (enum plan_buffer)which, in[which], NULL));
    }
    for (int which = 0; which < PLAN_BUFFER_COUNT; which++) {
        assert_true(plan_export(plan, (enum plan_buffer)which, out, NULL));
        for (int i = 0; i < out->count; i++) {
            if (which == PLAN_VALUES || fixture->graph->parameters[i].role.diff != ARG_NONE)
                assert_memory_equal(out->tensors[i].data, in[which]->tensors[i].data, tensor_bytes(&out->tensors[i]));
        }
        parameters_destroy(in[which]);
    }
    parameters_destroy(out);
    plan_destroy(plan);
}

static void buffers_that_are_not_kept_are_refused(void **state) {
    struct network_fixture *fixture = *state;
    struct plan_spec spec = spec_of(fixture, PLAN_TRAIN, 1);
    spec.optimizer = OP_SGD;
    spec.ema = false;
    struct plan *plan = network_plan(&spec);
    struct error err = {0};
    assert_false(plan_has_buffer(plan, PLAN_STATE2) || plan_has_buffer(plan, PLAN_EMA));
    assert_false(plan_export(plan, PLAN_EMA, fixture->parameters, &err));
    assert_int_equal(err.code, ERROR_STATE);
    assert_false(plan_import(plan, PLAN_STATE2, fixture->parameters, &err));
    plan_destroy(plan);
}

static void plans_share_weights(void **state) {
    struct network_fixture *fixture = *state;
    struct plan *one = make(fixture, PLAN_INFER, 1);
    struct plan_spec spec = spec_of(fixture, PLAN_INFER, 3);
    spec.share = one;
    struct plan *three = network_plan(&spec);
    struct plan_memory first, second;
    plan_memory(one, &first);
    plan_memory(three, &second);
    assert_true(first.parameter_bytes > 0);
    assert_int_equal(second.parameter_bytes, 0);
    float alone[3 * NETWORK_CLASSES], after[3 * NETWORK_CLASSES];
    network_answer(three, 3, alone);
    plan_destroy(one); /* the weights live on */
    network_answer(three, 3, after);
    assert_memory_equal(alone, after, sizeof after);
    plan_destroy(three);
}

static void answers_do_not_depend_on_the_batch(void **state) {
    struct plan *plan = make(*state, PLAN_INFER, 5);
    float all[5 * NETWORK_CLASSES], some[5 * NETWORK_CLASSES];
    network_answer(plan, 5, all);
    plan_destroy(plan);
    for (int batch = 1; batch < 5; batch++) {
        plan = make(*state, PLAN_INFER, batch);
        network_answer(plan, batch, some);
        assert_memory_equal(some, all, (size_t)(batch * NETWORK_CLASSES) * sizeof(float));
        plan_destroy(plan);
    }
}

/** Whether any running statistic differs from what the plan started from after a training step. */
static bool statistics_move(const struct network_fixture *fixture, bool freeze) {
    struct plan_spec spec = spec_of(fixture, PLAN_TRAIN, 4);
    spec.freeze_batch_norm = freeze;
    spec.synchronise_batch_norm = synchronised && !freeze;
    struct plan *plan = network_plan(&spec);
    network_step(plan, 4);
    struct parameters *out = parameters_create(fixture->graph, NULL);
    assert_true(plan_export(plan, PLAN_VALUES, out, NULL));
    bool moved = false;
    for (int i = 0; i < out->count; i++) {
        if (fixture->graph->parameters[i].role.diff == ARG_NONE)
            moved |= memcmp(out->tensors[i].data, fixture->parameters->tensors[i].data, tensor_bytes(&out->tensors[i])) != 0;
    }
    parameters_destroy(out);
    plan_destroy(plan);
    return moved;
}

static void frozen_norms_leave_their_statistics_alone(void **state) {
    assert_true(statistics_move(*state, false));
    assert_false(statistics_move(*state, true));
}

/** The sum over the parts of a batch of 6, in so many; no statistics of batches, and no dropout, to tell parts apart. */
static struct plan *sum_of_parts(const struct network_fixture *fixture, int parts) {
    struct graph *graph = network_graph(0);
    struct plan_spec spec = spec_of(fixture, PLAN_TRAIN, 6 / parts);
    const int64_t seed[3] = {1, 0, 0};
    int32_t labels[6] = {0, 1, 2, 0, 1, 2};
    float *images = network_images(6);
    spec.graph = graph;
    spec.freeze_batch_norm = true;
    spec.synchronise_batch_norm = false;
    spec.parts = parts;
    struct plan *plan = network_plan(&spec);
    for (int part = 0; part < parts; part++) {
        int first = part * (6 / parts);
        plan_set_part(plan, part);
        assert_true(plan_set_images(plan, images + first * NETWORK_PIXELS, NULL) &&
                    plan_set_targets(plan, labels + first, seed, NULL) && plan_run(plan, NULL));
    }
    free(images);
    graph_destroy(graph);
    return plan;
}

static void gradients_of_parts_add_up(void **state) {
    struct plan *whole = sum_of_parts(*state, 1);
    const float *expected = whole->flat[PLAN_GRADIENTS];
    double most = 0, worst = 0;
    for (int parts = 2; parts <= 6; parts++) {
        if (6 % parts)
            continue;
        struct plan *plan = sum_of_parts(*state, parts);
        const float *sum = plan->flat[PLAN_GRADIENTS];
        assert_int_equal(plan->flat_count, whole->flat_count);
        for (int64_t i = 0; i < plan->flat_count; i++) {
            most = fmax(most, fabs((double)expected[i]));
            worst = fmax(worst, fabs((double)sum[i] / parts - (double)expected[i]));
        }
        plan_destroy(plan);
    }
    /* bf16: gradients of single images, which are smaller or larger than their mean, are rounded before they are summed. */
    assert_true(most > 0 && worst < (tested == PRECISION_F32 ? 1e-6 : 0x1p-7) * most);
    plan_destroy(whole);
}

static void refuse(const struct plan_spec *spec, enum error_code code) {
    struct error err = {0};
    assert_null(plan_create(spec, &err));
    assert_int_equal(err.code, code);
}

/* The reference's table, without the sums of a synchronised batch norm. */
static bool supports_no_sums(struct device *device, const struct kernel_request *request) {
    return request->op.kind != OP_BATCH_NORM_SUMS && plain_ops.supports(device, request);
}

static void synchronising_is_refused_where_it_cannot_be(void **state) {
    struct network_fixture *fixture = *state;
    struct plan_spec spec = spec_of(fixture, PLAN_TRAIN, 1);
    spec.synchronise_batch_norm = spec.freeze_batch_norm = true;
    refuse(&spec, ERROR_INVALID);
    spec.freeze_batch_norm = false;
    plain_ops = *fixture->device->ops;
    struct device_ops ops = plain_ops;
    ops.supports = supports_no_sums;
    fixture->device->ops = &ops;
    refuse(&spec, ERROR_UNSUPPORTED);
    fixture->device->ops = &plain_ops;
}

static void specs_that_make_no_sense_are_refused(void **state) {
    struct network_fixture *fixture = *state;
    struct plan_spec spec = spec_of(fixture, PLAN_TRAIN, 0);
    refuse(&spec, ERROR_INVALID);
    spec.batch = 65537;
    refuse(&spec, ERROR_INVALID);
    spec = spec_of(fixture, PLAN_TRAIN, 1);
    spec.optimizer = OP_ADD;
    refuse(&spec, ERROR_INVALID);
    struct plan *infer = make(fixture, PLAN_INFER, 1);
    spec = spec_of(fixture, PLAN_TRAIN, 1);
    spec.share = infer;
    refuse(&spec, ERROR_INVALID);
    float loss = 0;
    struct error err = {0};
    assert_false(plan_read_loss(infer, &loss, &err));
    assert_false(plan_update(infer, (float[HYPER_COUNT]){0}, &err));
    assert_int_equal(err.code, ERROR_STATE);
    plan_destroy(infer);
    plan_destroy(NULL);
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, network_setup, network_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH(lifetimes_never_overlap_in_the_arena),
        WITH(placing_by_lifetime_saves_memory),
        WITH(nothing_is_allocated_or_prepared_per_step),
        WITH(segments_cover_every_step_once),
        WITH(every_gradient_is_reduced_once_and_not_too_early),
        WITH(statistics_are_summed_before_they_are_used),
        WITH(one_rank_alone_learns_as_without_synchronising),
        WITH(inference_is_one_segment_without_reductions),
        WITH(fingerprints_tell_plans_apart),
        WITH(buffers_come_back_exactly),
        WITH(buffers_that_are_not_kept_are_refused),
        WITH(plans_share_weights),
        WITH(answers_do_not_depend_on_the_batch),
        WITH(frozen_norms_leave_their_statistics_alone),
        WITH(gradients_of_parts_add_up),
        WITH(synchronising_is_refused_where_it_cannot_be),
        WITH(specs_that_make_no_sense_are_refused),
    };
    int failed = 0;
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        tested = variants[i].precision;
        synchronised = variants[i].synchronised;
        failed += cmocka_run_group_tests_name(variants[i].name, tests, NULL, NULL);
    }
    return failed;
}
