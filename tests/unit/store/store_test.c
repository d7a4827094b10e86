#include "common/store/partial.h"
#include "common/store/store.h"

#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* NIST, "SHA-256 example": the one-block message "abc". */
static const char ABC_HEX[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

enum { LIMIT = 1 << 20, CHUNK = 1000 };

struct fixture {
    char folder[64];
    struct store *store;
};

static int setup(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    snprintf(fixture->folder, sizeof fixture->folder, "/tmp/thorax-store-XXXXXX");
    assert_non_null(mkdtemp(fixture->folder));
    fixture->store = store_open(fixture->folder, LIMIT, NULL);
    assert_non_null(fixture->store);
    *state = fixture;
    return 0;
}

static int teardown(void **state) {
    struct fixture *fixture = *state;
    store_close(fixture->store);
    assert_true(file_remove_tree(fixture->folder, NULL));
    free(fixture);
    return 0;
}

static void object_path(const struct fixture *fixture, const struct digest *digest, char out[PATH_MAX]) {
    assert_true(store_path(fixture->store, digest, out, PATH_MAX, NULL));
}

/** Overwrites one byte of a file, whatever its mode. */
static void damage(const char *path, off_t at) {
    assert_int_equal(chmod(path, 0600), 0);
    int descriptor = open(path, O_RDWR);
    uint8_t byte;
    assert_int_equal(pread(descriptor, &byte, 1, at), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(descriptor, &byte, 1, at), 1);
    close(descriptor);
}

static void an_object_is_named_by_its_sha256(void **state) {
    struct fixture *fixture = *state;
    struct digest digest, wanted;
    assert_true(digest_parse(ABC_HEX, &wanted, NULL));
    assert_false(store_has(fixture->store, &wanted));
    assert_true(store_put(fixture->store, "abc", 3, &digest, NULL));
    assert_true(digest_equal(&digest, &wanted));
    char path[PATH_MAX], expected[PATH_MAX];
    object_path(fixture, &digest, path);
    snprintf(expected, sizeof expected, "%s/objects/ba/%s", fixture->folder, ABC_HEX + 2);
    assert_string_equal(path, expected);
    struct file_map map;
    assert_true(store_get(fixture->store, &digest, &map, NULL));
    assert_int_equal(map.size, 3);
    assert_memory_equal(map.data, "abc", 3);
    file_map_close(&map);
}

static void a_file_is_copied_in(void **state) {
    struct fixture *fixture = *state;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/source", fixture->folder);
    assert_true(file_write_atomic(path, "abc", 3, NULL));
    struct digest digest, wanted;
    assert_true(store_put_file(fixture->store, path, &digest, NULL));
    assert_true(digest_parse(ABC_HEX, &wanted, NULL));
    assert_true(digest_equal(&digest, &wanted));
    assert_true(store_verify(fixture->store, &digest, NULL));
}

static void too_large_is_refused_and_leaves_nothing(void **state) {
    struct fixture *fixture = *state;
    struct error err = {0};
    void *large = calloc(1, LIMIT + 1);
    assert_false(store_put(fixture->store, large, LIMIT + 1, NULL, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/source", fixture->folder);
    assert_true(file_write_atomic(path, large, LIMIT + 1, NULL));
    assert_false(store_put_file(fixture->store, path, NULL, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
    free(large);
    struct store_list list;
    assert_true(store_list(fixture->store, &list, NULL));
    assert_int_equal(list.count, 0);
    store_list_fini(&list);
}

static void a_corrupt_object_goes_to_quarantine(void **state) {
    struct fixture *fixture = *state;
    struct digest digest;
    char path[PATH_MAX], aside[PATH_MAX];
    assert_true(store_put(fixture->store, "abc", 3, &digest, NULL));
    object_path(fixture, &digest, path);
    damage(path, 1);
    struct file_map map;
    struct error err = {0};
    assert_false(store_get(fixture->store, &digest, &map, &err));
    assert_int_equal(err.code, ERROR_FORMAT);
    assert_false(store_has(fixture->store, &digest));
    snprintf(aside, sizeof aside, "%s/quarantine/%s", fixture->folder, ABC_HEX);
    assert_true(file_exists(aside));
    assert_true(store_put(fixture->store, "abc", 3, NULL, NULL));
    assert_true(store_verify(fixture->store, &digest, NULL));
}

static void a_truncated_object_is_not_handed_out(void **state) {
    struct fixture *fixture = *state;
    struct digest digest;
    char path[PATH_MAX];
    assert_true(store_put(fixture->store, "abcdef", 6, &digest, NULL));
    object_path(fixture, &digest, path);
    assert_int_equal(truncate(path, 0), 0);
    assert_false(store_verify(fixture->store, &digest, NULL));
    assert_false(store_has(fixture->store, &digest));
}

static void a_store_is_open_once(void **state) {
    struct fixture *fixture = *state;
    struct error err = {0};
    assert_null(store_open(fixture->folder, LIMIT, &err));
    assert_int_equal(err.code, ERROR_BUSY);
}

static void pins_keep_objects_from_being_collected(void **state) {
    struct fixture *fixture = *state;
    struct digest kept, dropped, found;
    assert_true(store_put(fixture->store, "kept", 4, &kept, NULL));
    assert_true(store_put(fixture->store, "dropped", 7, &dropped, NULL));
    assert_true(store_pin(fixture->store, "active", &kept, NULL));
    struct error err = {0};
    assert_false(store_remove(fixture->store, &kept, &err));
    assert_int_equal(err.code, ERROR_STATE);
    struct store_collected collected;
    assert_true(store_collect(fixture->store, 0, &collected, NULL));
    assert_int_equal(collected.objects, 1);
    assert_int_equal(collected.bytes, 7);
    assert_true(store_has(fixture->store, &kept));
    assert_false(store_has(fixture->store, &dropped));
    assert_true(store_pinned(fixture->store, "active", &found, NULL));
    assert_true(digest_equal(&found, &kept));
    assert_true(store_unpin(fixture->store, "active", NULL));
    assert_true(store_collect(fixture->store, 0, &collected, NULL));
    assert_false(store_has(fixture->store, &kept));
}

static void an_unreadable_pin_stops_the_collection(void **state) {
    struct fixture *fixture = *state;
    struct digest digest;
    char path[PATH_MAX];
    assert_true(store_put(fixture->store, "abc", 3, &digest, NULL));
    snprintf(path, sizeof path, "%s/pins/active", fixture->folder);
    assert_true(file_write_atomic(path, "garbage", 7, NULL));
    assert_false(store_collect(fixture->store, 0, NULL, NULL));
    assert_true(store_has(fixture->store, &digest));
}

static void pin_names_cannot_leave_the_folder(void **state) {
    struct fixture *fixture = *state;
    struct digest digest = {{0}};
    static const char *const names[] = {"", "../x", "a/b", ".", ".hidden", "a.b", "a b"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_false(store_pin(fixture->store, names[i], &digest, NULL));
    char text[STORE_PIN_NAME_SIZE + 1];
    memset(text, 'a', sizeof text);
    text[STORE_PIN_NAME_SIZE] = '\0';
    assert_false(store_pin(fixture->store, text, &digest, NULL));
}

/** A file of a few chunks, with its digests. */
struct sample {
    uint8_t data[CHUNK * 3 + 17];
    uint8_t chunk_digests[4 * 32];
    struct partial_spec spec;
};

static void sample_make(struct sample *sample) {
    for (size_t i = 0; i < sizeof sample->data; i++)
        sample->data[i] = (uint8_t)(i * 7 + i / 251);
    for (size_t i = 0; i < 4; i++) {
        struct digest digest = digest_of(sample->data + i * CHUNK, i < 3 ? CHUNK : 17);
        memcpy(sample->chunk_digests + i * 32, digest.bytes, 32);
    }
    sample->spec = (struct partial_spec){
        .digest = digest_of(sample->data, sizeof sample->data),
        .size_bytes = sizeof sample->data,
        .chunk_bytes = CHUNK,
        .chunk_digests = sample->chunk_digests,
    };
}

static void append(struct partial *partial, const struct sample *sample, int from, int to) {
    for (int i = from; i < to; i++)
        assert_true(partial_append(partial, sample->data + i * CHUNK, i < 3 ? CHUNK : 17, NULL));
}

static void a_file_arrives_in_chunks(void **state) {
    struct fixture *fixture = *state;
    struct sample sample;
    sample_make(&sample);
    struct partial *partial = partial_open(fixture->store, &sample.spec, NULL);
    append(partial, &sample, 0, 3);
    assert_int_equal(partial_offset(partial), 3 * CHUNK);
    struct error err = {0};
    assert_false(partial_commit(partial, &err));
    assert_int_equal(err.code, ERROR_STATE);
    assert_false(store_has(fixture->store, &sample.spec.digest));
    append(partial, &sample, 3, 4);
    assert_true(partial_complete(partial));
    assert_false(store_has(fixture->store, &sample.spec.digest));
    assert_true(partial_commit(partial, NULL));
    partial_close(partial);
    struct file_map map;
    assert_true(store_get(fixture->store, &sample.spec.digest, &map, NULL));
    assert_int_equal(map.size, sizeof sample.data);
    assert_memory_equal(map.data, sample.data, sizeof sample.data);
    file_map_close(&map);
}

static void a_wrong_chunk_is_refused_and_the_right_one_taken(void **state) {
    struct fixture *fixture = *state;
    struct sample sample;
    sample_make(&sample);
    struct partial *partial = partial_open(fixture->store, &sample.spec, NULL);
    struct error err = {0};
    assert_false(
        partial_append(partial, sample.data + CHUNK, CHUNK, &err)); /* the second in the first's place */
    assert_int_equal(err.code, ERROR_FORMAT);
    assert_false(partial_append(partial, sample.data, CHUNK - 1, &err));
    assert_false(partial_append(partial, sample.data, 0, &err));
    assert_int_equal(partial_offset(partial), 0);
    append(partial, &sample, 0, 4);
    assert_true(partial_commit(partial, NULL));
    partial_close(partial);
}

static void an_interrupted_file_goes_on_after_its_last_good_chunk(void **state) {
    struct fixture *fixture = *state;
    struct sample sample;
    char path[PATH_MAX], hex[DIGEST_HEX_SIZE];
    sample_make(&sample);
    struct partial *partial = partial_open(fixture->store, &sample.spec, NULL);
    append(partial, &sample, 0, 3);
    partial_close(partial);
    snprintf(path, sizeof path, "%s/partial/%s", fixture->folder, digest_hex(&sample.spec.digest, hex));
    damage(path, 2 * CHUNK + 5);
    partial = partial_open(fixture->store, &sample.spec, NULL);
    assert_int_equal(partial_offset(partial), 2 * CHUNK);
    partial_close(partial);
    assert_int_equal(truncate(path, CHUNK + 1), 0); /* cut in mid-chunk */
    partial = partial_open(fixture->store, &sample.spec, NULL);
    assert_int_equal(partial_offset(partial), CHUNK);
    append(partial, &sample, 1, 4);
    assert_true(partial_commit(partial, NULL));
    partial_close(partial);
    assert_true(store_verify(fixture->store, &sample.spec.digest, NULL));
}

static void right_chunks_of_a_wrong_whole_do_not_become_an_object(void **state) {
    struct fixture *fixture = *state;
    struct sample sample;
    sample_make(&sample);
    sample.spec.digest.bytes[0] ^= 1;
    struct partial *partial = partial_open(fixture->store, &sample.spec, NULL);
    append(partial, &sample, 0, 4);
    struct error err = {0};
    assert_false(partial_commit(partial, &err));
    assert_int_equal(err.code, ERROR_FORMAT);
    partial_discard(partial);
    assert_false(store_has(fixture->store, &sample.spec.digest));
    partial = partial_open(fixture->store, &sample.spec, NULL);
    assert_int_equal(partial_offset(partial), 0);
    partial_discard(partial);
}

static void one_file_has_one_writer(void **state) {
    struct fixture *fixture = *state;
    struct sample sample;
    sample_make(&sample);
    struct partial *first = partial_open(fixture->store, &sample.spec, NULL);
    struct error err = {0};
    assert_null(partial_open(fixture->store, &sample.spec, &err));
    assert_int_equal(err.code, ERROR_BUSY);
    partial_discard(first);
}

static void old_partial_files_are_collected_and_young_ones_kept(void **state) {
    struct fixture *fixture = *state;
    struct sample sample;
    sample_make(&sample);
    struct partial *partial = partial_open(fixture->store, &sample.spec, NULL);
    append(partial, &sample, 0, 1);
    partial_close(partial);
    struct store_collected collected;
    assert_true(store_collect(fixture->store, 3600 * 1000, &collected, NULL));
    assert_int_equal(collected.partials, 0);
    assert_true(store_collect(fixture->store, -3600 * 1000, &collected, NULL)); /* as if an hour had passed */
    assert_int_equal(collected.partials, 1);
}

static void sizes_out_of_range_are_refused_before_anything_is_reserved(void **state) {
    struct fixture *fixture = *state;
    struct sample sample;
    sample_make(&sample);
    sample.spec.size_bytes = LIMIT + 1;
    assert_null(partial_open(fixture->store, &sample.spec, NULL));
    sample.spec.size_bytes = 0;
    assert_null(partial_open(fixture->store, &sample.spec, NULL));
    assert_null(store_open(fixture->folder, STORE_MAX_OBJECT_BYTES + 1, NULL));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(an_object_is_named_by_its_sha256),
        TEST(a_file_is_copied_in),
        TEST(too_large_is_refused_and_leaves_nothing),
        TEST(a_corrupt_object_goes_to_quarantine),
        TEST(a_truncated_object_is_not_handed_out),
        TEST(a_store_is_open_once),
        TEST(pins_keep_objects_from_being_collected),
        TEST(an_unreadable_pin_stops_the_collection),
        TEST(pin_names_cannot_leave_the_folder),
        TEST(a_file_arrives_in_chunks),
        TEST(a_wrong_chunk_is_refused_and_the_right_one_taken),
        TEST(an_interrupted_file_goes_on_after_its_last_good_chunk),
        TEST(right_chunks_of_a_wrong_whole_do_not_become_an_object),
        TEST(one_file_has_one_writer),
        TEST(old_partial_files_are_collected_and_young_ones_kept),
        TEST(sizes_out_of_range_are_refused_before_anything_is_reserved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
