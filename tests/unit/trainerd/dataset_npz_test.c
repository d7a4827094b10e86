#include "tests/unit/trainerd/folder.h"

/* Expected pixels and labels: make_npz.py. */
static void check_archive(const char *path) {
    struct dataset dataset = open_dataset(&(struct dataset_spec){.npz = path});
    assert_int_equal(dataset.count, 12 + 3 + 4);
    assert_int_equal(dataset_count(&dataset, DATASET_TEST, 0), 2);
    const struct dataset_sample *sample = find_sample(&dataset, "train/00000007");
    assert_int_equal(sample->height, 5);
    assert_int_equal(sample->width, 4);
    assert_int_equal(sample->channels, 1);
    assert_int_equal(sample->label, 1);
    for (int y = 0; y < 5; y++)
        for (int x = 0; x < 4; x++)
            assert_int_equal(sample->pixels[y * 4 + x], 7 * 7 + y * 3 + x);
    dataset_close(&dataset);
}

static void deflated_archive_of_numpy_is_read(void **state) {
    (void)state;
    check_archive("tests/unit/trainerd/npz/medmnist.npz");
}

static void stored_archive_with_64_bit_labels_is_read(void **state) {
    (void)state;
    check_archive("tests/unit/trainerd/npz/medmnist_stored.npz");
}

/* Archives written by make_npz.py, each wrong in one way. */
static void arrays_that_do_not_fit_are_refused(void **state) {
    (void)state;
    static const char *const table[][2] = {
        {"bad_label.npz", "label 2 of image 5 is none of the 2 classes"},
        {"bad_count.npz", "train_labels.npy: 11 labels for 12 images"},
        {"bad_type.npz", "train_images.npy: images are (N, H, W)"},
        {"bad_order.npz", "train_images.npy: an array in Fortran order"},
        {"bad_keys.npz", "train_labels.npy is not in the archive"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char path[128];
        snprintf(path, sizeof path, "tests/unit/trainerd/npz/%s", table[i][0]);
        refuse_dataset(&(struct dataset_spec){.npz = path}, table[i][1]);
    }
}

static void colour_pictures_are_read(void **state) {
    (void)state;
    struct dataset dataset =
        open_dataset(&(struct dataset_spec){.npz = "tests/unit/trainerd/npz/colour.npz"});
    const struct dataset_sample *sample = find_sample(&dataset, "train/00000002");
    assert_int_equal(sample->channels, 3);
    assert_int_equal(sample->pixels[4], 2 * 7 + 1);
    dataset_close(&dataset);
}

/* Whichever byte is wrong, the reader says so or the byte does not matter; the sanitizers watch. */
static void damaged_bytes_are_survived(void **state) {
    static const char *const files[] = {"tests/unit/trainerd/npz/medmnist.npz",
                                        "tests/unit/trainerd/npz/medmnist_stored.npz"};
    for (int file = 0; file < 2; file++) {
        struct bytes bytes;
        assert_true(file_read(files[file], 1 << 20, &bytes, NULL));
        int refused = 0;
        const char *path = folder_path(*state, file ? "a.npz" : "b.npz");
        for (size_t i = 0; i < bytes.size; i += 3) {
            uint8_t kept = bytes.data[i];
            bytes.data[i] = i % 2 ? 0xff : (uint8_t)(kept ^ 0x41);
            folder_write(*state, file ? "a.npz" : "b.npz", bytes.data, bytes.size);
            struct dataset dataset;
            bool ok = dataset_open(&dataset, &(struct dataset_spec){.npz = path}, NULL);
            refused += !ok;
            dataset_close(&dataset);
            bytes.data[i] = kept;
        }
        assert_true(refused > (int)bytes.size / 6);
        free(bytes.data);
    }
}

static void every_truncation_is_refused(void **state) {
    struct bytes bytes;
    assert_true(file_read("tests/unit/trainerd/npz/medmnist.npz", 1 << 20, &bytes, NULL));
    const char *path = folder_path(*state, "a.npz");
    for (size_t size = 0; size < bytes.size; size += 7) {
        folder_write(*state, "a.npz", bytes.data, size);
        struct dataset dataset;
        assert_false(dataset_open(&dataset, &(struct dataset_spec){.npz = path}, NULL));
    }
    free(bytes.data);
}

#define FOLDER_TEST(name) cmocka_unit_test_setup_teardown(name, folder_setup, folder_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deflated_archive_of_numpy_is_read),
        cmocka_unit_test(stored_archive_with_64_bit_labels_is_read),
        cmocka_unit_test(arrays_that_do_not_fit_are_refused),
        cmocka_unit_test(colour_pictures_are_read),
        FOLDER_TEST(damaged_bytes_are_survived),
        FOLDER_TEST(every_truncation_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
