#include "tests/unit/trainerd/folder.h"

static struct dataset_spec spec_of(struct test_folder *folder) {
    return (struct dataset_spec){.manifest = folder_path(folder, "m/all.csv")};
}

static void columns_give_path_class_patient_and_split(void **state) {
    folder_text(*state, "m/all.csv",
                "\xEF\xBB\xBFpatient,path,note,class,split\r\n"
                "p1,a/one.png,x,NORMAL,train\r\n"
                "p1,a/two.png,\"a, \"\"quoted\"\" note\",NORMAL,test\r\n"
                ",/three.png,,PNEUMONIA,\r\n"
                "\r\n"
                "p2,\"a,four.png\",,PNEUMONIA,train");
    struct dataset_spec spec = spec_of(*state);
    struct dataset dataset = open_dataset(&spec);
    assert_int_equal(dataset.count, 4);
    assert_int_equal(find_sample(&dataset, "a/two.png")->part, DATASET_TEST);
    assert_int_equal(find_sample(&dataset, "a/one.png")->group, find_sample(&dataset, "a/two.png")->group);
    assert_string_equal(find_sample(&dataset, "a/one.png")->path, folder_path(*state, "m/a/one.png"));
    assert_string_equal(find_sample(&dataset, "/three.png")->path, "/three.png");
    assert_int_equal(find_sample(&dataset, "a,four.png")->label, 1);
    assert_int_equal(dataset.groups, 3);
    dataset_close(&dataset);
}

static void broken_manifests_name_the_line(void **state) {
    static const char *const table[][2] = {
        {"", "all.csv:1: the first line names the columns"},
        {"file,class\na,NORMAL\n", "all.csv:1: the first line names the columns"},
        {"path,class\na.png,NORMAL\nb.png\n", "all.csv:3: another number of fields"},
        {"path,class\na.png,NORMAL,x\n", "all.csv:2: another number of fields"},
        {"path,class\n\"a.png,NORMAL\n", "all.csv:2: a broken quote"},
        {"path,class\n\"a\"x,NORMAL\n", "all.csv:2: a broken quote"},
        {"path,class\na.png,normal\n", "all.csv:2: the class is none"},
        {"path,class\n,NORMAL\n", "all.csv:2: the path is empty"},
        {"path,class,split\na.png,NORMAL,dev\n", "all.csv:2: the split is none"},
        {"path,class\na.png,NORMAL\nb.png,PNEUMONIA\na.png,NORMAL\n", "lines 2 and 4"},
        {"path,class\na.png,NORMAL\n", "class PNEUMONIA has no training images"},
        {"path,class\n\xff.png,NORMAL\n", "not UTF-8"},
    };
    struct dataset_spec spec = spec_of(*state);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        folder_text(*state, "m/all.csv", table[i][0]);
        if (i == 9) /* qsort keeps no order among equals: either line may come first */
            refuse_dataset(&spec, "of the manifest name the same image");
        else
            refuse_dataset(&spec, table[i][1]);
    }
}

static void devices_are_not_read_to_their_end(void **state) {
    folder_text(*state, "m/all.csv", "path,class\n/dev/zero,NORMAL\n/dev/random,PNEUMONIA\n");
    struct dataset_spec spec = spec_of(*state);
    struct dataset dataset = open_dataset(&spec);
    assert_int_equal(dataset.count, 2);
    dataset_close(&dataset);
}

static void missing_manifest_is_named(void **state) {
    struct dataset_spec spec = spec_of(*state);
    refuse_dataset(&spec, "m/all.csv");
}

#define FOLDER_TEST(name) cmocka_unit_test_setup_teardown(name, folder_setup, folder_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(columns_give_path_class_patient_and_split),
        FOLDER_TEST(broken_manifests_name_the_line),
        FOLDER_TEST(devices_are_not_read_to_their_end),
        FOLDER_TEST(missing_manifest_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
