#include "common/weights/safetensors.h"

#include "common/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/** A file in memory: the length, the header, and that many bytes of data (0, 1, 2, ...). Exactly sized, for
 * ASan. */
static struct bytes file_of(const char *header, size_t data_bytes) {
    uint64_t length = strlen(header);
    struct bytes file = {malloc(8 + length + data_bytes), 8 + length + data_bytes};
    assert_non_null(file.data);
    memcpy(file.data, &length, 8);
    memcpy(file.data + 8, header, length);
    for (size_t i = 0; i < data_bytes; i++)
        file.data[8 + length + i] = (uint8_t)i;
    return file;
}

static bool parse(const char *header, size_t data_bytes, struct error *err) {
    struct bytes file = file_of(header, data_bytes);
    struct safetensors tensors;
    bool ok = safetensors_parse(file.data, file.size, &tensors, err);
    if (ok)
        safetensors_fini(&tensors);
    free(file.data);
    return ok;
}

#define ONE "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"

static void tensors_are_views_in_the_order_of_the_file(void **state) {
    (void)state;
    struct bytes file = file_of("{\"__metadata__\":{\"k\":\"v\"},\"b\":{\"dtype\":\"U8\",\"shape\":[3,1],"
                                "\"data_offsets\":[8,11]}," ONE "}  ",
                                11);
    struct safetensors tensors;
    struct error err;
    assert_true(safetensors_parse(file.data, file.size, &tensors, &err));
    assert_int_equal(tensors.count, 2);
    assert_string_equal(tensors.tensors[0].name, "a");
    assert_int_equal(tensors.tensors[0].dtype, DTYPE_F32);
    const struct safetensors_tensor *b = safetensors_find(&tensors, "b");
    assert_int_equal(b->dtype, DTYPE_U8);
    assert_true(shape_equal(&b->shape, &(struct shape){2, {3, 1}}));
    assert_ptr_equal(b->data, file.data + file.size - 3);
    assert_int_equal(b->bytes, 3);
    assert_null(safetensors_find(&tensors, "c"));
    assert_string_equal(safetensors_metadata(&tensors, "k"), "v");
    assert_null(safetensors_metadata(&tensors, "x"));
    struct tensor copy;
    assert_true(safetensors_copy(b, &copy, &err));
    assert_memory_equal(copy.data, "\x08\x09\x0a", 3);
    tensor_fini(&copy);
    safetensors_fini(&tensors);
    free(file.data);
}

static void odd_but_proper_files_are_taken(void **state) {
    (void)state;
    struct error err = {0};
    static const struct {
        const char *header;
        size_t bytes;
    } cases[] = {
        {"{}", 0},
        {"{\"__metadata__\":{}}", 0},
        {"{\"s\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]}}", 8},    /* a scalar */
        {"{\"e\":{\"dtype\":\"I64\",\"shape\":[0,7],\"data_offsets\":[0,0]}}", 0}, /* nothing inside */
        {"{\"e\":{\"dtype\":\"I64\",\"shape\":[0],\"data_offsets\":[8,8]}," ONE "}",
         8},                   /* nothing, at the end */
        {"{" ONE "}     ", 8}, /* header not a multiple of 8 */
        {"{\"\xc3\xa4\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[0,2]}}", 2}, /* UTF-8 in a name */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!parse(cases[i].header, cases[i].bytes, &err))
            fail_msg("case %zu: %s", i, err.message);
    }
}

/** Each rule of the format's reference parser, and our limits. */
static const struct {
    const char *header;
    size_t bytes;
    enum error_code code;
    const char *what;
} broken_headers[] = {
    {"", 0, ERROR_FORMAT, "start with {"},
    {" {}", 0, ERROR_FORMAT, "start with {"},
    {"[]", 0, ERROR_FORMAT, "start with {"},
    {"{", 0, ERROR_FORMAT, "JSON"},
    {"{} x", 0, ERROR_FORMAT, "JSON"},
    {"{\"a\xff\":1}", 0, ERROR_FORMAT, "JSON"},
    {"{" ONE "," ONE "}", 8, ERROR_FORMAT, "JSON"},
    {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, ERROR_FORMAT, "JSON"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, ERROR_FORMAT,
     "JSON"},
    {"{\"__metadata__\":[]}", 0, ERROR_FORMAT, "not an object"},
    {"{\"__metadata__\":{\"k\":1}}", 0, ERROR_FORMAT, "not text"},
    {"{\"a\":[]}", 0, ERROR_FORMAT, "a is not an object"},
    {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, ERROR_FORMAT, "element type"},
    {"{\"a\":{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, ERROR_FORMAT, "\"F33\""},
    {"{\"a\":{\"dtype\":\"BOOL\",\"shape\":[8],\"data_offsets\":[0,8]}}", 8, ERROR_UNSUPPORTED, "BOOL"},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, ERROR_FORMAT, "shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8, ERROR_FORMAT, "shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, ERROR_FORMAT, "dimension"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, ERROR_FORMAT, "dimension"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[\"2\"],\"data_offsets\":[0,8]}}", 8, ERROR_FORMAT, "dimension"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8, ERROR_UNSUPPORTED,
     "dimensions"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,2],\"data_offsets\":[0,0]}}", 0, ERROR_FORMAT,
     "overflows"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, ERROR_FORMAT,
     "overflows"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, ERROR_FORMAT, "data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, ERROR_FORMAT, "data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", 8, ERROR_FORMAT, "data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, ERROR_FORMAT, "data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,99999999999999999999]}}", 8, ERROR_FORMAT,
     "JSON"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, ERROR_FORMAT, "outside"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,16]}}", 8, ERROR_FORMAT, "outside"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, ERROR_FORMAT, "need 12"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, ERROR_FORMAT, "starts at 4"},
    {"{" ONE ",\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[9,10]}}", 10, ERROR_FORMAT,
     "b: its data starts at 9"},
    {"{" ONE ",\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[7,9]}}", 9, ERROR_FORMAT,
     "b: its data starts at 7"},
    {"{" ONE ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, ERROR_FORMAT,
     "starts at 0"},
    {"{" ONE "}", 9, ERROR_FORMAT, "9 bytes of data, the tensors take 8"},
    {"{}", 1, ERROR_FORMAT, "the tensors take 0"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[[2]],\"data_offsets\":[0,8]}}", 8, ERROR_FORMAT, "nested"},
    {"{\"\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, ERROR_TOO_LARGE, "name of 0"},
    {"{\"\\u001b[2J\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, ERROR_FORMAT, "control"},
    {"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, ERROR_FORMAT, "JSON"},
};

static void broken_headers_are_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof broken_headers / sizeof *broken_headers; i++) {
        struct error err = {0};
        bool ok = parse(broken_headers[i].header, broken_headers[i].bytes, &err);
        if (ok || err.code != broken_headers[i].code || !strstr(err.message, broken_headers[i].what))
            fail_msg("case %zu (%s): %d, %s", i, broken_headers[i].header, err.code, err.message);
    }
}

static void broken_frames_are_refused(void **state) {
    (void)state;
    struct safetensors tensors;
    struct error err;
    struct bytes file = file_of("{" ONE "}", 8);
    for (size_t size = 0; size < file.size; size++) { /* cut off anywhere */
        uint8_t *cut = malloc(size ? size : 1);
        memcpy(cut, file.data, size);
        assert_false(safetensors_parse(cut, size, &tensors, &err));
        assert_int_equal(err.code, ERROR_FORMAT);
        free(cut);
    }
    static const uint64_t lengths[] = {100000001, UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63,
                                       SAFETENSORS_MAX_HEADER + 1};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memcpy(file.data, &lengths[i], 8);
        assert_false(safetensors_parse(file.data, file.size, &tensors, &err));
        assert_int_equal(err.code, ERROR_TOO_LARGE);
    }
    uint64_t beyond = file.size - 8 + 1;
    memcpy(file.data, &beyond, 8);
    assert_false(safetensors_parse(file.data, file.size, &tensors, &err));
    assert_int_equal(err.code, ERROR_FORMAT);
    free(file.data);
}

/** A header of `count` empty tensors, owned. */
static char *many_tensors(int count) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    fputc('{', out);
    for (int i = 0; i < count; i++)
        fprintf(out, "%s\"%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", i ? "," : "", i);
    fputc('}', out);
    fclose(out);
    return text;
}

static void limits_hold(void **state) {
    (void)state;
    struct error err;
    char *text = many_tensors(SAFETENSORS_MAX_TENSORS);
    assert_true(parse(text, 0, &err));
    free(text);
    text = many_tensors(SAFETENSORS_MAX_TENSORS + 1);
    assert_false(parse(text, 0, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
    free(text);

    char header[400], name[SAFETENSORS_MAX_NAME + 2];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", name);
    assert_false(parse(header, 0, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);

    size_t size = 7 << 20; /* as many empty lists as fit: refused before they become values in memory */
    char *bomb = malloc(size + 1);
    for (size_t i = 0; i < size; i++)
        bomb[i] = "[],"[i % 3];
    memcpy(bomb, "{\"a\":[", 6);
    bomb[size] = '\0';
    assert_false(parse(bomb, 0, &err));
    assert_int_equal(err.code, ERROR_TOO_LARGE);
    free(bomb);
}

/* Writing */

static void temporary_path(char out[64]) {
    snprintf(out, 64, "/tmp/thorax-safetensors-%d", (int)getpid());
}

static void written_files_read_back_in_canonical_order(void **state) {
    (void)state;
    static const float f32[] = {1.5f, -2};
    static const uint8_t u8[] = {7, 8, 9};
    static const int64_t s64[] = {-1};
    const struct safetensors_tensor tensors[] = {
        {"z", DTYPE_U8, {1, {3}}, u8, 0},
        {"b", DTYPE_F32, {2, {1, 2}}, f32, 0},
        {"c", DTYPE_S64, {0, {0}}, s64, 0},
        {"a", DTYPE_F32, {1, {2}}, f32, 0},
    };
    const struct safetensors_text metadata[] = {{"note", "\"x\" \xc3\xa4\n"}};
    char path[64];
    temporary_path(path);
    struct error err;
    assert_true(safetensors_write(path, &(struct safetensors_content){tensors, 4, metadata, 1}, &err));
    struct bytes file;
    assert_true(file_read(path, 10000, &file, &err));
    uint64_t header;
    memcpy(&header, file.data, 8);
    assert_int_equal(header % 8, 0);
    struct safetensors back;
    assert_true(safetensors_parse(file.data, file.size, &back, &err));
    const char *order[] = {"c", "a", "b", "z"};
    for (int i = 0; i < 4; i++)
        assert_string_equal(back.tensors[i].name, order[i]);
    assert_memory_equal(safetensors_find(&back, "b")->data, f32, sizeof f32);
    assert_int_equal(safetensors_find(&back, "b")->shape.rank, 2);
    assert_memory_equal(safetensors_find(&back, "c")->data, s64, sizeof s64);
    assert_memory_equal(safetensors_find(&back, "z")->data, u8, sizeof u8);
    assert_string_equal(safetensors_metadata(&back, "note"), "\"x\" \xc3\xa4\n");
    safetensors_fini(&back);
    free(file.data);
    unlink(path);
}

static void what_could_not_be_read_back_is_not_written(void **state) {
    (void)state;
    static const uint8_t data[8] = {0};
    const struct safetensors_tensor bad[][2] = {
        {{"a", DTYPE_U8, {1, {1}}, data, 0}, {"a", DTYPE_U8, {1, {1}}, data, 0}},
        {{"", DTYPE_U8, {1, {1}}, data, 0}, {"b", DTYPE_U8, {1, {1}}, data, 0}},
        {{"__metadata__", DTYPE_U8, {1, {1}}, data, 0}, {"b", DTYPE_U8, {1, {1}}, data, 0}},
        {{"\xff", DTYPE_U8, {1, {1}}, data, 0}, {"b", DTYPE_U8, {1, {1}}, data, 0}},
        {{"a", DTYPE_NONE, {1, {1}}, data, 0}, {"b", DTYPE_U8, {1, {1}}, data, 0}},
        {{"a", DTYPE_U8, {1, {-1}}, data, 0}, {"b", DTYPE_U8, {1, {1}}, data, 0}},
    };
    char path[64];
    temporary_path(path);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error err = {0};
        assert_false(safetensors_write(path, &(struct safetensors_content){bad[i], 2, NULL, 0}, &err));
        assert_int_not_equal(err.code, ERROR_NONE);
        assert_false(file_exists(path));
    }
    const struct safetensors_text twice[] = {{"k", "1"}, {"k", "2"}}, broken[] = {{"k", "\xff"}};
    assert_false(safetensors_write(path, &(struct safetensors_content){NULL, 0, twice, 2}, NULL));
    assert_false(safetensors_write(path, &(struct safetensors_content){NULL, 0, broken, 1}, NULL));
    assert_false(file_exists(path));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_views_in_the_order_of_the_file),
        cmocka_unit_test(odd_but_proper_files_are_taken),
        cmocka_unit_test(broken_headers_are_refused),
        cmocka_unit_test(broken_frames_are_refused),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(written_files_read_back_in_canonical_order),
        cmocka_unit_test(what_could_not_be_read_back_is_not_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
