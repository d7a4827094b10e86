#include "common/image/image.h"

#include "tests/unit/image/support.h"

static struct raw_pixels raw_of(const void *data, size_t size, int allocated, int stored) {
    return (struct raw_pixels){.data = data,
                               .size = size,
                               .rows = 1,
                               .columns = (int)(size * 8) / allocated,
                               .bits_allocated = allocated,
                               .bits_stored = stored,
                               .photometric = IMAGE_MONOCHROME2};
}

static enum error_code raw_code(const struct raw_pixels *raw) {
    struct image image;
    struct error err = {0};
    if (image_from_raw(raw, NULL, &image, &err)) {
        image_fini(&image);
        return ERROR_NONE;
    }
    assert_null(image.pixels);
    return err.code;
}

static void test_twelve_bits_fill_sixteen(void **state) {
    (void)state;
    static const uint8_t data[] = {0, 0, 0xFF, 0x0F, 0x00, 0x08}; /* 0, 4095, 2048, little-endian */
    struct raw_pixels raw = raw_of(data, sizeof data, 16, 12);
    struct image image;
    assert_true(image_from_raw(&raw, NULL, &image, NULL));
    const uint16_t *pixels = image.pixels;
    assert_int_equal(image.bits, 16);
    assert_int_equal(image.width, 3);
    assert_int_equal(pixels[0], 0);
    assert_int_equal(pixels[1], 65535);
    assert_int_equal(pixels[2], 32776); /* 2048 x 65535 / 4095 = 32775.502 */
    image_fini(&image);
}

static void test_few_bits_fill_eight(void **state) {
    (void)state;
    static const uint8_t data[] = {0, 1, 8, 15};
    struct raw_pixels raw = raw_of(data, sizeof data, 8, 4);
    struct image image;
    assert_true(image_from_raw(&raw, NULL, &image, NULL));
    assert_int_equal(image.bits, 8);
    assert_memory_equal(image.pixels, ((uint8_t[]){0, 17, 136, 255}), 4);
    image_fini(&image);
}

static void test_monochrome1_is_inverted(void **state) {
    (void)state;
    static const uint8_t data[] = {0, 255, 100};
    struct raw_pixels raw = raw_of(data, sizeof data, 8, 8);
    raw.photometric = IMAGE_MONOCHROME1;
    struct image image;
    assert_true(image_from_raw(&raw, NULL, &image, NULL));
    assert_memory_equal(image.pixels, ((uint8_t[]){255, 0, 155}), 3);
    image_fini(&image);
}

/* -2048, -1 and 2047 in 12 bits, sign-extended and not: the smallest value is black. */
static void test_signed_values(void **state) {
    (void)state;
    static const uint8_t extended[] = {0x00, 0xF8, 0xFF, 0xFF, 0xFF, 0x07};
    static const uint8_t bare[] = {0x00, 0x08, 0xFF, 0x0F, 0xFF, 0x07};
    const uint8_t *const forms[] = {extended, bare};
    for (int form = 0; form < 2; form++) {
        struct raw_pixels raw = raw_of(forms[form], 6, 16, 12);
        raw.is_signed = true;
        struct image image;
        assert_true(image_from_raw(&raw, NULL, &image, NULL));
        const uint16_t *pixels = image.pixels;
        assert_int_equal(pixels[0], 0);
        assert_int_equal(pixels[1], 32759); /* 2047 x 65535 / 4095 = 32759.498 */
        assert_int_equal(pixels[2], 65535);
        image_fini(&image);
    }
}

static void test_values_above_the_stored_bits(void **state) {
    (void)state;
    static const uint8_t data[] = {0x00, 0x10}; /* 4096 in 12 bits */
    struct raw_pixels raw = raw_of(data, sizeof data, 16, 12);
    assert_int_equal(raw_code(&raw), ERROR_FORMAT);
    raw.is_signed = true; /* a positive value with a sign above it is no less odd */
    assert_int_equal(raw_code(&raw), ERROR_FORMAT);
}

static void test_headers_that_lie(void **state) {
    (void)state;
    static const uint8_t data[16] = {0};
    const struct raw_pixels good = raw_of(data, sizeof data, 16, 16);
    assert_int_equal(raw_code(&good), ERROR_NONE);
    struct raw_pixels bad = good;
    bad.size = 15;
    assert_int_equal(raw_code(&bad), ERROR_FORMAT);
    bad = good;
    bad.rows = 2;
    assert_int_equal(raw_code(&bad), ERROR_FORMAT);
    bad = good;
    bad.rows = 0;
    assert_int_equal(raw_code(&bad), ERROR_FORMAT);
    bad = good;
    bad.columns = -8;
    assert_int_equal(raw_code(&bad), ERROR_FORMAT);
    bad = good;
    bad.columns = bad.rows = 65536; /* the product of sizes must not wrap */
    assert_int_equal(raw_code(&bad), ERROR_TOO_LARGE);
    bad = good;
    bad.bits_allocated = 32;
    assert_int_equal(raw_code(&bad), ERROR_UNSUPPORTED);
    bad = good;
    bad.bits_stored = 17;
    assert_int_equal(raw_code(&bad), ERROR_INVALID);
    bad = good;
    bad.bits_stored = 0;
    assert_int_equal(raw_code(&bad), ERROR_INVALID);
    bad = good;
    bad.photometric = IMAGE_PHOTOMETRIC_UNSPECIFIED;
    assert_int_equal(raw_code(&bad), ERROR_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_twelve_bits_fill_sixteen),     cmocka_unit_test(test_few_bits_fill_eight),
        cmocka_unit_test(test_monochrome1_is_inverted),      cmocka_unit_test(test_signed_values),
        cmocka_unit_test(test_values_above_the_stored_bits), cmocka_unit_test(test_headers_that_lie),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
