#include "trainerd/sampler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { COUNT = 103, BATCH = 20 };

/* Class 0: 80 samples, class 1: 20, class 2: 3. */
static int32_t labels[COUNT];

static struct sampler_spec spec_of(int ranks) {
    for (int i = 0; i < COUNT; i++)
        labels[i] = i < 80 ? 0 : i < 100 ? 1 : 2;
    return (struct sampler_spec){
        .labels = labels, .count = COUNT, .classes = 3, .batch_size = BATCH, .ranks = ranks, .seed = 11};
}

static struct sampler make(const struct sampler_spec *spec) {
    struct sampler sampler;
    struct error err = {0};
    if (!sampler_init(&sampler, spec, &err))
        fail_msg("%s", err.message);
    return sampler;
}

/* How often each sample comes in an epoch, over all steps and ranks. */
static void count_epoch(struct sampler *sampler, int64_t epoch, int counts[COUNT]) {
    memset(counts, 0, COUNT * sizeof *counts);
    int share_size = sampler->spec.batch_size / sampler->spec.ranks;
    for (int64_t step = 0; step < sampler->steps; step++)
        for (int rank = 0; rank < sampler->spec.ranks; rank++) {
            int64_t position;
            const int32_t *share = sampler_share(sampler, epoch, step, rank, &position);
            assert_int_equal(position, step * sampler->spec.batch_size + rank * share_size);
            for (int i = 0; i < share_size; i++)
                counts[share[i]]++;
        }
}

static void epoch_sees_each_sample_at_most_once(void **state) {
    (void)state;
    struct sampler_spec spec = spec_of(1);
    struct sampler sampler = make(&spec);
    assert_int_equal(sampler.steps, 5);
    int first[COUNT], second[COUNT], total = 0, dropped_alike = 0;
    count_epoch(&sampler, 0, first);
    count_epoch(&sampler, 1, second);
    for (int i = 0; i < COUNT; i++) {
        assert_in_range(first[i], 0, 1);
        total += first[i];
        dropped_alike += !first[i] && !second[i];
    }
    assert_int_equal(total, 100);
    assert_true(dropped_alike < 3); /* the three left out are others each epoch */
    sampler_fini(&sampler);
}

static void ranks_share_one_global_order(void **state) {
    (void)state;
    struct sampler_spec one_spec = spec_of(1), two_spec = spec_of(2);
    struct sampler one = make(&one_spec), two = make(&two_spec);
    for (int64_t step = 0; step < one.steps; step++) {
        int64_t position;
        int32_t whole[BATCH], halves[BATCH];
        memcpy(whole, sampler_share(&one, 3, step, 0, &position), sizeof whole);
        for (int rank = 0; rank < 2; rank++)
            memcpy(halves + rank * BATCH / 2, sampler_share(&two, 3, step, rank, &position),
                   sizeof whole / 2);
        assert_memory_equal(whole, halves, sizeof whole);
    }
    sampler_fini(&one);
    sampler_fini(&two);
}

/* A run that goes on with another number of ranks after every third step, within and across epochs. */
static void the_order_outlives_a_change_of_ranks(void **state) {
    (void)state;
    static const int worlds[] = {4, 2, 1, 4};
    for (int balanced = 0; balanced < 2; balanced++) {
        struct sampler_spec spec = spec_of(1);
        spec.balanced = balanced;
        struct sampler whole = make(&spec);
        for (int64_t done = 0; done < 12; done++) {
            int64_t epoch = done / whole.steps, step = done % whole.steps, position;
            spec.ranks = worlds[done / 3];
            struct sampler now = make(&spec); /* as after each restart */
            int32_t expected[BATCH], got[BATCH];
            int share = BATCH / spec.ranks;
            memcpy(expected, sampler_share(&whole, epoch, step, 0, &position), sizeof expected);
            for (int rank = 0; rank < spec.ranks; rank++)
                memcpy(got + rank * share, sampler_share(&now, epoch, step, rank, &position), (size_t)share * sizeof *got);
            assert_memory_equal(got, expected, sizeof expected);
            sampler_fini(&now);
        }
        sampler_fini(&whole);
    }
}

static void order_follows_from_seed_and_epoch_alone(void **state) {
    (void)state;
    struct sampler_spec spec = spec_of(1);
    struct sampler walked = make(&spec), jumped = make(&spec);
    int64_t position;
    int counts[COUNT];
    for (int64_t epoch = 0; epoch < 7; epoch++)
        count_epoch(&walked, epoch, counts);
    int32_t expected[BATCH];
    memcpy(expected, sampler_share(&walked, 6, 2, 0, &position), sizeof expected);
    assert_memory_equal(sampler_share(&jumped, 6, 2, 0, &position), expected, sizeof expected);
    assert_memory_not_equal(sampler_share(&jumped, 5, 2, 0, &position), expected, sizeof expected);
    sampler_fini(&walked);
    sampler_fini(&jumped);
}

static void balanced_epoch_has_as_many_of_each_class(void **state) {
    (void)state;
    struct sampler_spec spec = spec_of(2);
    spec.balanced = true;
    struct sampler sampler = make(&spec);
    int counts[COUNT], by_class[3] = {0};
    count_epoch(&sampler, 0, counts);
    for (int i = 0; i < COUNT; i++)
        by_class[labels[i]] += counts[i];
    for (int i = 0; i < 3; i++)
        assert_in_range(by_class[i], 33, 34);
    /* The rare ones are repeated evenly: 33 or 34 draws of 3 samples. */
    for (int i = 100; i < COUNT; i++)
        assert_in_range(counts[i], 11, 12);
    sampler_fini(&sampler);
}

static void longer_epoch_repeats_whole_rounds(void **state) {
    (void)state;
    struct sampler_spec spec = spec_of(1);
    spec.steps_per_epoch = 12;
    struct sampler sampler = make(&spec);
    int counts[COUNT];
    count_epoch(&sampler, 0, counts);
    for (int i = 0; i < COUNT; i++)
        assert_in_range(counts[i], 2, 3); /* 240 draws of 103 */
    sampler_fini(&sampler);
}

static void shards_cover_exactly_once(void **state) {
    (void)state;
    for (int64_t count = 0; count < 30; count++)
        for (int ranks = 1; ranks < 6; ranks++) {
            int64_t next = 0;
            for (int rank = 0; rank < ranks; rank++) {
                int64_t begin, end;
                sampler_shard(count, rank, ranks, &begin, &end);
                assert_int_equal(begin, next);
                assert_in_range(end - begin, count / ranks, count / ranks + 1);
                next = end;
            }
            assert_int_equal(next, count);
        }
}

static void impossible_batches_are_refused(void **state) {
    (void)state;
    struct sampler sampler;
    struct error err = {0};
    struct sampler_spec spec = spec_of(3);
    assert_false(sampler_init(&sampler, &spec, &err));
    assert_non_null(strstr(err.message, "shared evenly by 3 ranks"));
    spec = spec_of(1);
    spec.batch_size = COUNT + 1;
    assert_false(sampler_init(&sampler, &spec, &err));
    assert_non_null(strstr(err.message, "do not fill one batch"));
    spec = spec_of(1);
    spec.classes = 4;
    spec.balanced = true;
    assert_false(sampler_init(&sampler, &spec, &err));
    assert_non_null(strstr(err.message, "class 3 has no samples"));
    spec.classes = 2;
    assert_false(sampler_init(&sampler, &spec, &err));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(epoch_sees_each_sample_at_most_once),
        cmocka_unit_test(ranks_share_one_global_order),
        cmocka_unit_test(the_order_outlives_a_change_of_ranks),
        cmocka_unit_test(order_follows_from_seed_and_epoch_alone),
        cmocka_unit_test(balanced_epoch_has_as_many_of_each_class),
        cmocka_unit_test(longer_epoch_repeats_whole_rounds),
        cmocka_unit_test(shards_cover_exactly_once),
        cmocka_unit_test(impossible_batches_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
