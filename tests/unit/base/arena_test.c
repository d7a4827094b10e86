#include "common/base/arena.h"
#include "tests/unit/base/test.h"

#include <string.h>

static void memory_is_zeroed_aligned_and_stays_where_it_is(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena, 0);
    unsigned char *blocks[500];
    for (int i = 0; i < 500; i++) {
        blocks[i] = arena_alloc(&arena, (size_t)i);
        assert_non_null(blocks[i]);
        assert_int_equal((uintptr_t)blocks[i] % 16, 0);
        for (int j = 0; j < i; j++)
            assert_int_equal(blocks[i][j], 0);
        memset(blocks[i], i & 0xff, (size_t)i);
    }
    for (int i = 0; i < 500; i++) {
        for (int j = 0; j < i; j++)
            assert_int_equal(blocks[i][j], i & 0xff);
    }
    arena_fini(&arena);
    assert_int_equal(arena.used_bytes, 0);
}

static void the_limit_holds(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena, 64);
    assert_null(arena_alloc(&arena, 65));
    assert_non_null(arena_alloc(&arena, 48));
    assert_null(arena_alloc(&arena, 17));
    assert_non_null(arena_alloc(&arena, 16));
    assert_null(arena_alloc(&arena, 1));
    arena_fini(&arena);
    assert_non_null(arena_alloc(&arena, 64));
    arena_fini(&arena);
}

static void sizes_that_overflow_get_nothing(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena, 0);
    assert_null(arena_alloc(&arena, SIZE_MAX));
    assert_null(arena_alloc(&arena, SIZE_MAX - 15));
    assert_null(arena_copy(&arena, "", SIZE_MAX));
    arena_fini(&arena);
}

static void copies_end_with_nul(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena, 0);
    assert_string_equal(arena_copy(&arena, "hello", 3), "hel");
    assert_string_equal(arena_copy(&arena, "", 0), "");
    char *large = arena_copy(&arena, (char[40000]){"big"}, 40000);
    assert_non_null(large);
    assert_int_equal(large[40000], 0);
    arena_fini(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_aligned_and_stays_where_it_is),
        cmocka_unit_test(the_limit_holds),
        cmocka_unit_test(sizes_that_overflow_get_nothing),
        cmocka_unit_test(copies_end_with_nul),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
