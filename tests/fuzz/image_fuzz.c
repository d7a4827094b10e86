#include "common/image/preprocess.h"

#include <stdlib.h>
#include <string.h>

/* Everything that common/image reads from outside: encoded pictures, raw pixels, recipes. The first byte
 * chooses. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct image_limits limits = {.max_bytes = 1 << 20, .max_pixels = 1 << 20, .max_side = 4096};

/* A picture that decodes must also go through the preprocessing, and its pixels must be there to read. */
static void use(struct image *image) {
    const struct recipe recipe = recipe_default(32, 28, 1);
    uint8_t grey[32 * 28];
    if (image->width < 1 || image->height < 1 || (int64_t)image->width * image->height > limits.max_pixels)
        abort();
    preprocess_pixels(&recipe, image, grey, NULL);
    image_fini(image);
}

static void fuzz_raw(const uint8_t *data, size_t size) {
    if (size < 8)
        return;
    struct raw_pixels raw = {.data = data + 8,
                             .size = size - 8,
                             .rows = data[0] | data[1] << 8,
                             .columns = data[2] | data[3] << 8,
                             .bits_allocated = data[4],
                             .bits_stored = (int8_t)data[5],
                             .is_signed = data[6] & 1,
                             .photometric = (enum image_photometric)(data[7] % 4)};
    if (data[6] & 2 && raw.rows > 0 && raw.bits_allocated >= 8) /* half the time, sizes that fit */
        raw.columns = (int)(raw.size * 8 / (size_t)raw.bits_allocated) / raw.rows;
    struct image image;
    if (image_from_raw(&raw, &limits, &image, NULL))
        use(&image);
}

static void fuzz_recipe(const uint8_t *data, size_t size) {
    struct recipe recipe, again;
    char json[RECIPE_JSON_SIZE];
    if (!recipe_parse((const char *)data, size, &recipe, NULL))
        return;
    if (!recipe_print(&recipe, json, sizeof json, NULL) || !recipe_parse(json, strlen(json), &again, NULL) ||
        !recipe_equal(&recipe, &again))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct image image;
    struct error err;
    if (size < 1)
        return 0;
    switch (data[0]) {
    case 'r':
        fuzz_raw(data + 1, size - 1);
        break;
    case '{':
        fuzz_recipe(data, size);
        break;
    default: /* from the first byte on, so that real files are seeds */
        if (image_decode(data, size, &limits, &image, &err))
            use(&image);
    }
    return 0;
}
