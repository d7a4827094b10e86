#include "common/base/rng.h"
#include "tests/unit/base/test.h"

#include <math.h>

/* Random123's kat_vectors, "philox4x32 10": counter, key, output. */
static const struct {
    uint32_t counter[4], key[2], output[4];
} vectors[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

static uint64_t wide(uint32_t low, uint32_t high) {
    return (uint64_t)high << 32 | low;
}

static void philox_gives_the_published_numbers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        const uint32_t *c = vectors[i].counter, *k = vectors[i].key;
        struct rng_block block = rng_philox(wide(k[0], k[1]), wide(c[2], c[3]), wide(c[0], c[1]));
        for (int j = 0; j < 4; j++)
            assert_int_equal(block.v[j], vectors[i].output[j]);
    }
}

static void a_sequence_follows_from_its_place_alone(void **state) {
    (void)state;
    struct rng a, b, others[4];
    rng_init(&a, 5, RNG_AUGMENT, 2, 9);
    rng_init(&b, 5, RNG_AUGMENT, 2, 9);
    rng_init(&others[0], 6, RNG_AUGMENT, 2, 9);
    rng_init(&others[1], 5, RNG_DROPOUT, 2, 9);
    rng_init(&others[2], 5, RNG_AUGMENT, 3, 9);
    rng_init(&others[3], 5, RNG_AUGMENT, 2, 10);
    int same[4] = {0};
    for (int i = 0; i < 1000; i++) {
        uint32_t value = rng_u32(&a);
        assert_int_equal(value, rng_u32(&b));
        for (int j = 0; j < 4; j++)
            same[j] += rng_u32(&others[j]) == value;
    }
    for (int j = 0; j < 4; j++)
        assert_true(same[j] <= 1);
}

static void below_is_even_and_inside(void **state) {
    (void)state;
    struct rng rng;
    rng_init(&rng, 1, RNG_TEST, 0, 0);
    int counts[7] = {0};
    enum { DRAWS = 70000 };
    for (int i = 0; i < DRAWS; i++) {
        uint32_t value = rng_below(&rng, 7);
        assert_true(value < 7);
        counts[value]++;
    }
    double chi_square = 0;
    for (int i = 0; i < 7; i++)
        chi_square += pow(counts[i] - DRAWS / 7.0, 2) / (DRAWS / 7.0);
    assert_true(chi_square < 22.46); /* 6 degrees of freedom, p = .001 */
    assert_int_equal(rng_below(&rng, 1), 0);
}

static void units_and_ranges_exclude_their_upper_end(void **state) {
    (void)state;
    assert_true(rng_unit(0) == 0);
    assert_true(rng_unit(UINT32_MAX) < 1);
    struct rng rng;
    rng_init(&rng, 2, RNG_TEST, 0, 0);
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        float value = rng_uniform(&rng, -3, 5);
        assert_true(value >= -3 && value < 5);
        sum += value;
    }
    assert_true(fabs(sum / 100000 - 1) < 0.04); /* five standard errors of 8 / sqrt(12 n) */
}

static void normal_numbers_have_normal_moments(void **state) {
    (void)state;
    struct rng rng;
    rng_init(&rng, 3, RNG_TEST, 0, 0);
    double moment[5] = {0};
    enum { DRAWS = 200000 };
    for (int i = 0; i < DRAWS; i++) {
        double value = rng_normal(&rng);
        assert_true(isfinite(value));
        for (int k = 1; k <= 4; k++)
            moment[k] += pow(value, k) / DRAWS;
    }
    /* Mean 0, variance 1, no skew, fourth moment 3; five standard errors: 1, 2, 15 and 96 over n. */
    assert_true(fabs(moment[1]) < 5 * sqrt(1.0 / DRAWS));
    assert_true(fabs(moment[2] - 1) < 5 * sqrt(2.0 / DRAWS));
    assert_true(fabs(moment[3]) < 5 * sqrt(15.0 / DRAWS));
    assert_true(fabs(moment[4] - 3) < 5 * sqrt(96.0 / DRAWS));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_numbers),
        cmocka_unit_test(a_sequence_follows_from_its_place_alone),
        cmocka_unit_test(below_is_even_and_inside),
        cmocka_unit_test(units_and_ranges_exclude_their_upper_end),
        cmocka_unit_test(normal_numbers_have_normal_moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
