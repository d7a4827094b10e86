#include "common/image/image.h"

#include "tests/unit/image/support.h"

#include <stdlib.h>
#include <turbojpeg.h>

static enum error_code decode_code(const void *data, size_t size, const struct image_limits *limits) {
    struct image image;
    struct error err = {0};
    if (image_decode(data, size, limits, &image, &err)) {
        image_fini(&image);
        return ERROR_NONE;
    }
    assert_null(image.pixels);
    assert_true(err.message[0] != '\0');
    return err.code;
}

static void test_foreign_formats_are_named(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *name;
    } cases[] = {
        {"GIF89a......", 12, "GIF"},
        {"II*\0........", 12, "TIFF"},
        {"BM..........", 12, "BMP"},
        {"RIFF....WEBPVP8 ", 16, "WebP"},
        {"%PDF-1.4....", 12, "PDF"},
        {"\0\0\0\x0CjP  \r\n\x87\n....", 16, "JPEG 2000"},
        {"\xFF\x4F\xFF\x51....", 8, "JPEG 2000"},
        {"\0\0\0\x18"
         "ftypheic....",
         16, "HEIF"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct image image;
        struct error err = {0};
        assert_false(image_decode(cases[i].bytes, cases[i].size, NULL, &image, &err));
        assert_int_equal(err.code, ERROR_UNSUPPORTED);
        assert_non_null(strstr(err.message, cases[i].name));
    }
    char dicom[132] = {0};
    memcpy(dicom + 128, "DICM", 4);
    assert_int_equal(decode_code(dicom, sizeof dicom, NULL), ERROR_UNSUPPORTED);
}

static void test_no_picture_at_all(void **state) {
    (void)state;
    assert_int_equal(decode_code("", 0, NULL), ERROR_FORMAT);
    assert_int_equal(decode_code("hello, world", 12, NULL), ERROR_FORMAT);
    assert_int_equal(decode_code("\xFF\xD8\xFF", 3, NULL), ERROR_FORMAT);
    assert_int_equal(decode_code("\x89PNG\r\n\x1A\n", 8, NULL), ERROR_FORMAT);
}

/* A picture that ends early is refused wherever it ends. */
static void test_every_truncation(void **state) {
    (void)state;
    static const char *const files[] = {
        "grey.jpg",  "grey_progressive.jpg", "colour420.jpg",          "cmyk.jpg",
        "grey8.png", "grey16.png",           "palette4_interlaced.png"};
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        struct bytes file = golden_read(files[f]);
        for (size_t size = 0; size < file.size; size++) {
            uint8_t *exact = malloc(size + 1); /* so that a sanitizer sees reads past the end */
            memcpy(exact, file.data, size);
            if (decode_code(exact, size, NULL) != ERROR_FORMAT)
                fail_msg("%s cut to %zu bytes is not refused as damaged", files[f], size);
            free(exact);
        }
        free(file.data);
    }
}

static void test_cut_jpeg_with_an_end_marker(void **state) {
    (void)state;
    struct bytes file = golden_read("colour444.jpg");
    const size_t cut = file.size * 3 / 4;
    memcpy(file.data + cut, "\xFF\xD9", 2);
    assert_int_equal(decode_code(file.data, cut + 2, NULL), ERROR_FORMAT);
    free(file.data);
}

static void test_flipped_bits_in_png_are_seen(void **state) {
    (void)state;
    struct bytes file = golden_read("grey8.png");
    for (size_t at = 8; at < file.size; at++) {
        file.data[at] ^= 0x10;
        assert_int_not_equal(decode_code(file.data, file.size, NULL), ERROR_NONE);
        file.data[at] ^= 0x10;
    }
    free(file.data);
}

/* A header of 65,000 x 65,000 pixels, and next to nothing behind it, fails by the header alone. */
static void test_bombs_fail_before_memory(void **state) {
    (void)state;
    static const uint8_t png[] = "\x89PNG\r\n\x1A\n"
                                 "\0\0\0\x0DIHDR\0\0\xFD\xE8\0\0\xFD\xE8\x08\0\0\0\0\x87\x3C\x86\xD6"
                                 "\0\0\0\0IEND\xAE\x42\x60\x82";
    struct bytes jpeg = golden_read("grey.jpg");
    uint8_t *frame = memmem(jpeg.data, jpeg.size, "\xFF\xC0", 2);
    assert_non_null(frame);
    memcpy(frame + 5, "\xFD\xE8\xFD\xE8", 4);
    assert_int_equal(decode_code(jpeg.data, jpeg.size, NULL), ERROR_TOO_LARGE);
    assert_int_equal(decode_code(png, sizeof png - 1, NULL), ERROR_TOO_LARGE);
    free(jpeg.data);
}

static void test_each_limit(void **state) {
    (void)state;
    struct bytes file = golden_read("grey8.png"); /* 37 x 21 */
    struct image_limits limits = image_limits_default();
    limits.max_side = 36;
    assert_int_equal(decode_code(file.data, file.size, &limits), ERROR_TOO_LARGE);
    limits = image_limits_default();
    limits.max_pixels = 37 * 21 - 1;
    assert_int_equal(decode_code(file.data, file.size, &limits), ERROR_TOO_LARGE);
    limits.max_pixels = 37 * 21;
    limits.max_bytes = file.size;
    assert_int_equal(decode_code(file.data, file.size, &limits), ERROR_NONE);
    limits.max_bytes = file.size - 1;
    assert_int_equal(decode_code(file.data, file.size, &limits), ERROR_TOO_LARGE);
    free(file.data);
}

static void test_unreadable_kinds_of_jpeg(void **state) {
    (void)state;
    struct bytes file = golden_read("grey.jpg");
    uint8_t *frame = memmem(file.data, file.size, "\xFF\xC0", 2);
    assert_non_null(frame);
    frame[4] = 12; /* the precision */
    assert_int_equal(decode_code(file.data, file.size, NULL), ERROR_UNSUPPORTED);
    frame[4] = 8;
    frame[1] = 0xC3; /* lossless */
    assert_int_equal(decode_code(file.data, file.size, NULL), ERROR_UNSUPPORTED);
    frame[1] = 0xF7; /* JPEG-LS */
    assert_int_equal(decode_code(file.data, file.size, NULL), ERROR_UNSUPPORTED);
    frame[1] = 0xC0;
    memcpy(frame + 5, "\0\0", 2); /* no height */
    assert_int_equal(decode_code(file.data, file.size, NULL), ERROR_FORMAT);
    free(file.data);
}

/* The last scan of a progressive picture a hundred times over: little to send, much to compute. */
static void test_too_many_scans(void **state) {
    (void)state;
    struct bytes file = golden_read("grey_progressive.jpg");
    uint8_t *scan = NULL;
    for (uint8_t *at = file.data; at < file.data + file.size - 1; at++)
        if (at[0] == 0xFF && at[1] == 0xDA)
            scan = at;
    assert_non_null(scan);
    const size_t head = (size_t)(scan - file.data), length = file.size - 2 - head;
    uint8_t *many = malloc(head + 100 * length + 2);
    memcpy(many, file.data, head);
    for (size_t i = 0; i < 100; i++)
        memcpy(many + head + i * length, scan, length);
    memcpy(many + head + 100 * length, "\xFF\xD9", 2);
    assert_int_equal(decode_code(many, head + 100 * length + 2, NULL), ERROR_TOO_LARGE);
    free(many);
    free(file.data);
}

/* YCCK, which Pillow does not write: from TurboJPEG, inverted as Adobe stores it, on an even shade. */
static void test_ycck(void **state) {
    (void)state;
    enum { SIDE = 32 };
    static const uint8_t inverted[4] = {200, 100, 50, 255}; /* no black: red 200, green 100, blue 50 */
    uint8_t pixels[SIDE * SIDE * 4];
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = inverted[i % 4];
    tjhandle handle = tjInitCompress();
    unsigned char *jpeg = NULL;
    unsigned long size = 0;
    assert_int_equal(tjCompress2(handle, pixels, SIDE, 0, SIDE, TJPF_CMYK, &jpeg, &size, TJSAMP_420, 95, 0),
                     0);
    struct image image;
    assert_true(image_decode(jpeg, size, NULL, &image, NULL));
    assert_int_equal(image.channels, 3);
    for (int c = 0; c < 3; c++)
        assert_in_range(((uint8_t *)image.pixels)[c] + 2, inverted[c], inverted[c] + 4);
    image_fini(&image);
    tjFree(jpeg);
    tjDestroy(handle);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_foreign_formats_are_named),
        cmocka_unit_test(test_no_picture_at_all),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_cut_jpeg_with_an_end_marker),
        cmocka_unit_test(test_flipped_bits_in_png_are_seen),
        cmocka_unit_test(test_bombs_fail_before_memory),
        cmocka_unit_test(test_each_limit),
        cmocka_unit_test(test_unreadable_kinds_of_jpeg),
        cmocka_unit_test(test_too_many_scans),
        cmocka_unit_test(test_ycck),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
