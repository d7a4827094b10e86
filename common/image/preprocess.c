#include "common/image/preprocess.h"

#include "common/image/resize.h"
#include "common/op/variation.h"

#include <stdlib.h>

static uint8_t to_eight_bits(uint16_t sample) {
    return (uint8_t)((sample + 128u) / 257u);
}

/* ITU-R 601 luma in Pillow's fixed point (Convert.c, L24). */
static uint8_t luma(uint32_t red, uint32_t green, uint32_t blue) {
    return (uint8_t)((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16);
}

/* Row y as 8-bit grey; the picture's own row where it is that already, else in buffer (width). */
static const uint8_t *grey_row(const struct image *image, int y, uint8_t *buffer) {
    const size_t stride = (size_t)image->width * (size_t)image->channels;
    const uint8_t *bytes = (const uint8_t *)image->pixels + (image->bits == 8 ? (size_t)y * stride : 0);
    const uint16_t *words = (const uint16_t *)image->pixels + (image->bits == 16 ? (size_t)y * stride : 0);
    if (image->bits == 8 && image->channels == 1)
        return bytes;
    for (int x = 0; x < image->width; x++) {
        if (image->channels == 1)
            buffer[x] = to_eight_bits(words[x]);
        else if (image->bits == 8)
            buffer[x] = luma(bytes[3 * x], bytes[3 * x + 1], bytes[3 * x + 2]);
        else
            buffer[x] = luma(to_eight_bits(words[3 * x]), to_eight_bits(words[3 * x + 1]),
                             to_eight_bits(words[3 * x + 2]));
    }
    return buffer;
}

static bool resize(const struct recipe *recipe, const struct image *image, uint8_t *grey, struct error *err) {
    struct resize_axis across = {0}, down = {0};
    uint8_t *row = malloc((size_t)image->width);
    uint8_t *strip = malloc((size_t)image->height * (size_t)recipe->width); // (image->height, recipe->width)
    int32_t *sums = malloc((size_t)recipe->width * sizeof *sums);
    bool ok = (row && strip && sums) || error_set(err, ERROR_MEMORY, "no memory to resize a picture");
    ok = ok && resize_axis_init(&across, image->width, recipe->width, err) &&
         resize_axis_init(&down, image->height, recipe->height, err);
    for (int y = 0; ok && y < image->height; y++)
        resize_row(&across, grey_row(image, y, row), strip + (size_t)y * (size_t)recipe->width);
    for (int y = 0; ok && y < recipe->height; y++)
        resize_column_row(&down, strip, recipe->width, y, sums, grey + (size_t)y * (size_t)recipe->width);
    resize_axis_fini(&down);
    resize_axis_fini(&across);
    free(sums);
    free(strip);
    free(row);
    return ok;
}

bool preprocess_pixels(const struct recipe *recipe, const struct image *image, uint8_t *grey,
                       struct error *err) {
    if (!recipe_check(recipe, err))
        return false;
    if (!image->pixels || image->width < PREPROCESS_MIN_SOURCE || image->height < PREPROCESS_MIN_SOURCE)
        return error_set(err, ERROR_INVALID, "a picture of %d x %d pixels is too small to show a chest",
                         image->width, image->height);
    return resize(recipe, image, grey, err);
}

void preprocess_normalise(const struct recipe *recipe, const uint8_t *grey, float *out) {
    const size_t pixels = recipe_pixels(recipe);
    for (int c = 0; c < recipe->channels; c++) {
        float table[256];
        for (int shade = 0; shade < 256; shade++)
            table[shade] = variation_normalised((uint8_t)shade, recipe->mean[c], recipe->stddev[c]);
        float *plane = out + (size_t)c * pixels;
        for (size_t i = 0; i < pixels; i++)
            plane[i] = table[grey[i]];
    }
}
