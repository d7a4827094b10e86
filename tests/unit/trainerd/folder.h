#pragma once
#include "common/base/file.h"
#include "trainerd/dataset.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/** A temporary folder of a test, and files in it. */
struct test_folder {
    char path[64];
    char *paths[16]; /* that folder_path gave */
    size_t used;
};

static inline int folder_setup(void **state) {
    struct test_folder *folder = calloc(1, sizeof *folder);
    snprintf(folder->path, sizeof folder->path, "/tmp/thorax-test-XXXXXX");
    *state = folder;
    return folder && mkdtemp(folder->path) ? 0 : -1;
}

static inline int folder_teardown(void **state) {
    struct test_folder *folder = *state;
    bool ok = file_remove_tree(folder->path, NULL);
    for (size_t i = 0; i < folder->used; i++)
        free(folder->paths[i]);
    free(folder);
    return ok ? 0 : -1;
}

/** The full path of a name in the folder; lives as long as the folder. */
static inline const char *folder_path(struct test_folder *folder, const char *name) {
    assert_true(folder->used < sizeof folder->paths / sizeof folder->paths[0]);
    assert_true(asprintf(&folder->paths[folder->used], "%s/%s", folder->path, name) > 0);
    return folder->paths[folder->used++];
}

/** Writes a file and the folders above it; without the care, and the cost, of file_write_atomic. */
static inline void folder_write(const struct test_folder *folder, const char *name, const void *data,
                                size_t size) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder->path, name);
    char *slash = strrchr(path, '/');
    *slash = 0;
    assert_true(file_make_folders(path, NULL));
    *slash = '/';
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/** Writes a text file. */
static inline void folder_text(const struct test_folder *folder, const char *name, const char *text) {
    folder_write(folder, name, text, strlen(text));
}

/** Writes count files whose content is their name. format takes two numbers: patient (three files each) and
 * file. */
static inline void folder_files(const struct test_folder *folder, const char *format, int count) {
    for (int i = 0; i < count; i++) {
        char name[256];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(name, sizeof name, format, i / 3 + 1, i + 1);
#pragma GCC diagnostic pop
        folder_text(folder, name, name);
    }
}

static inline struct dataset open_dataset(const struct dataset_spec *spec) {
    struct dataset dataset;
    struct error err = {0};
    if (!dataset_open(&dataset, spec, &err))
        fail_msg("%s", err.message);
    return dataset;
}

/** Opening fails, and the message holds that text. */
static inline void refuse_dataset(const struct dataset_spec *spec, const char *text) {
    struct dataset dataset;
    struct error err = {0};
    assert_false(dataset_open(&dataset, spec, &err));
    if (!strstr(err.message, text))
        fail_msg("\"%s\" does not say \"%s\"", err.message, text);
}

static inline const struct dataset_sample *find_sample(const struct dataset *dataset, const char *name) {
    for (int64_t i = 0; i < dataset->count; i++)
        if (strcmp(dataset->samples[i].name, name) == 0)
            return &dataset->samples[i];
    fail_msg("no sample %s", name);
    return NULL;
}

static inline bool has_note(const struct dataset *dataset, const char *text) {
    for (int i = 0; i < dataset->note_count; i++)
        if (strstr(dataset->notes[i], text))
            return true;
    return false;
}
