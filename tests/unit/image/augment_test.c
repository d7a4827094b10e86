#include "common/image/augment.h"

#include "common/image/preprocess.h"
#include "tests/unit/image/support.h"

#include <math.h>
#include <stdlib.h>

enum { SIDE = 64, PIXELS = SIDE * SIDE };

/* mean 0 and stddev 1: the output is the shade itself, 0..1. */
static struct recipe plain_recipe(void) {
    struct recipe recipe = recipe_default(SIDE, SIDE, 1);
    recipe.mean[0] = 0;
    recipe.stddev[0] = 1;
    return recipe;
}

static void apply(const struct augment *augment, uint64_t seed, const uint8_t *grey, float *out) {
    struct recipe recipe = plain_recipe();
    struct rng rng;
    uint8_t scratch[2 * PIXELS];
    assert_int_equal(augment_scratch_bytes(&recipe), sizeof scratch);
    rng_init(&rng, seed, RNG_TEST, 0, 0);
    augment_apply(augment, &rng, &recipe, grey, scratch, out);
}

static void test_none_is_plain_preprocessing(void **state) {
    (void)state;
    struct recipe recipe = recipe_default(61, 47, 3); /* odd on purpose */
    struct augment none = augment_none();
    struct rng rng;
    uint8_t grey[61 * 47], scratch[2 * 61 * 47];
    static float out[3 * 61 * 47], wanted[3 * 61 * 47];
    lcg_fill(grey, sizeof grey, 1);
    rng_init(&rng, 7, RNG_TEST, 0, 0);
    augment_apply(&none, &rng, &recipe, grey, scratch, out);
    preprocess_normalise(&recipe, grey, wanted);
    assert_memory_equal(out, wanted, sizeof wanted);
}

static void test_same_draws_same_picture(void **state) {
    (void)state;
    struct augment strong = augment_default();
    uint8_t grey[PIXELS];
    float a[PIXELS], b[PIXELS], c[PIXELS];
    lcg_fill(grey, sizeof grey, 2);
    apply(&strong, 1, grey, a);
    apply(&strong, 1, grey, b);
    apply(&strong, 2, grey, c);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
}

static void test_flip_mirrors(void **state) {
    (void)state;
    struct augment flip = augment_none();
    flip.flip_probability = 1;
    uint8_t grey[PIXELS];
    float out[PIXELS];
    lcg_fill(grey, sizeof grey, 3);
    apply(&flip, 1, grey, out);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            assert_int_equal(lrintf(255 * out[y * SIDE + x]), grey[y * SIDE + SIDE - 1 - x]);
}

/* On a ramp, position is shade: a crop of a quarter of the area shows a range of half the ramp, anywhere in
 * it. */
static void test_crop_shows_a_part(void **state) {
    (void)state;
    struct augment crop = augment_none();
    crop.crop_area_min = crop.crop_area_max = 0.25f;
    uint8_t grey[PIXELS];
    float out[PIXELS], lowest = 1, highest = 0;
    for (int i = 0; i < PIXELS; i++)
        grey[i] = (uint8_t)(4 * (i % SIDE));
    for (uint64_t seed = 0; seed < 50; seed++) {
        apply(&crop, seed, grey, out);
        const float range = 255 * (out[PIXELS - 1] - out[PIXELS - SIDE]);
        assert_in_range(lrintf(range), 4 * 31, 4 * 32);
        lowest = fminf(lowest, out[0]);
        highest = fmaxf(highest, out[0]);
    }
    assert_true(lowest < 0.05f && highest > 0.45f && highest <= 0.51f);
}

/* A dot goes to where the rotation matrix takes it (the picture turns against the sampling grid). */
static void test_rotation_turns_about_the_centre(void **state) {
    (void)state;
    struct augment turn = augment_none();
    turn.rotation_degrees = 45;
    uint8_t grey[PIXELS] = {0};
    for (int y = 31; y <= 32; y++)
        for (int x = 51; x <= 52; x++)
            grey[y * SIDE + x] = 255; /* centred on (20, 0) from the middle */
    float out[PIXELS], smallest = 9, largest = -9;
    for (uint64_t seed = 0; seed < 40; seed++) {
        double mass = 0, mx = 0, my = 0;
        apply(&turn, seed, grey, out);
        for (int i = 0; i < PIXELS; i++) {
            mass += (double)out[i];
            mx += (double)out[i] * (i % SIDE - 31.5);
            my += (double)out[i] * (i / SIDE - 31.5);
        }
        assert_true(fabs(hypot(mx / mass, my / mass) - 20) < 0.3);
        assert_true(fabs(mass - 4) < 0.4);
        smallest = fminf(smallest, (float)atan2(my, mx));
        largest = fmaxf(largest, (float)atan2(my, mx));
    }
    assert_true(smallest < -0.6f && largest > 0.6f && largest < 0.8f);
}

static void test_outside_is_black(void **state) {
    (void)state;
    struct augment shift = augment_none();
    shift.translation = 0.5f;
    uint8_t grey[PIXELS];
    float out[PIXELS];
    memset(grey, 255, sizeof grey);
    bool seen = false;
    for (uint64_t seed = 0; seed < 10; seed++) {
        apply(&shift, seed, grey, out);
        for (int i = 0; i < PIXELS; i++) {
            assert_true(out[i] == 0.0f || out[i] == 1.0f);
            seen = seen || out[i] == 0.0f;
        }
    }
    assert_true(seen);
}

/* Gamma, contrast and brightness keep order and touch all pixels of a shade alike. */
static void test_shades_are_one_monotonous_table(void **state) {
    (void)state;
    struct augment jitter = augment_none();
    jitter.brightness = 0.2f;
    jitter.contrast = 0.5f;
    jitter.gamma = 0.5f;
    uint8_t grey[PIXELS];
    float out[PIXELS];
    for (int i = 0; i < PIXELS; i++)
        grey[i] = (uint8_t)(i % 256);
    bool changed = false;
    for (uint64_t seed = 0; seed < 20; seed++) {
        apply(&jitter, seed, grey, out);
        for (int i = 1; i < 256; i++)
            assert_true(out[i] >= out[i - 1]);
        for (int i = 256; i < PIXELS; i++)
            assert_true(out[i] == out[i - 256]);
        changed = changed || fabsf(out[128] - 128 / 255.0f) > 0.05f;
    }
    assert_true(changed);
}

/* A step blurred with sigma s has the slope 1 / (s sqrt(2 pi)) in its middle. */
static void test_blur_has_its_sigma(void **state) {
    (void)state;
    struct augment blur = augment_none();
    blur.blur_probability = 1;
    blur.blur_sigma_max = 0.02f; /* up to 1.28 pixels here */
    uint8_t grey[PIXELS];
    float out[PIXELS], gentlest = 1;
    for (int i = 0; i < PIXELS; i++)
        grey[i] = i % SIDE < SIDE / 2 ? 0 : 255;
    for (uint64_t seed = 0; seed < 60; seed++) {
        apply(&blur, seed, grey, out);
        const float *row = out + 30 * SIDE;
        gentlest = fminf(gentlest, row[SIDE / 2] - row[SIDE / 2 - 1]);
        assert_true(row[0] == 0.0f && row[SIDE - 1] == 1.0f);
    }
    assert_true(fabsf(gentlest - 1 / (1.28f * 2.5066f)) < 0.03f);
}

/* Noise has mean 0 and, where its sigma is drawn from [0, s], the variance s^2 / 3 over many draws. */
static void test_noise_has_its_moments(void **state) {
    (void)state;
    struct augment noise = augment_none();
    noise.noise_sigma_max = 0.1f;
    uint8_t grey[PIXELS];
    float out[PIXELS];
    memset(grey, 128, sizeof grey);
    double sum = 0, squares = 0;
    enum { DRAWS = 200 };
    for (uint64_t seed = 0; seed < DRAWS; seed++) {
        apply(&noise, seed, grey, out);
        for (int i = 0; i < PIXELS; i++) {
            const double difference = (double)out[i] - 128.0 / 255;
            sum += difference;
            squares += difference * difference;
        }
    }
    assert_true(fabs(sum / DRAWS / PIXELS) < 0.001);
    assert_true(fabs(squares / DRAWS / PIXELS - 0.01 / 3) < 0.0006); /* four standard errors of 200 draws */
}

static void test_erasing_fills_one_rectangle(void **state) {
    (void)state;
    struct augment erasing = augment_none();
    erasing.erasing_probability = 1;
    erasing.erasing_area_max = 0.2f;
    uint8_t grey[PIXELS];
    float out[PIXELS];
    memset(grey, 77, sizeof grey);
    for (uint64_t seed = 0; seed < 30; seed++) {
        apply(&erasing, seed, grey, out);
        int left = SIDE, right = -1, top = SIDE, bottom = -1, count = 0;
        for (int i = 0; i < PIXELS; i++)
            if (lrintf(255 * out[i]) != 77) {
                left = i % SIDE < left ? i % SIDE : left;
                right = i % SIDE > right ? i % SIDE : right;
                top = i / SIDE < top ? i / SIDE : top;
                bottom = i / SIDE;
                count++;
            }
        assert_int_equal(count, (right - left + 1) * (bottom - top + 1));
        assert_in_range(count, 0.03 * PIXELS, 0.2 * PIXELS);
    }
}

/* Switching one thing on leaves the others' draws alone: experiments compare what they mean to. */
static void test_settings_do_not_shift_draws(void **state) {
    (void)state;
    struct augment crop = augment_none(), both;
    crop.crop_area_min = 0.3f;
    both = crop;
    both.erasing_probability = 1;
    both.erasing_area_max = 0.05f;
    uint8_t grey[PIXELS];
    float a[PIXELS], b[PIXELS];
    lcg_fill(grey, sizeof grey, 4);
    apply(&crop, 11, grey, a);
    apply(&both, 11, grey, b);
    int same = 0;
    for (int i = 0; i < PIXELS; i++)
        same += a[i] == b[i];
    assert_true(same >= 0.94 * PIXELS && same < PIXELS);
}

static void test_check_names_the_field(void **state) {
    (void)state;
    struct augment augment = augment_default();
    struct error err = {0};
    assert_true(augment_check(&augment, NULL));
    augment.gamma = -1;
    assert_false(augment_check(&augment, &err));
    assert_non_null(strstr(err.message, "gamma"));
    augment = augment_default();
    augment.crop_area_min = NAN;
    assert_false(augment_check(&augment, &err));
    assert_non_null(strstr(err.message, "crop_area_min"));
    augment.crop_area_min = 0.9f;
    augment.crop_area_max = 0.8f;
    assert_false(augment_check(&augment, &err));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none_is_plain_preprocessing),
        cmocka_unit_test(test_same_draws_same_picture),
        cmocka_unit_test(test_flip_mirrors),
        cmocka_unit_test(test_crop_shows_a_part),
        cmocka_unit_test(test_rotation_turns_about_the_centre),
        cmocka_unit_test(test_outside_is_black),
        cmocka_unit_test(test_shades_are_one_monotonous_table),
        cmocka_unit_test(test_blur_has_its_sigma),
        cmocka_unit_test(test_noise_has_its_moments),
        cmocka_unit_test(test_erasing_fills_one_rectangle),
        cmocka_unit_test(test_settings_do_not_shift_draws),
        cmocka_unit_test(test_check_names_the_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
