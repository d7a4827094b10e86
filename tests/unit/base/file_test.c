#include "common/base/digest.h"
#include "common/base/file.h"
#include "tests/unit/base/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct folder {
    char path[64], file[128];
};

static int setup(void **state) {
    struct folder *folder = calloc(1, sizeof *folder);
    snprintf(folder->path, sizeof folder->path, "/tmp/thorax-file-XXXXXX");
    *state = folder;
    if (!mkdtemp(folder->path))
        return -1;
    snprintf(folder->file, sizeof folder->file, "%s/file", folder->path);
    return 0;
}

static int teardown(void **state) {
    struct folder *folder = *state;
    bool ok = file_remove_tree(folder->path, NULL);
    free(folder);
    return ok ? 0 : -1;
}

static int entries(const char *path) {
    int count = 0;
    DIR *folder = opendir(path);
    while (folder && readdir(folder))
        count++;
    closedir(folder);
    return count - 2;
}

static void what_is_written_is_read(void **state) {
    struct folder *folder = *state;
    struct error err = {0};
    struct bytes bytes;
    assert_true(file_write_atomic(folder->file, "old", 3, &err));
    struct bytes parts[] = {{(uint8_t *)"ab", 2}, {(uint8_t *)"", 0}, {(uint8_t *)"c\0d", 3}};
    assert_true(file_write_atomic_parts(folder->file, parts, 3, &err));
    assert_true(file_read(folder->file, 5, &bytes, &err));
    assert_int_equal(bytes.size, 5);
    assert_memory_equal(bytes.data, "abc\0d\0", 6);
    free(bytes.data);
    assert_int_equal(entries(folder->path), 1); /* no temporary is left */
}

static void reading_keeps_to_the_limit(void **state) {
    struct folder *folder = *state;
    struct error err = {0};
    struct bytes bytes;
    assert_true(file_write_atomic(folder->file, "12345", 5, &err));
    assert_false(file_read(folder->file, 4, &bytes, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
    assert_null(bytes.data);
}

static void only_regular_files_are_read(void **state) {
    struct folder *folder = *state;
    struct error err = {0};
    struct bytes bytes;
    struct file_map map;
    assert_false(file_read(folder->file, 10, &bytes, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    assert_false(file_read(folder->path, 10, &bytes, &err));
    assert_int_equal(mkfifo(folder->file, 0600), 0);
    assert_false(file_read(folder->file, 10, &bytes, &err)); /* and does not wait for a writer */
    assert_int_equal(err.code, ERROR_INVALID);
    assert_false(file_map_open(folder->file, &map, &err));
    assert_int_equal(err.code, ERROR_INVALID);
}

static void a_write_that_fails_leaves_the_old_file(void **state) {
    struct folder *folder = *state;
    struct error err = {0};
    char below[160];
    snprintf(below, sizeof below, "%s/inside/file", folder->path);
    assert_false(file_write_atomic(below, "x", 1, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    assert_int_equal(mkdir(folder->file, 0700), 0); /* rename onto a folder fails */
    assert_false(file_write_atomic(folder->file, "x", 1, &err));
    assert_true(file_is_folder(folder->file));
    assert_int_equal(entries(folder->path), 1);
}

static void maps_show_the_file(void **state) {
    struct folder *folder = *state;
    struct file_map map;
    assert_true(file_write_atomic(folder->file, "mapped", 6, NULL) && file_map_open(folder->file, &map, NULL));
    assert_int_equal(map.size, 6);
    assert_memory_equal(map.data, "mapped", 6);
    file_map_close(&map);
    assert_null(map.data);
    assert_true(file_write_atomic(folder->file, "", 0, NULL) && file_map_open(folder->file, &map, NULL));
    assert_null(map.data);
    assert_int_equal(map.size, 0);
    file_map_close(&map);
}

static void folders_are_made_with_those_above(void **state) {
    struct folder *folder = *state;
    struct error err = {0};
    char deep[160];
    snprintf(deep, sizeof deep, "%s/a/b/c", folder->path);
    assert_true(file_make_folders(deep, &err) && file_is_folder(deep) && file_make_folders(deep, &err));
    assert_true(file_write_atomic(folder->file, "x", 1, &err));
    assert_false(file_make_folders(folder->file, &err));
    assert_true(file_exists(folder->file) && !file_is_folder(folder->file));
    assert_true(file_sync_folder(deep, &err));
}

static void removing_does_not_follow_links(void **state) {
    struct folder *folder = *state;
    char tree[160], kept[200], link[200];
    snprintf(tree, sizeof tree, "%s/tree", folder->path);
    snprintf(kept, sizeof kept, "%s/kept", folder->path);
    snprintf(link, sizeof link, "%s/link", tree);
    assert_true(file_make_folders(tree, NULL) && file_make_folders(kept, NULL));
    assert_int_equal(symlink(kept, link), 0);
    assert_true(file_remove_tree(tree, NULL));
    assert_false(file_exists(tree));
    assert_true(file_is_folder(kept));
    assert_true(file_remove_tree(tree, NULL)); /* gone already */
}

static void paths_that_do_not_fit_are_refused(void **state) {
    (void)state;
    char out[8];
    struct error err = {0};
    assert_true(file_join(out, sizeof out, "abc", "def", &err));
    assert_string_equal(out, "abc/def");
    assert_false(file_join(out, sizeof out, "abc", "defg", &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
}

/* FIPS 180-4's examples (NIST, "SHA-256 example"): no byte, one block, two blocks, a million times "a". */
static const struct {
    const char *text, *hex;
    int times;
} vectors[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 1},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 1},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1", 1},
    {"aaaaaaaaaa", "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0", 100000},
};

static void digests_are_sha_256(void **state) {
    struct folder *folder = *state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        struct digest_state digesting;
        char hex[DIGEST_HEX_SIZE];
        FILE *file = fopen(folder->file, "wb");
        digest_init(&digesting);
        for (int j = 0; j < vectors[i].times; j++) {
            digest_update(&digesting, vectors[i].text, strlen(vectors[i].text));
            fputs(vectors[i].text, file);
        }
        fclose(file);
        struct digest pieces = digest_final(&digesting), whole;
        assert_string_equal(digest_hex(&pieces, hex), vectors[i].hex);
        assert_true(digest_file(folder->file, &whole, NULL) && digest_equal(&whole, &pieces));
        whole = digest_of(vectors[i].text, strlen(vectors[i].text));
        assert_int_equal(digest_equal(&whole, &pieces), vectors[i].times == 1);
    }
    struct digest digest;
    struct error err = {0};
    assert_false(digest_file("/nonexistent/file", &digest, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
}

static void only_64_hexadecimal_digits_are_a_digest(void **state) {
    (void)state;
    struct digest digest, again;
    struct error err = {0};
    char hex[80];
    assert_true(digest_parse(vectors[1].hex, &digest, &err));
    again = digest_of("abc", 3);
    assert_true(digest_equal(&digest, &again));
    snprintf(hex, sizeof hex, "%s0", vectors[1].hex);
    assert_false(digest_parse(hex, &digest, &err));
    hex[63] = '\0';
    assert_false(digest_parse(hex, &digest, &err));
    snprintf(hex, sizeof hex, "%s", vectors[1].hex);
    hex[20] = 'g';
    assert_false(digest_parse(hex, &digest, &err));
    assert_int_equal(err.code, ERROR_FORMAT);
    assert_false(digest_parse("", &digest, &err));
}

static void random_numbers_differ(void **state) {
    (void)state;
    assert_true(digest_random_u64() != digest_random_u64());
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(what_is_written_is_read),
        IN_FOLDER(reading_keeps_to_the_limit),
        IN_FOLDER(only_regular_files_are_read),
        IN_FOLDER(a_write_that_fails_leaves_the_old_file),
        IN_FOLDER(maps_show_the_file),
        IN_FOLDER(folders_are_made_with_those_above),
        IN_FOLDER(removing_does_not_follow_links),
        cmocka_unit_test(paths_that_do_not_fit_are_refused),
        IN_FOLDER(digests_are_sha_256),
        cmocka_unit_test(only_64_hexadecimal_digits_are_a_digest),
        cmocka_unit_test(random_numbers_differ),
    };
    return digest_start(NULL) ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
