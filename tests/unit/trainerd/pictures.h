#pragma once
#include "common/image/image.h"
#include "common/image/preprocess.h"
#include "tests/unit/trainerd/folder.h"
#include "trainerd/image_cache.h"

enum { PICTURE_SIDE = 32, PICTURES = 45 };

/** A picture whose every pixel tells its number. */
static inline struct image picture_draw(int number) {
    struct image image;
    assert_true(image_init(&image, PICTURE_SIDE + 9, PICTURE_SIDE + 5, 1, 8, NULL));
    uint8_t *pixels = image.pixels;
    for (int y = 0; y < image.height; y++)
        for (int x = 0; x < image.width; x++)
            pixels[y * image.width + x] = (uint8_t)(number * 5 + x * 3 + y * ((number % 4) + 1));
    return image;
}

static inline void picture_name(char *name, size_t size, int number) {
    snprintf(name, size, "d/train/%s/phantom%d-%d.png", number % 3 ? "PNEUMONIA" : "NORMAL", number,
             number % 2);
}

/** PICTURES pictures of two classes under d/train, each of its own patient. */
static inline void pictures_write(const struct test_folder *folder) {
    for (int i = 0; i < PICTURES; i++) {
        char name[128];
        picture_name(name, sizeof name, i);
        struct image image = picture_draw(i);
        struct bytes png;
        assert_true(image_encode_png(&image, NULL, 0, &png, NULL));
        folder_write(folder, name, png.data, png.size);
        free(png.data);
        image_fini(&image);
    }
}

static inline struct dataset pictures_open(struct test_folder *folder) {
    return open_dataset(&(struct dataset_spec){
        .directory = folder_path(folder, "d"), .validation_fraction = 0.25, .seed = 2});
}

static inline struct image_cache pictures_cache(struct test_folder *folder, const struct dataset *dataset,
                                                const struct recipe *recipe) {
    struct image_cache cache;
    struct error err = {0};
    struct image_cache_spec spec = {.folder = folder_path(folder, "cache"), .recipe = recipe, .threads = 2};
    if (!image_cache_open(&cache, dataset, &spec, &err))
        fail_msg("%s", err.message);
    return cache;
}
