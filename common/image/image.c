#include "common/image/image.h"

#include "common/image/codec.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct image_limits image_limits_default(void) {
    return (struct image_limits){
        .max_bytes = (size_t)64 << 20, .max_pixels = 40 * 1000 * 1000, .max_side = 16384};
}

bool image_init(struct image *image, int width, int height, int channels, int bits, struct error *err) {
    *image = (struct image){0};
    if (width < 1 || height < 1 || (channels != 1 && channels != 3) || (bits != 8 && bits != 16))
        return error_set(err, ERROR_INVALID, "no picture has %d x %d pixels of %d channels and %d bits",
                         width, height, channels, bits);
    size_t pixels = 0, size = 0;
    if (__builtin_mul_overflow((size_t)width, (size_t)height, &pixels) ||
        __builtin_mul_overflow(pixels, (size_t)(channels * bits / 8), &size))
        return error_set(err, ERROR_TOO_LARGE, "a picture of %d x %d pixels does not fit into memory", width,
                         height);
    void *memory = calloc(1, size);
    if (!memory)
        return error_set(err, ERROR_MEMORY, "no memory for a picture of %d x %d pixels", width, height);
    *image = (struct image){
        .width = width, .height = height, .channels = channels, .bits = bits, .pixels = memory};
    return true;
}

void image_fini(struct image *image) {
    free(image->pixels);
    *image = (struct image){0};
}

bool codec_check_size(const char *what, int64_t width, int64_t height, const struct image_limits *limits,
                      struct error *err) {
    if (width < 1 || height < 1)
        return error_set(err, ERROR_FORMAT, "%s: a size of %" PRId64 " x %" PRId64 " pixels", what, width,
                         height);
    if (width > limits->max_side || height > limits->max_side || width * height > limits->max_pixels) {
        error_set(err, ERROR_TOO_LARGE, "%s: %" PRId64 " x %" PRId64 " pixels are over the limit", what,
                  width, height);
        return error_hint(err, "at most %d pixels a side and %" PRId64 " in all", limits->max_side,
                          limits->max_pixels);
    }
    return true;
}

/* First bytes of the formats that people are most likely to send. */
static const struct signature {
    size_t offset, length;
    const char *bytes;
    const char *name;
} signatures[] = {
    {128, 4, "DICM", "DICOM"},
    {0, 12, "\0\0\0\x0CjP  \r\n\x87\n", "JPEG 2000"},
    {0, 4, "\xFF\x4F\xFF\x51", "JPEG 2000"},
    {0, 12, "\0\0\0\x0CJXL \r\n\x87\n", "JPEG XL"},
    {0, 2, "\xFF\x0A", "JPEG XL"},
    {0, 4, "II*\0", "TIFF"},
    {0, 4, "MM\0*", "TIFF"},
    {0, 4, "GIF8", "GIF"},
    {8, 4, "WEBP", "WebP"},
    {4, 4, "ftyp", "HEIF or AVIF"},
    {0, 2, "BM", "BMP"},
    {0, 5, "%PDF-", "PDF"},
    {0, 4, "PK\x03\x04", "ZIP"},
    {0, 2, "\x1F\x8B", "gzip"},
    {344, 4, "n+1\0", "NIfTI"},
    {0, 4, "NRRD", "NRRD"},
    {0, 2, "P5", "PGM"},
    {0, 2, "P6", "PPM"},
    {0, 5, "<?xml", "XML"},
    {0, 4, "<svg", "SVG"},
};

const char *codec_guess(const uint8_t *data, size_t size) {
    for (size_t i = 0; i < sizeof signatures / sizeof *signatures; i++) {
        const struct signature *s = &signatures[i];
        if (size >= s->offset + s->length && memcmp(data + s->offset, s->bytes, s->length) == 0)
            return s->name;
    }
    return NULL;
}

bool image_decode(const void *data, size_t size, const struct image_limits *limits, struct image *out,
                  struct error *err) {
    *out = (struct image){0};
    struct image_limits defaults = image_limits_default();
    if (!limits)
        limits = &defaults;
    if (size == 0 || !data)
        return error_set(err, ERROR_FORMAT, "the picture has no bytes");
    if (size > limits->max_bytes)
        return error_set(err, ERROR_TOO_LARGE, "the picture has %zu bytes; the limit is %zu", size,
                         limits->max_bytes);
    if (size >= 3 && memcmp(data, "\xFF\xD8\xFF", 3) == 0)
        return codec_decode_jpeg(data, size, limits, out, err);
    if (size >= 8 && memcmp(data, "\x89PNG\r\n\x1A\n", 8) == 0)
        return codec_decode_png(data, size, limits, out, err);
    const char *name = codec_guess(data, size);
    if (!name)
        return error_set(err, ERROR_FORMAT, "the bytes are neither JPEG nor PNG");
    error_set(err, ERROR_UNSUPPORTED, "the picture looks like %s", name);
    return error_hint(err, "send JPEG or PNG, or raw pixels");
}
