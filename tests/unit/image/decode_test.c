#include "common/image/image.h"

#include "common/base/digest.h"
#include "tests/unit/image/golden/golden.h"
#include "tests/unit/image/support.h"

#include <stdlib.h>
#include <string.h>

/* Every golden picture decodes to the reference's pixels: Pillow's for JPEG, the drawn ones for PNG. */
static void test_golden_pictures(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof golden_decoded / sizeof *golden_decoded; i++) {
        struct bytes file = golden_read(golden_decoded[i].file);
        struct image image;
        struct error err = {0};
        if (!image_decode(file.data, file.size, NULL, &image, &err))
            fail_msg("%s: %s", golden_decoded[i].file, err.message);
        assert_int_equal(image.width, GOLDEN_WIDTH);
        assert_int_equal(image.height, GOLDEN_HEIGHT);
        assert_int_equal(image.channels, golden_decoded[i].channels);
        assert_int_equal(image.bits, golden_decoded[i].bits);
        size_t size = (size_t)(image.width * image.height * image.channels * image.bits / 8);
        if (!digest_matches(image.pixels, size, golden_decoded[i].sha256))
            fail_msg("%s: other pixels than the reference", golden_decoded[i].file);
        image_fini(&image);
        free(file.data);
    }
}

static void test_written_png_comes_back(void **state) {
    (void)state;
    static const struct { int channels, bits; } kinds[] = {{1, 8}, {3, 8}, {1, 16}, {3, 16}};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        struct image image, again;
        struct bytes png;
        assert_true(image_init(&image, 31, 17, kinds[k].channels, kinds[k].bits, NULL));
        size_t size = (size_t)(31 * 17 * kinds[k].channels * kinds[k].bits / 8);
        lcg_fill(image.pixels, size, 5);
        assert_true(image_encode_png(&image, NULL, 0, &png, NULL));
        assert_true(image_decode(png.data, png.size, NULL, &again, NULL));
        assert_int_equal(again.channels, kinds[k].channels);
        assert_int_equal(again.bits, kinds[k].bits);
        assert_memory_equal(again.pixels, image.pixels, size);
        free(png.data);
        image_fini(&again);
        image_fini(&image);
    }
}

static void test_png_carries_text(void **state) {
    (void)state;
    static const struct image_text texts[] = {{"Synthetic", "true"}, {"Comment", "of a test"}};
    struct image image;
    struct bytes png;
    assert_true(image_init(&image, 4, 4, 1, 8, NULL));
    assert_true(image_encode_png(&image, texts, 2, &png, NULL));
    assert_non_null(memmem(png.data, png.size, "tEXtSynthetic\0true", 18));
    assert_non_null(memmem(png.data, png.size, "tEXtComment\0of a test", 21));
    free(png.data);
    image_fini(&image);
}

static void test_text_key_must_fit(void **state) {
    (void)state;
    char key[100];
    memset(key, 'k', sizeof key);
    key[99] = '\0';
    struct image_text text = {key, "value"};
    struct image image;
    struct bytes png;
    struct error err = {0};
    assert_true(image_init(&image, 4, 4, 1, 8, NULL));
    assert_false(image_encode_png(&image, &text, 1, &png, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    assert_null(png.data);
    image_fini(&image);
}

static void test_fini_twice_is_harmless(void **state) {
    (void)state;
    struct image image;
    assert_true(image_init(&image, 4, 4, 3, 16, NULL));
    image_fini(&image);
    assert_null(image.pixels);
    image_fini(&image);
}

static void test_init_refuses_odd_layouts(void **state) {
    (void)state;
    struct image image;
    assert_false(image_init(&image, 0, 4, 1, 8, NULL));
    assert_false(image_init(&image, 4, -1, 1, 8, NULL));
    assert_false(image_init(&image, 4, 4, 2, 8, NULL));
    assert_false(image_init(&image, 4, 4, 1, 12, NULL));
    assert_null(image.pixels);
}

int main(void) {
    digest_start(NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_pictures),        cmocka_unit_test(test_written_png_comes_back),
        cmocka_unit_test(test_png_carries_text),       cmocka_unit_test(test_text_key_must_fit),
        cmocka_unit_test(test_fini_twice_is_harmless), cmocka_unit_test(test_init_refuses_odd_layouts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
