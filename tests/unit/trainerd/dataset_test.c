#include "trainerd/dataset.h"
#include "tests/unit/trainerd/folder.h"
#include "trainerd/dataset_build.h"

static void patients_follow_the_naming_of_the_data(void **state) {
    (void)state;
    static const char *const table[][2] = {
        {"train/PNEUMONIA/person12_bacteria_47.jpeg", "person12_bacteria"},
        {"train/PNEUMONIA/person12_virus_47.jpeg", "person12_virus"},
        {"person1_virus_11_2.jpeg", "person1_virus"},
        {"train/NORMAL/IM-0115-0001.jpeg", "IM-0115"},
        {"IM-0497-0001-0002.jpeg", "IM-0497"},
        {"NORMAL2-IM-0385-0001.jpeg", "NORMAL2-IM-0385"},
        {"test/INVALID/phantom17-2.png", "phantom17"},
        {"a/person12.jpeg", "/a/person12.jpeg"},
        {"a/IM-x.jpeg", "/a/IM-x.jpeg"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char patient[DATASET_PATIENT_SIZE];
        dataset_patient(table[i][0], patient);
        assert_string_equal(patient, table[i][1]);
    }
}

/* Three classes of 120, 240 and 60 images, three images a patient; a validation part of 8 + 8. */
static void write_layout(const struct test_folder *folder) {
    folder_files(folder, "d/train/NORMAL/IM-%04d-%04d.jpeg", 120);
    folder_files(folder, "d/train/PNEUMONIA/person%d_bacteria_%d.jpeg", 240);
    folder_files(folder, "d/train/INVALID/phantom%d-%d.png", 60);
    folder_files(folder, "d/val/NORMAL/NORMAL2-IM-%04d-%04d.jpeg", 8);
    folder_files(folder, "d/val/PNEUMONIA/person9%d_virus_%d.jpeg", 8);
    folder_files(folder, "d/test/NORMAL/IM-9%03d-%04d.jpeg", 6);
    folder_files(folder, "d/test/PNEUMONIA/person8%d_virus_%d.jpeg", 6);
}

static void folders_give_class_and_part(void **state) {
    write_layout(*state);
    folder_text(*state, "d/train/NORMAL/.DS_Store", "x");
    folder_text(*state, "d/train/NORMAL/readme.txt", "x");
    struct dataset dataset = open_dataset(&(struct dataset_spec){.directory = folder_path(*state, "d")});
    assert_int_equal(dataset.count, 120 + 240 + 60 + 16 + 12);
    assert_int_equal(dataset.classes, 3);
    assert_string_equal(dataset.class_names[2], "INVALID");
    assert_int_equal(find_sample(&dataset, "test/PNEUMONIA/person81_virus_1.jpeg")->label, 1);
    assert_int_equal(find_sample(&dataset, "test/PNEUMONIA/person81_virus_1.jpeg")->part, DATASET_TEST);
    assert_int_equal(dataset_count(&dataset, DATASET_TEST, 0), 6);
    assert_true(has_note(&dataset, "passed over 1 entries"));
    dataset_close(&dataset);
}

static void small_validation_is_split_anew_and_said(void **state) {
    write_layout(*state);
    struct dataset dataset = open_dataset(
        &(struct dataset_spec){.directory = folder_path(*state, "d"), .validation_fraction = 0.2, .seed = 5});
    assert_true(has_note(&dataset, "fewer than 32: merged into train and split anew"));
    /* A fifth of 128, 248 and 60, give or take the last patient's images. */
    assert_in_range(dataset_count(&dataset, DATASET_VALIDATION, 0), 26, 28);
    assert_in_range(dataset_count(&dataset, DATASET_VALIDATION, 1), 50, 52);
    assert_in_range(dataset_count(&dataset, DATASET_VALIDATION, 2), 12, 14);
    assert_true(has_note(&dataset, "only 12 images of class INVALID"));
    dataset_close(&dataset);
}

static void no_patient_is_on_both_sides(void **state) {
    write_layout(*state);
    struct dataset dataset = open_dataset(&(struct dataset_spec){.directory = folder_path(*state, "d")});
    for (int64_t i = 0; i < dataset.count; i++)
        for (int64_t j = 0; j < i; j++)
            if (dataset.samples[i].group == dataset.samples[j].group)
                assert_int_equal(dataset.samples[i].part, dataset.samples[j].part);
    /* Three images a patient, the last of 8 in a folder two. */
    assert_int_equal(dataset.groups, 40 + 80 + 20 + 3 + 3 + 2 + 2);
    dataset_close(&dataset);
}

static bool same_parts(const struct dataset *a, const struct dataset *b) {
    bool same = a->count == b->count;
    for (int64_t i = 0; same && i < a->count; i++)
        same = a->samples[i].part == b->samples[i].part;
    return same;
}

static void split_follows_from_the_seed(void **state) {
    write_layout(*state);
    struct dataset_spec spec = {.directory = folder_path(*state, "d"), .seed = 5};
    struct dataset first = open_dataset(&spec), again = open_dataset(&spec);
    spec.seed = 6;
    struct dataset other = open_dataset(&spec);
    assert_true(same_parts(&first, &again));
    assert_false(same_parts(&first, &other));
    assert_true(digest_equal(&first.digest, &other.digest));
    dataset_close(&first);
    dataset_close(&again);
    dataset_close(&other);
}

static void large_validation_is_kept(void **state) {
    folder_files(*state, "d/train/NORMAL/IM-%04d-%04d.jpeg", 60);
    folder_files(*state, "d/train/PNEUMONIA/person%d_virus_%d.jpeg", 60);
    folder_files(*state, "d/val/NORMAL/IM-9%03d-%04d.jpeg", 33);
    folder_files(*state, "d/val/PNEUMONIA/person9%d_virus_%d.jpeg", 33);
    struct dataset dataset = open_dataset(&(struct dataset_spec){.directory = folder_path(*state, "d")});
    assert_int_equal(dataset_count(&dataset, DATASET_VALIDATION, 0), 33);
    assert_int_equal(dataset_count(&dataset, DATASET_TRAIN, 1), 60);
    assert_int_equal(dataset.note_count, 0);
    dataset_close(&dataset);
}

static void patient_in_train_and_test_is_said(void **state) {
    write_layout(*state);
    folder_text(*state, "d/test/NORMAL/IM-0001-0099.jpeg", "x");
    struct dataset dataset = open_dataset(&(struct dataset_spec){.directory = folder_path(*state, "d")});
    assert_true(has_note(&dataset, "1 patients are both in train and in test") ||
                has_note(&dataset, "1 patients are both in validation and in test"));
    dataset_close(&dataset);
}

static void missing_and_empty_classes_are_named(void **state) {
    struct dataset_spec spec = {.directory = folder_path(*state, "d")};
    refuse_dataset(&spec, "d/train/NORMAL: there is no such folder");
    folder_files(*state, "d/train/NORMAL/IM-%04d-%04d.jpeg", 9);
    refuse_dataset(&spec, "d/train/PNEUMONIA: there is no such folder");
    folder_text(*state, "d/train/PNEUMONIA/readme.txt", "x");
    refuse_dataset(&spec, "class PNEUMONIA has no training images");
    spec.invalid_directory = folder_path(*state, "nowhere");
    refuse_dataset(&spec, "nowhere: there is no such folder");
}

static void sources_exclude_each_other(void **state) {
    (void)state;
    refuse_dataset(&(struct dataset_spec){0}, "no data set");
    refuse_dataset(&(struct dataset_spec){.npz = "a", .manifest = "b"}, "more than one way");
    refuse_dataset(&(struct dataset_spec){.npz = "a", .validation_list = "b"},
                   "goes with a data set directory");
    refuse_dataset(&(struct dataset_spec){.npz = "a", .validation_fraction = 0.7}, "fraction");
}

static void invalid_directory_brings_the_class(void **state) {
    folder_files(*state, "d/train/NORMAL/IM-%04d-%04d.jpeg", 99);
    folder_files(*state, "d/train/PNEUMONIA/person%d_virus_%d.jpeg", 99);
    folder_files(*state, "x/train/cat%d_%d.jpg", 50);
    folder_files(*state, "x/val/dog%d_%d.jpg", 40);
    struct dataset dataset =
        open_dataset(&(struct dataset_spec){.directory = folder_path(*state, "d"),
                                            .invalid_directory = folder_path(*state, "x"),
                                            .validation_fraction = 0.4});
    assert_int_equal(dataset.classes, 3);
    assert_int_equal(
        dataset_count(&dataset, DATASET_TRAIN, 2) + dataset_count(&dataset, DATASET_VALIDATION, 2), 90);
    assert_int_equal(find_sample(&dataset, "invalid-directory/val/dog1_1.jpg")->label, 2);
    dataset_close(&dataset);
}

static void mapping_gathers_folders_of_a_class(void **state) {
    folder_files(*state, "d/clear/a%d_%d.png", 40);
    folder_files(*state, "d/bacterial/train/b%d_%d.png", 30);
    folder_files(*state, "d/bacterial/test/b9%d_%d.png", 5);
    folder_files(*state, "d/viral/c%d_%d.png", 20);
    const char *const clear[] = {"clear"}, *const sick[] = {"bacterial", "viral"};
    const struct dataset_folders mapping[] = {{"NORMAL", clear, 1}, {"PNEUMONIA", sick, 2}};
    struct dataset_spec spec = {.directory = folder_path(*state, "d"), .mapping = mapping, .mappings = 2};
    struct dataset dataset = open_dataset(&spec);
    assert_int_equal(dataset.count, 95);
    assert_int_equal(find_sample(&dataset, "PNEUMONIA/1/c1_1.png")->label, 1);
    assert_int_equal(dataset_count(&dataset, DATASET_TEST, 1), 5);
    dataset_close(&dataset);
    const char *const wrong[] = {"nowhere"};
    const struct dataset_folders broken[] = {{"NORMAL", clear, 1}, {"PNEUMONIA", wrong, 1}};
    spec.mapping = broken;
    refuse_dataset(&spec, "nowhere: there is no such folder (class PNEUMONIA)");
}

static void write_list(const struct test_folder *folder, int count) {
    char text[64 * 80] = "";
    for (int i = 0; i < count; i++)
        for (int kind = 0; kind < 2; kind++) {
            char line[80];
            snprintf(line, sizeof line,
                     kind ? "train/NORMAL/IM-%04d-%04d.jpeg\n"
                          : "train/PNEUMONIA/person%d_bacteria_%d.jpeg\n",
                     i / 3 + 1, i + 1);
            strncat(text, line, sizeof text - strlen(text) - 1);
        }
    folder_text(folder, "list.txt", text);
}

static void list_forms_the_validation_part(void **state) {
    write_layout(*state);
    folder_files(*state, "d/val/INVALID/phantom9%d-%d.png", 32);
    write_list(*state, 36);
    struct dataset dataset = open_dataset(&(struct dataset_spec){
        .directory = folder_path(*state, "d"), .validation_list = folder_path(*state, "list.txt")});
    assert_int_equal(dataset_count(&dataset, DATASET_VALIDATION, 0), 36);
    assert_int_equal(dataset_count(&dataset, DATASET_VALIDATION, 1), 36);
    assert_int_equal(find_sample(&dataset, "train/NORMAL/IM-0001-0001.jpeg")->part, DATASET_VALIDATION);
    /* The list says nothing of INVALID, whose own part stays; the 8 + 8 given images of the others go to
     * train. */
    assert_int_equal(dataset_count(&dataset, DATASET_VALIDATION, 2), 32);
    assert_int_equal(find_sample(&dataset, "val/NORMAL/NORMAL2-IM-0001-0001.jpeg")->part, DATASET_TRAIN);
    dataset_close(&dataset);
}

static void list_errors_give_the_line_and_no_name(void **state) {
    write_layout(*state);
    folder_text(*state, "list.txt", "train/NORMAL/IM-0001-0001.jpeg\ntrain/NORMAL/nobody.jpeg\n");
    struct dataset_spec spec = {.directory = folder_path(*state, "d"),
                                .validation_list = folder_path(*state, "list.txt")};
    struct dataset dataset;
    struct error err = {0};
    assert_false(dataset_open(&dataset, &spec, &err));
    assert_non_null(strstr(err.message, "list.txt:2: "));
    assert_null(strstr(err.message, "nobody"));
    folder_text(*state, "list.txt", "test/NORMAL/IM-9001-0001.jpeg\n");
    refuse_dataset(&spec, "list.txt:1: an image of the test part");
}

static void digest_is_of_content_not_of_place(void **state) {
    folder_files(*state, "a/train/NORMAL/IM-%04d-%04d.jpeg", 9);
    folder_files(*state, "a/train/PNEUMONIA/person%d_virus_%d.jpeg", 9);
    /* Same contents under another root: the helper writes each file's name into it, so copy them. */
    char command[256];
    snprintf(command, sizeof command, "cp -r %s/a %s/b", ((struct test_folder *)*state)->path,
             ((struct test_folder *)*state)->path);
    assert_int_equal(system(command), 0);
    struct dataset a = open_dataset(&(struct dataset_spec){.directory = folder_path(*state, "a")});
    struct dataset b = open_dataset(&(struct dataset_spec){.directory = folder_path(*state, "b")});
    assert_true(digest_equal(&a.digest, &b.digest));
    dataset_close(&b);
    folder_text(*state, "b/train/NORMAL/IM-0001-0001.jpeg", "one byte less");
    b = open_dataset(&(struct dataset_spec){.directory = folder_path(*state, "b")});
    assert_false(digest_equal(&a.digest, &b.digest));
    dataset_close(&b);
    dataset_close(&a);
}

#define FOLDER_TEST(name) cmocka_unit_test_setup_teardown(name, folder_setup, folder_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patients_follow_the_naming_of_the_data),
        FOLDER_TEST(folders_give_class_and_part),
        FOLDER_TEST(small_validation_is_split_anew_and_said),
        FOLDER_TEST(no_patient_is_on_both_sides),
        FOLDER_TEST(split_follows_from_the_seed),
        FOLDER_TEST(large_validation_is_kept),
        FOLDER_TEST(patient_in_train_and_test_is_said),
        FOLDER_TEST(missing_and_empty_classes_are_named),
        cmocka_unit_test(sources_exclude_each_other),
        FOLDER_TEST(invalid_directory_brings_the_class),
        FOLDER_TEST(mapping_gathers_folders_of_a_class),
        FOLDER_TEST(list_forms_the_validation_part),
        FOLDER_TEST(list_errors_give_the_line_and_no_name),
        FOLDER_TEST(digest_is_of_content_not_of_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
