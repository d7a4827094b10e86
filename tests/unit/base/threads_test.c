/* Queue, thread pool and clock: what threads wait with. */
#include "common/base/clock.h"
#include "common/base/queue.h"
#include "common/base/thread_pool.h"
#include "tests/unit/base/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static void items_come_out_in_order(void **state) {
    (void)state;
    struct queue *queue = queue_create(3);
    int items[10];
    for (int round = 0; round < 5; round++) { /* past the end of the ring */
        assert_true(queue_push(queue, &items[2 * round], 0) && queue_push(queue, &items[2 * round + 1], 0));
        assert_int_equal(queue_length(queue), 2);
        assert_ptr_equal(queue_pop(queue, 0), &items[2 * round]);
        assert_ptr_equal(queue_pop(queue, 0), &items[2 * round + 1]);
    }
    queue_destroy(queue);
    queue_destroy(NULL);
}

static void full_and_empty_queues_wait_as_long_as_told(void **state) {
    (void)state;
    struct queue *queue = queue_create(1);
    int item;
    int64_t begin = clock_now_ms();
    assert_null(queue_pop(queue, 30));
    assert_true(clock_now_ms() - begin >= 29);
    assert_true(queue_push(queue, &item, 0));
    begin = clock_now_ms();
    assert_false(queue_push(queue, &item, 30));
    assert_true(clock_now_ms() - begin >= 29);
    assert_int_equal(queue_length(queue), 1);
    queue_destroy(queue);
}

static void a_closed_queue_drains(void **state) {
    (void)state;
    struct queue *queue = queue_create(4);
    int item;
    assert_true(queue_push(queue, &item, 0));
    queue_close(queue);
    assert_false(queue_push(queue, &item, -1));
    assert_ptr_equal(queue_pop(queue, -1), &item);
    assert_null(queue_pop(queue, -1));
    queue_destroy(queue);
}

static void *pop_for_ever(void *context) {
    return queue_pop(context, -1);
}

static void closing_wakes_who_waits(void **state) {
    (void)state;
    struct queue *queue = queue_create(1);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, pop_for_ever, queue), 0);
    clock_sleep_ms(20);
    queue_close(queue);
    for (int i = 0; i < 2; i++) {
        void *got = queue;
        pthread_join(threads[i], &got);
        assert_null(got);
    }
    queue_destroy(queue);
}

enum { ITEMS = 2000 };
struct traffic {
    struct queue *queue;
    int items[ITEMS];
    atomic_int seen[ITEMS];
};

static void *push_all(void *context) {
    struct traffic *traffic = context;
    for (int i = 0; i < ITEMS; i++)
        queue_push(traffic->queue, &traffic->items[i], -1);
    return NULL;
}

static void *pop_all(void *context) {
    struct traffic *traffic = context;
    for (int *item; (item = queue_pop(traffic->queue, -1));)
        atomic_fetch_add(&traffic->seen[item - traffic->items], 1);
    return NULL;
}

static void no_item_is_lost_or_doubled(void **state) {
    (void)state;
    static struct traffic traffic;
    traffic.queue = queue_create(5);
    pthread_t pushers[2], poppers[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&poppers[i], NULL, pop_all, &traffic), 0);
        assert_int_equal(pthread_create(&pushers[i], NULL, push_all, &traffic), 0);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(pushers[i], NULL);
    queue_close(traffic.queue);
    for (int i = 0; i < 2; i++)
        pthread_join(poppers[i], NULL);
    for (int i = 0; i < ITEMS; i++)
        assert_int_equal(atomic_load(&traffic.seen[i]), 2);
    queue_destroy(traffic.queue);
}

static struct thread_pool *make_pool(int threads, size_t limit, int nice) {
    struct thread_pool_spec spec = {.threads = threads, .queue_limit = limit, .nice = nice, .name = "a-rather-long-name"};
    struct error err = {0};
    struct thread_pool *pool = thread_pool_create(&spec, &err);
    assert_non_null(pool);
    return pool;
}

static void count_up(void *context) {
    atomic_fetch_add((atomic_int *)context, 1);
}

static void every_job_runs_once(void **state) {
    (void)state;
    atomic_int count = 0;
    struct thread_pool *pool = make_pool(2, 4, 0);
    for (int i = 0; i < 500; i++)
        assert_true(thread_pool_submit(pool, count_up, &count));
    thread_pool_wait(pool);
    assert_int_equal(atomic_load(&count), 500);
    for (int i = 0; i < 4; i++)
        assert_true(thread_pool_submit(pool, count_up, &count));
    thread_pool_destroy(pool); /* finishes what waits */
    assert_int_equal(atomic_load(&count), 504);
    thread_pool_destroy(NULL);
}

struct gate {
    pthread_mutex_t lock;
    atomic_int running;
};

static void wait_at_gate(void *context) {
    struct gate *gate = context;
    atomic_store(&gate->running, 1);
    pthread_mutex_lock(&gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

static void try_submit_does_not_wait(void **state) {
    (void)state;
    struct gate gate = {.lock = PTHREAD_MUTEX_INITIALIZER};
    atomic_int count = 0;
    struct thread_pool *pool = make_pool(1, 1, 0);
    pthread_mutex_lock(&gate.lock);
    assert_true(thread_pool_submit(pool, wait_at_gate, &gate));
    while (!atomic_load(&gate.running))
        clock_sleep_ms(1);
    assert_true(thread_pool_try_submit(pool, count_up, &count));
    assert_false(thread_pool_try_submit(pool, count_up, &count));
    pthread_mutex_unlock(&gate.lock);
    thread_pool_wait(pool);
    assert_int_equal(atomic_load(&count), 1);
    thread_pool_destroy(pool);
}

struct self {
    char name[32];
    int nice;
};

static void look_at_self(void *context) {
    struct self *self = context;
    pthread_getname_np(pthread_self(), self->name, sizeof self->name);
    self->nice = getpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid));
}

static void threads_bear_name_and_niceness(void **state) {
    (void)state;
    int before = getpriority(PRIO_PROCESS, 0);
    struct self self = {0};
    struct thread_pool *pool = make_pool(1, 1, 3);
    assert_true(thread_pool_submit(pool, look_at_self, &self));
    thread_pool_wait(pool);
    thread_pool_destroy(pool);
    assert_string_equal(self.name, "a-rather-long-n");
    assert_int_equal(self.nice, before + 3 > 19 ? 19 : before + 3);
    assert_int_equal(getpriority(PRIO_PROCESS, 0), before);
}

static void clocks_run_forward(void **state) {
    (void)state;
    int64_t ns = clock_now_ns(), ms = clock_now_ms();
    clock_sleep_ms(5);
    assert_true(clock_now_ns() - ns >= 5000000);
    assert_true(clock_now_ms() - ms >= 4);
    assert_int_equal(clock_left_ms(clock_now_ms() - 1), 0);
    int64_t left = clock_left_ms(clock_now_ms() + 100000);
    assert_true(left > 90000 && left <= 100000);
}

static void timestamps_are_iso_8601_in_utc(void **state) {
    (void)state;
    char text[32];
    int year, month, day, hour, minute, second, ms, used = 0;
    clock_timestamp(text, sizeof text);
    assert_int_equal(sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day, &hour, &minute, &second, &ms, &used), 7);
    assert_int_equal(used, 24);
    assert_int_equal(strlen(text), 24);
    int64_t of_day = ((hour * 60 + minute) * 60 + second) * 1000LL + ms;
    int64_t apart = (clock_wall_ms() % 86400000 - of_day + 86400000) % 86400000;
    assert_true(apart < 60000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_come_out_in_order),  cmocka_unit_test(full_and_empty_queues_wait_as_long_as_told),
        cmocka_unit_test(a_closed_queue_drains),    cmocka_unit_test(closing_wakes_who_waits),
        cmocka_unit_test(no_item_is_lost_or_doubled), cmocka_unit_test(every_job_runs_once),
        cmocka_unit_test(try_submit_does_not_wait), cmocka_unit_test(threads_bear_name_and_niceness),
        cmocka_unit_test(clocks_run_forward),       cmocka_unit_test(timestamps_are_iso_8601_in_utc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
