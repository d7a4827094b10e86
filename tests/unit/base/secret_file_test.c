#include "common/base/secret_file.h"
#include "tests/unit/base/test.h"

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
    snprintf(folder->path, sizeof folder->path, "/tmp/thorax-secret-XXXXXX");
    *state = folder;
    if (!mkdtemp(folder->path))
        return -1;
    snprintf(folder->file, sizeof folder->file, "%s/a.key", folder->path);
    return file_write_atomic(folder->file, "text", 4, NULL) ? 0 : -1;
}

static int teardown(void **state) {
    struct folder *folder = *state;
    bool ok = file_remove_tree(folder->path, NULL);
    free(folder);
    return ok ? 0 : -1;
}

static bool readable(const char *path, enum secret_access access, mode_t mode, struct error *err) {
    struct bytes bytes;
    *err = (struct error){0};
    assert_int_equal(chmod(path, mode), 0);
    bool ok = secret_file_read(path, access, 100, &bytes, err);
    assert_true(!ok || strcmp((char *)bytes.data, "text") == 0);
    secret_wipe(&bytes);
    return ok;
}

static void a_secret_that_others_can_read_is_refused(void **state) {
    struct folder *folder = *state;
    struct error err;
    assert_true(readable(folder->file, SECRET_PRIVATE, 0600, &err));
    assert_true(readable(folder->file, SECRET_PRIVATE, 0400, &err));
    const mode_t loose[] = {0640, 0604, 0620, 0602, 0610, 0644};
    for (size_t i = 0; i < sizeof loose / sizeof *loose; i++) {
        assert_false(readable(folder->file, SECRET_PRIVATE, loose[i], &err));
        assert_int_equal(err.code, ERROR_INVALID);
        assert_non_null(strstr(err.message, folder->file));
        assert_non_null(strstr(err.hint, "chmod 0600"));
    }
}

static void a_list_that_others_can_write_is_refused(void **state) {
    struct folder *folder = *state;
    struct error err;
    assert_true(readable(folder->file, SECRET_TRUSTED, 0644, &err));
    assert_false(readable(folder->file, SECRET_TRUSTED, 0664, &err));
    assert_false(readable(folder->file, SECRET_TRUSTED, 0646, &err));
    assert_non_null(strstr(err.hint, "chmod 0644"));
}

static void a_stranger_s_file_is_refused(void **state) {
    struct folder *folder = *state;
    struct error err;
    if (geteuid() != 0)
        skip(); /* only root can give files away */
    assert_int_equal(chown(folder->file, 65534, 65534), 0);
    assert_false(readable(folder->file, SECRET_PRIVATE, 0600, &err));
    assert_non_null(strstr(err.message, "belongs to user 65534"));
    assert_false(readable(folder->file, SECRET_TRUSTED, 0644, &err));
}

static void only_a_regular_file_of_limited_size_is_read(void **state) {
    struct folder *folder = *state;
    struct error err = {0};
    struct bytes bytes;
    char link[160];
    snprintf(link, sizeof link, "%s/link", folder->path);
    assert_int_equal(chmod(folder->file, 0600), 0);
    assert_int_equal(symlink(folder->file, link), 0);
    assert_false(secret_file_read(link, SECRET_PRIVATE, 100, &bytes, &err));
    assert_non_null(strstr(err.message, "symbolic link"));
    assert_false(secret_file_read(folder->path, SECRET_TRUSTED, 100, &bytes, &err));
    assert_non_null(strstr(err.message, "not a regular file"));
    assert_false(secret_file_read(folder->file, SECRET_PRIVATE, 3, &bytes, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
    assert_false(secret_file_read("/nowhere/a.key", SECRET_PRIVATE, 100, &bytes, &err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
}

static void pairs_are_written_once_and_whole(void **state) {
    struct folder *folder = *state;
    struct error err = {0};
    struct stat status;
    char name[96], path[128];
    snprintf(name, sizeof name, "%s/pair", folder->path);
    mode_t before = umask(0);
    assert_true(secret_file_write_pair(name, "secret", "public", &err));
    umask(before);
    snprintf(path, sizeof path, "%s.key", name);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_false(secret_file_write_pair(name, "other", "other", &err));
    assert_int_equal(err.code, ERROR_STATE);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_size, strlen("secret"));

    assert_int_equal(unlink(path), 0); /* a .pub alone: no .key is left beside it */
    assert_false(secret_file_write_pair(name, "other", "other", &err));
    assert_int_equal(access(path, F_OK), -1);
}

static bool parses(const char *text, struct error *err) {
    char a[4], b[3];
    const struct key_line lines[] = {{"first", a, sizeof a}, {"second", b, sizeof b}};
    *err = (struct error){0};
    bool ok = key_text_parse(text, "file", "Title 1", lines, 2, err);
    assert_true(!ok || (strcmp(a, "#ab") == 0 && strcmp(b, "cd") == 0));
    return ok;
}

static void key_texts_are_taken_apart(void **state) {
    (void)state;
    struct error err;
    assert_true(parses("Title 1\nfirst #ab\nsecond cd\n", &err));
    assert_true(parses("Title 1\n# a remark\n\nsecond cd\n#\nfirst #ab", &err));
    const struct {
        const char *text, *fault;
    } wrong[] = {
        {"", "the first line is not \"Title 1\""},
        {"Title 12\nfirst #ab\nsecond cd\n", "the first line is not \"Title 1\""},
        {"Title 1\nfirst #ab\n", "no line \"second\""},
        {"Title 1\nfirst #ab\nfirst #ab\n", "file:3: given twice"},
        {"Title 1\nfirst #abc\nsecond cd\n", "file:2: its value has not the right length"},
        {"Title 1\nfirst \nsecond cd\n", "file:2: its value has not the right length"},
        {"Title 1\nfirst\nsecond cd\n", "file:2: no line of such a file"},
        {"Title 1\nthird ef\n", "file:2: no line of such a file"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_false(parses(wrong[i].text, &err));
        assert_int_equal(err.code, ERROR_FORMAT);
        assert_non_null(strstr(err.message, wrong[i].fault));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_secret_that_others_can_read_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_list_that_others_can_write_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stranger_s_file_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(only_a_regular_file_of_limited_size_is_read, setup, teardown),
        cmocka_unit_test_setup_teardown(pairs_are_written_once_and_whole, setup, teardown),
        cmocka_unit_test(key_texts_are_taken_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
