#include "common/image/preprocess.h"

#include "tests/unit/image/golden/golden.h"
#include "tests/unit/image/support.h"

#include <stdlib.h>

static void test_resize_is_pillows(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof golden_resized / sizeof *golden_resized; i++) {
        struct image image;
        assert_true(image_init(&image, golden_resized[i].width, golden_resized[i].height,
                               golden_resized[i].channels, 8, NULL));
        lcg_fill(image.pixels, (size_t)(image.width * image.height * image.channels), golden_resized[i].seed);
        struct recipe recipe = recipe_default(golden_resized[i].to_width, golden_resized[i].to_height, 1);
        uint8_t *grey = malloc(recipe_pixels(&recipe));
        struct error err = {0};
        if (!preprocess_pixels(&recipe, &image, grey, &err))
            fail_msg("%s", err.message);
        if (!digest_matches(grey, recipe_pixels(&recipe), golden_resized[i].sha256))
            fail_msg("%d x %d to %d x %d differs from Pillow", image.width, image.height, recipe.width,
                     recipe.height);
        free(grey);
        image_fini(&image);
    }
}

/* v16 = 257 x v8 is the same shade: both go the same way, grey and colour. */
static void test_sixteen_bits_equal_eight(void **state) {
    (void)state;
    for (int channels = 1; channels <= 3; channels += 2) {
        struct image eight, sixteen;
        assert_true(image_init(&eight, 50, 40, channels, 8, NULL));
        assert_true(image_init(&sixteen, 50, 40, channels, 16, NULL));
        const size_t count = (size_t)(50 * 40 * channels);
        lcg_fill(eight.pixels, count, 9);
        for (size_t i = 0; i < count; i++)
            ((uint16_t *)sixteen.pixels)[i] = (uint16_t)(((uint8_t *)eight.pixels)[i] * 257);
        struct recipe recipe = recipe_default(32, 28, 1);
        uint8_t a[32 * 28], b[32 * 28];
        assert_true(preprocess_pixels(&recipe, &eight, a, NULL));
        assert_true(preprocess_pixels(&recipe, &sixteen, b, NULL));
        assert_memory_equal(a, b, sizeof a);
        image_fini(&eight);
        image_fini(&sixteen);
    }
}

static void test_sixteen_bits_round_to_nearest(void **state) {
    (void)state;
    struct image image;
    assert_true(image_init(&image, 28, 28, 1, 16, NULL));
    uint16_t *pixels = image.pixels;
    pixels[0] = 128; /* below half of 257 */
    pixels[1] = 129;
    pixels[2] = 65535 - 128;
    pixels[3] = 65535 - 129;
    struct recipe recipe = recipe_default(28, 28, 1);
    uint8_t grey[28 * 28];
    assert_true(preprocess_pixels(&recipe, &image, grey, NULL));
    assert_memory_equal(grey, ((uint8_t[]){0, 1, 255, 254}), 4);
    image_fini(&image);
}

/* torchvision: ToTensor divides by 255, Normalize subtracts the mean and divides; in float, in this order. */
static void test_normalise_each_channel(void **state) {
    (void)state;
    struct recipe recipe = recipe_default(28, 30, 3);
    const size_t pixels = recipe_pixels(&recipe);
    uint8_t grey[28 * 30];
    float out[3 * 28 * 30];
    lcg_fill(grey, pixels, 3);
    preprocess_normalise(&recipe, grey, out);
    for (size_t c = 0; c < 3; c++)
        for (size_t i = 0; i < pixels; i++) {
            const volatile float shade = (float)grey[i] / 255.0f, centred = shade - recipe.mean[c];
            assert_true(out[c * pixels + i] == centred / recipe.stddev[c]);
        }
}

static void test_refuses_what_is_too_small(void **state) {
    (void)state;
    struct image image;
    struct recipe recipe = recipe_default(28, 28, 1);
    uint8_t grey[28 * 28];
    struct error err = {0};
    assert_true(image_init(&image, 300, 15, 1, 8, NULL));
    assert_false(preprocess_pixels(&recipe, &image, grey, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    image_fini(&image);
    assert_false(preprocess_pixels(&recipe, &image, grey, &err)); /* an empty one */
}

static void test_refuses_a_recipe_out_of_range(void **state) {
    (void)state;
    struct image image;
    struct recipe recipe = recipe_default(1 << 20, 28, 1);
    uint8_t grey[1];
    assert_true(image_init(&image, 30, 30, 1, 8, NULL));
    assert_false(preprocess_pixels(&recipe, &image, grey, NULL));
    image_fini(&image);
}

int main(void) {
    digest_start(NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resize_is_pillows),
        cmocka_unit_test(test_sixteen_bits_equal_eight),
        cmocka_unit_test(test_sixteen_bits_round_to_nearest),
        cmocka_unit_test(test_normalise_each_channel),
        cmocka_unit_test(test_refuses_what_is_too_small),
        cmocka_unit_test(test_refuses_a_recipe_out_of_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
