#include "inferd/pins.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

enum { TIME_MS = 1000, THREADS = 4, ROUNDS = 20000, KEYS = 64 };

static struct digest model(uint8_t which) {
    struct digest digest = {{which}};
    return digest;
}

static struct pins *make(size_t limit) {
    struct error err = {0};
    assert_true(digest_start(NULL));
    struct pins *pins = pins_create(&(struct pins_spec){.limit = limit, .time_ms = TIME_MS}, &err);
    assert_non_null(pins);
    return pins;
}

static void put(struct pins *pins, const char *key, uint8_t which, int64_t now_ms) {
    struct digest digest = model(which);
    pins_put(pins, key, strlen(key), &digest, now_ms);
}

/** Which model the key is pinned to; 0: none. */
static int get(struct pins *pins, const char *key, int64_t now_ms) {
    struct digest digest;
    return pins_get(pins, key, strlen(key), now_ms, &digest) ? digest.bytes[0] : 0;
}

static void the_first_answer_pins(void **state) {
    (void)state;
    struct pins *pins = make(8);
    assert_int_equal(get(pins, "study", 0), 0);
    put(pins, "study", 1, 0);
    put(pins, "study", 2, 10);
    put(pins, "studz", 3, 10);
    assert_int_equal(get(pins, "study", 20), 1);
    assert_int_equal(get(pins, "studz", 20), 3);
    assert_int_equal(get(pins, "stud", 20), 0);
    pins_destroy(pins);
}

static void a_pin_ends_after_its_time_however_often_it_is_asked_for(void **state) {
    (void)state;
    struct pins *pins = make(8);
    put(pins, "study", 1, 5);
    for (int64_t now = 5; now < 5 + TIME_MS; now += 100) {
        assert_int_equal(get(pins, "study", now), 1);
        put(pins, "study", 2, now);
    }
    assert_int_equal(get(pins, "study", 5 + TIME_MS - 1), 1);
    assert_int_equal(get(pins, "study", 5 + TIME_MS), 0);
    assert_int_equal(pins_count(pins), 0);
    put(pins, "study", 2, 5 + TIME_MS);
    assert_int_equal(get(pins, "study", 5 + TIME_MS), 2);
    pins_destroy(pins);
}

static void the_key_used_least_recently_makes_room(void **state) {
    (void)state;
    struct pins *pins = make(3);
    put(pins, "a", 1, 0);
    put(pins, "b", 2, 0);
    put(pins, "c", 3, 0);
    assert_int_equal(get(pins, "a", 1), 1);
    put(pins, "d", 4, 1);
    assert_int_equal(pins_count(pins), 3);
    assert_int_equal(get(pins, "b", 2), 0);
    assert_int_equal(get(pins, "a", 2), 1);
    assert_int_equal(get(pins, "c", 2), 3);
    assert_int_equal(get(pins, "d", 2), 4);
    pins_destroy(pins);
}

static void no_key_and_no_room_pin_nothing(void **state) {
    (void)state;
    struct pins *pins = make(3);
    put(pins, "", 1, 0);
    assert_int_equal(get(pins, "", 0), 0);
    pins_destroy(pins);
    pins = make(0);
    put(pins, "a", 1, 0);
    assert_int_equal(get(pins, "a", 0), 0);
    pins_destroy(pins);
    struct error err = {0};
    assert_null(pins_create(&(struct pins_spec){.limit = SIZE_MAX, .time_ms = 1}, &err));
    assert_int_equal(err.code, ERROR_INVALID);
}

/** Far more keys than places, in an order that reuses, expires and evicts; compared with a plain list. */
static void it_agrees_with_a_plain_list(void **state) {
    (void)state;
    enum { PLACES = 16 };
    struct plain {
        int key, which;
        int64_t until_ms, used;
    } list[PLACES] = {{0}};
    struct pins *pins = make(PLACES);
    uint32_t random = 1;
    for (int64_t step = 1; step < 20000; step++) {
        random = random * 1664525u + 1013904223u;
        int key = 1 + (int)(random >> 16) % 40, which = 1 + (int)(random >> 8) % 200;
        int64_t now = step * 7;
        char name[8];
        snprintf(name, sizeof name, "%d", key);
        struct plain *found = NULL, *room = &list[0];
        for (int i = 0; i < PLACES; i++) {
            if (list[i].key == key && now >= list[i].until_ms)
                list[i] = (struct plain){0};
            found = list[i].key == key ? &list[i] : found;
            room = list[i].used < room->used ? &list[i] : room;
        }
        assert_int_equal(get(pins, name, now), found ? found->which : 0);
        put(pins, name, (uint8_t)which, now);
        if (!found) {
            found = room;
            *found = (struct plain){.key = key, .which = which, .until_ms = now + TIME_MS};
        }
        found->used = step;
    }
    pins_destroy(pins);
}

static void *hammer(void *argument) {
    struct pins *pins = argument;
    char key[16];
    for (int i = 0; i < ROUNDS; i++) {
        int which = 1 + i % KEYS;
        snprintf(key, sizeof key, "%d", which);
        put(pins, key, (uint8_t)which, i);
        int got = get(pins, key, i);
        if (got != 0 && got != which) {
            return pins;
        }
    }
    return NULL;
}

static void threads_do_not_mix_keys_up(void **state) {
    (void)state;
    struct pins *pins = make(KEYS / 2);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, pins), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    assert_true(pins_count(pins) <= KEYS / 2);
    pins_destroy(pins);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_answer_pins),
        cmocka_unit_test(a_pin_ends_after_its_time_however_often_it_is_asked_for),
        cmocka_unit_test(the_key_used_least_recently_makes_room),
        cmocka_unit_test(no_key_and_no_room_pin_nothing),
        cmocka_unit_test(it_agrees_with_a_plain_list),
        cmocka_unit_test(threads_do_not_mix_keys_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
