#include "common/image/preprocess.h"

#include "tests/unit/image/support.h"

#include <dirent.h>
#include <stdlib.h>

/* With real pictures where they lie beside the checkout; skipped, and said, where they do not. */
static const char ORIGINALS[] = "../shared/data/originals", COPIES[] = "../shared/data/chest_xray/train";

static bool load_grey(const char *path, const struct recipe *recipe, uint8_t *grey, struct error *err) {
    struct bytes file;
    struct image image;
    if (!file_read(path, (size_t)64 << 20, &file, err))
        return false;
    bool ok =
        image_decode(file.data, file.size, NULL, &image, err) && preprocess_pixels(recipe, &image, grey, err);
    image_fini(&image);
    free(file.data);
    return ok;
}

/* The mean distance in grey levels between an original as we shrink it and its 224 x 224 copy, or -1 without
 * a copy. */
static double distance_of(const char *class_name, const char *file) {
    const struct recipe recipe = recipe_default(224, 224, 1);
    static uint8_t ours[224 * 224], copy[224 * 224];
    char path[512];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/%s/%s", COPIES, class_name, file);
    if (!load_grey(path, &recipe, copy, &err))
        return -1;
    snprintf(path, sizeof path, "%s/%s/%s", ORIGINALS, class_name, file);
    if (!load_grey(path, &recipe, ours, &err))
        fail_msg("an original of %s: %s", class_name, err.message);
    double sum = 0;
    for (size_t i = 0; i < sizeof ours; i++)
        sum += abs(ours[i] - copy[i]);
    return sum / sizeof ours;
}

/* The copies were made with Pillow's filter and JPEG quality 75; other filters are further away than its
 * noise (2.9). */
static void test_originals_match_their_copies(void **state) {
    (void)state;
    static const char *const classes[] = {"NORMAL", "PNEUMONIA"};
    if (!file_is_folder(ORIGINALS)) {
        print_message("skipped: no real pictures at %s\n", ORIGINALS);
        skip();
    }
    double sum = 0;
    int count = 0;
    for (int c = 0; c < 2; c++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", ORIGINALS, classes[c]);
        DIR *folder = opendir(path);
        assert_non_null(folder);
        for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
            double distance = entry->d_name[0] == '.' ? -1 : distance_of(classes[c], entry->d_name);
            if (distance < 0)
                continue;
            sum += distance;
            count++;
            assert_true(distance < 4);
        }
        closedir(folder);
    }
    print_message("%d originals: %.2f grey levels from their copies on average\n", count, sum / count);
    assert_true(count >= 50 && sum / count <= 1.7);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_originals_match_their_copies)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
