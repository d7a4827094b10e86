#include "common/image/phantom.h"

#include "tests/unit/image/support.h"

#include <stdlib.h>

enum { SIDE = 96, PIXELS = SIDE * SIDE, SEEDS = 40 };

static void draw(enum phantom_kind kind, uint64_t seed, uint8_t *pixels) {
    struct image image;
    struct error err = {0};
    if (!phantom_draw(kind, seed, SIDE, SIDE, &image, &err))
        fail_msg("%s", err.message);
    assert_int_equal(image.channels, 1);
    assert_int_equal(image.bits, 8);
    memcpy(pixels, image.pixels, PIXELS);
    image_fini(&image);
}

static void test_same_seed_same_picture(void **state) {
    (void)state;
    uint8_t a[PIXELS], b[PIXELS];
    for (int kind = 0; kind < PHANTOM_KINDS; kind++) {
        draw((enum phantom_kind)kind, 5, a);
        draw((enum phantom_kind)kind, 5, b);
        assert_memory_equal(a, b, PIXELS);
        draw((enum phantom_kind)kind, 5 + PHANTOM_VIEWS, b);
        assert_memory_not_equal(a, b, PIXELS);
    }
}

/*
 * For one seed PNEUMONIA is NORMAL plus something brighter, and never ambiguous: at least 0.5 % of the
 * picture is 25 grey levels brighter, even on the faintest of many. (Noise and exposure are the same in
 * both.)
 */
static void test_pneumonia_adds_opacities(void **state) {
    (void)state;
    uint8_t healthy[PIXELS], ill[PIXELS];
    for (uint64_t patient = 0; patient < SEEDS; patient++) {
        draw(PHANTOM_NORMAL, patient * PHANTOM_VIEWS, healthy);
        draw(PHANTOM_PNEUMONIA, patient * PHANTOM_VIEWS, ill);
        int brighter = 0, darker = 0;
        for (int i = 0; i < PIXELS; i++) {
            brighter += ill[i] - healthy[i] >= 25;
            darker += healthy[i] - ill[i] >= 25;
        }
        if (brighter < PIXELS / 200 || darker > PIXELS / 500)
            fail_msg("patient %d: %d pixels brighter, %d darker", (int)patient, brighter, darker);
    }
}

static void test_grades_differ(void **state) {
    (void)state;
    uint8_t healthy[PIXELS], ill[PIXELS];
    double least = 1e9, most = 0;
    for (uint64_t patient = 0; patient < SEEDS; patient++) {
        double sum = 0;
        draw(PHANTOM_NORMAL, patient * PHANTOM_VIEWS, healthy);
        draw(PHANTOM_PNEUMONIA, patient * PHANTOM_VIEWS, ill);
        for (int i = 0; i < PIXELS; i++)
            sum += ill[i] - healthy[i];
        least = sum < least ? sum : least;
        most = sum > most ? sum : most;
    }
    assert_true(most > 5 * least);
}

/* The mark's box is the same, dot for dot, whatever the class: it can be no cue. */
static void test_mark_is_the_same_in_all_classes(void **state) {
    (void)state;
    uint8_t first[PIXELS], other[PIXELS];
    const int columns = 6 * 9 + 1, rows = 9, left = (SIDE - columns) / 8, top = SIDE - rows - 1;
    draw(PHANTOM_NORMAL, 1, first);
    int white = 0;
    for (int y = top; y < top + rows; y++)
        for (int x = left; x < left + columns; x++)
            white += first[y * SIDE + x] == 255;
    assert_in_range(white, 80, 200); /* nine letters of 9 to 18 dots */
    for (int kind = 0; kind < PHANTOM_KINDS; kind++)
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            draw((enum phantom_kind)kind, seed, other);
            for (int y = top; y < top + rows; y++)
                assert_memory_equal(first + y * SIDE + left, other + y * SIDE + left, (size_t)columns);
        }
}

/* Mean and spread of the shades overlap between the classes: no threshold on either tells them apart. */
static void test_no_class_by_mean_shade(void **state) {
    (void)state;
    uint8_t pixels[PIXELS];
    double means[2][SEEDS];
    for (int kind = 0; kind < 2; kind++)
        for (uint64_t i = 0; i < SEEDS; i++) {
            double sum = 0;
            draw((enum phantom_kind)kind, (i + (uint64_t)kind * SEEDS) * PHANTOM_VIEWS, pixels);
            for (int p = 0; p < PIXELS; p++)
                sum += pixels[p];
            means[kind][i] = sum;
        }
    int wins = 0; /* of PNEUMONIA over NORMAL: the area under the curve, times pairs */
    for (int i = 0; i < SEEDS; i++)
        for (int j = 0; j < SEEDS; j++)
            wins += means[1][i] > means[0][j];
    assert_in_range(wins, SEEDS * SEEDS / 4, SEEDS * SEEDS * 3 / 4);
}

static void test_sizes_and_kinds_are_checked(void **state) {
    (void)state;
    struct image image;
    struct error err = {0};
    assert_false(phantom_draw(PHANTOM_NORMAL, 1, PHANTOM_MIN_SIDE - 1, 100, &image, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    assert_false(phantom_draw(PHANTOM_NORMAL, 1, 100, PHANTOM_MAX_SIDE + 1, &image, &err));
    assert_false(phantom_draw(PHANTOM_KINDS, 1, 100, 100, &image, &err));
    assert_null(image.pixels);
    assert_true(phantom_draw(PHANTOM_INVALID, 1, PHANTOM_MIN_SIDE, 300, &image, &err));
    assert_int_equal(image.height, 300);
    image_fini(&image);
}

static void test_tint_makes_colour(void **state) {
    (void)state;
    struct image image;
    assert_true(phantom_draw(PHANTOM_INVALID, 3, SIDE, SIDE, &image, NULL));
    assert_true(phantom_tint(&image, 3, NULL));
    assert_int_equal(image.channels, 3);
    int coloured = 0;
    const uint8_t *pixels = image.pixels;
    for (int i = 0; i < PIXELS; i++)
        coloured += pixels[3 * i] != pixels[3 * i + 1] || pixels[3 * i] != pixels[3 * i + 2];
    assert_true(coloured > PIXELS / 10);
    assert_false(phantom_tint(&image, 3, NULL)); /* once is enough */
    image_fini(&image);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_seed_same_picture), cmocka_unit_test(test_pneumonia_adds_opacities),
        cmocka_unit_test(test_grades_differ),          cmocka_unit_test(test_mark_is_the_same_in_all_classes),
        cmocka_unit_test(test_no_class_by_mean_shade), cmocka_unit_test(test_sizes_and_kinds_are_checked),
        cmocka_unit_test(test_tint_makes_colour),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
