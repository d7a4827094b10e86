#include "inferd/instances.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "inferd/client/client.h"
#include "tests/unit/inferd/fake_model.h"
#include "tests/unit/inferd/fixture.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { TIMEOUT_MS = 20000 };

static void each_has_its_part_of_the_processors(void **state) {
    struct cpu_set mine;
    struct instances instances;
    (void)state;
    assert_true(cpu_available(&mine, NULL));
    assert_true(instances_plan(&(struct instances_spec){.count = 1, .shares = true}, &instances, NULL));
    assert_int_equal(instances.count, 1);
    assert_int_equal(instances.threads, mine.count);
    assert_true(instances_plan(&(struct instances_spec){.count = 0, .shares = true}, &instances, NULL));
    assert_int_equal(instances.count, mine.count < INSTANCES_MAX ? mine.count : INSTANCES_MAX);
    assert_int_equal(instances.threads, 1);
    assert_true(instances_plan(&(struct instances_spec){.threads = mine.count, .shares = true}, &instances, NULL));
    assert_int_equal(instances.count, 1);
    assert_int_equal(instances.threads, mine.count);
    assert_true(instances_plan(&(struct instances_spec){.threads = mine.count + 1, .shares = true}, &instances, NULL));
    assert_int_equal(instances.count, 1); /* too many threads are slow, and nothing worse */
}

static void more_than_there_are_processors_is_refused(void **state) {
    struct cpu_set mine;
    struct instances instances;
    struct error err = {0};
    (void)state;
    assert_true(cpu_available(&mine, NULL));
    assert_false(instances_plan(&(struct instances_spec){.count = mine.count + 1, .shares = true}, &instances, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    struct instances_spec wide = {.count = 2, .threads = mine.count, .shares = true};
    assert_false(instances_plan(&wide, &instances, &err));
    assert_int_equal(err.code, ERROR_INVALID);
}

static void a_device_that_cannot_share_has_one(void **state) {
    struct instances instances;
    struct error err = {0};
    (void)state;
    assert_true(instances_plan(&(struct instances_spec){.count = 0}, &instances, NULL));
    assert_int_equal(instances.count, 1);
    assert_false(instances_plan(&(struct instances_spec){.count = 2}, &instances, &err));
    assert_int_equal(err.code, ERROR_UNSUPPORTED);
}

static void gpus_have_as_many_each(void **state) {
    struct instances instances;
    struct error err = {0};
    struct instances_spec spec = {.shares = true, .gpus = {.count = 3, .index = {4, 0, 2}}};
    (void)state;
    assert_true(instances_plan(&spec, &instances, NULL)); /* however few processors there are */
    assert_int_equal(instances.count, 3);
    spec.count = 2;
    assert_true(instances_plan(&spec, &instances, NULL));
    assert_int_equal(instances.count, 6);
    assert_int_equal(instances_each(&instances), 2);
    assert_int_equal(instances.processors.count, 0); /* nobody is pinned */
    static const int expected[] = {4, 0, 2, 4, 0, 2};
    for (int i = 0; i < 6; i++)
        assert_int_equal(instances_gpu(&instances, i, 7), expected[i]);
    spec.count = INSTANCES_MAX / 3 + 1;
    assert_false(instances_plan(&spec, &instances, &err));
    assert_int_equal(err.code, ERROR_INVALID);
    spec.count = 0, spec.gpus.count = 0;
    assert_true(instances_plan(&spec, &instances, NULL));
    assert_int_equal(instances_gpu(&instances, 0, 7), 7);
    assert_int_equal(instances_gpu(NULL, 0, 7), 7);
}

/** Where a thread runs that has entered its instance. */
struct entered {
    const struct instances *instances;
    int instance;
    pthread_t thread;
    struct cpu_set processors;
};

static void *enter(void *context) {
    struct entered *entered = context;
    instances_enter(entered->instances, entered->instance);
    cpu_available(&entered->processors, NULL);
    return NULL;
}

static void threads_stay_on_their_own_processors(void **state) {
    struct instances instances;
    struct entered entered[2];
    struct cpu_set before, after;
    (void)state;
    assert_true(cpu_available(&before, NULL));
    if (before.count < 2)
        skip();
    assert_true(instances_plan(&(struct instances_spec){.count = 2, .shares = true}, &instances, NULL));
    for (int i = 0; i < 2; i++) {
        entered[i] = (struct entered){.instances = &instances, .instance = i};
        assert_int_equal(pthread_create(&entered[i].thread, NULL, enter, &entered[i]), 0);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(entered[i].thread, NULL);
    assert_int_equal(entered[0].processors.count + entered[1].processors.count, before.count);
    for (int i = 0; i < entered[0].processors.count; i++) {
        for (int j = 0; j < entered[1].processors.count; j++)
            assert_int_not_equal(entered[0].processors.ids[i], entered[1].processors.ids[j]);
    }
    assert_true(cpu_available(&after, NULL));
    assert_int_equal(after.count, before.count); /* nobody else was pinned */
}

/** A model whose answer comes only when two instances compute at once. */
struct meeting {
    struct model model;
    atomic_int inside[2], together;
};

static bool compute_together(struct model *model, int instance, const float *images, int count, float *logits,
                             struct error *err) {
    struct meeting *meeting = (struct meeting *)model;
    int64_t deadline = clock_now_ms() + TIMEOUT_MS / 2;
    (void)images;
    atomic_fetch_add(&meeting->inside[instance], 1);
    while (atomic_load(&meeting->inside[1 - instance]) == 0 && clock_left_ms(deadline) > 0)
        clock_sleep_ms(1);
    bool met = atomic_load(&meeting->inside[1 - instance]) > 0;
    atomic_fetch_add(&meeting->together, met ? 1 : 0);
    memset(logits, 0, sizeof *logits * 3 * (size_t)count);
    return met || error_set(err, ERROR_TIMEOUT, "nobody computes beside instance %d", instance);
}

static void not_destroyed(struct model *model) {
    (void)model;
}

struct asker {
    const char *endpoint;
    pthread_t thread;
    Thorax__V1__Status status;
};

static void *ask(void *context) {
    struct asker *asker = context;
    struct client_reply reply;
    struct bytes image = fixture_image((uint64_t)(uintptr_t)asker);
    struct client *client = client_open(&(struct client_spec){.endpoint = asker->endpoint}, NULL);
    struct client_request request = {.image = image.data, .image_size = image.size, .timeout_ms = TIMEOUT_MS};
    if (client_diagnose(client, &request, &reply, NULL)) {
        asker->status = reply.diagnosis->status;
        client_reply_fini(&reply);
    }
    client_close(client);
    free(image.data);
    return NULL;
}

static void a_server_computes_in_all_of_them_at_once(void **state) {
    static const struct model_ops ops = {.compute = compute_together, .destroy = not_destroyed};
    struct model *template = fake_model(&(struct fake_model_spec){.name = "met", .max_batch = 1});
    struct meeting meeting = {.model = {.ops = &ops, .info = template->info, .max_batch = 1}};
    struct instances two = {.count = 2, .threads = 1};
    struct server_spec spec = fixture_spec();
    struct fixture fixture;
    struct asker askers[2];
    (void)state;
    atomic_init(&meeting.model.references, 2); /* one is ours */
    spec.instances = &two;
    fixture_start(&fixture, &spec, &meeting.model);
    for (int i = 0; i < 2; i++) {
        askers[i] = (struct asker){.endpoint = fixture.endpoint};
        assert_int_equal(pthread_create(&askers[i].thread, NULL, ask, &askers[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(askers[i].thread, NULL);
        assert_int_equal(askers[i].status, THORAX__V1__STATUS__STATUS_OK);
    }
    const struct counters *counters = server_counters(fixture.server);
    assert_int_equal(counters->instance_count, 2);
    assert_int_equal(counters->instances[0].batches, 1);
    assert_int_equal(counters->instances[1].batches, 1);
    assert_int_equal(meeting.together, 2);
    fixture_stop(&fixture);
    model_release(template);
}

/** A model on devices of which some are lost; the others say which of them answered. */
struct losing {
    struct model model;
    atomic_bool is_lost[2];
    atomic_int computed[2];
};

static bool compute_or_lose(struct model *model, int instance, const float *images, int count, float *logits,
                            struct error *err) {
    struct losing *losing = (struct losing *)model;
    (void)images;
    atomic_fetch_add(&losing->computed[instance], 1);
    memset(logits, 0, sizeof *logits * 3 * (size_t)count);
    return !atomic_load(&losing->is_lost[instance]) || error_set(err, ERROR_LOST, "GPU %d is lost", instance);
}

static bool is_lost(const struct fixture *fixture) {
    struct server_health health;
    server_health(fixture->server, &health);
    return health.lost;
}

static Thorax__V1__Status ask_once(const struct fixture *fixture) {
    struct asker asker = {.endpoint = fixture->endpoint};
    ask(&asker);
    return asker.status;
}

/* One is lost: it computes no more, and its batch fails rather than being answered. All are: everything fails. */
static void an_instance_whose_device_is_lost_computes_no_more(void **state) {
    static const struct model_ops ops = {.compute = compute_or_lose, .destroy = not_destroyed};
    struct model *template = fake_model(&(struct fake_model_spec){.name = "lost", .max_batch = 1});
    struct losing losing = {.model = {.ops = &ops, .info = template->info, .max_batch = 1}};
    struct instances two = {.count = 2, .threads = 1};
    struct server_spec spec = fixture_spec();
    struct fixture fixture;
    int failed = 0;
    (void)state;
    atomic_init(&losing.model.references, 2); /* one is ours */
    spec.instances = &two;
    fixture_start(&fixture, &spec, &losing.model);
    assert_int_equal(ask_once(&fixture), THORAX__V1__STATUS__STATUS_OK);
    assert_false(is_lost(&fixture));
    atomic_store(&losing.is_lost[0], true);
    for (int i = 0; i < 50 || !is_lost(&fixture); i++)
        failed += ask_once(&fixture) == THORAX__V1__STATUS__STATUS_INTERNAL ? 1 : 0;
    assert_int_equal(failed, 1);
    assert_false(atomic_load(&losing.model.broken)); /* the model is as good as before */
    atomic_store(&losing.is_lost[1], true);
    int before = losing.computed[1];
    for (int i = 0; i < 5; i++)
        assert_int_equal(ask_once(&fixture), THORAX__V1__STATUS__STATUS_INTERNAL);
    assert_int_equal(losing.computed[1], before + 1);
    fixture_stop(&fixture);
    model_release(template);
}

int main(void) {
    log_init("instances_test", LOG_ERROR + 1, LOG_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_has_its_part_of_the_processors),
        cmocka_unit_test(more_than_there_are_processors_is_refused),
        cmocka_unit_test(a_device_that_cannot_share_has_one),
        cmocka_unit_test(threads_stay_on_their_own_processors),
        cmocka_unit_test(a_server_computes_in_all_of_them_at_once),
        cmocka_unit_test(gpus_have_as_many_each),
        cmocka_unit_test(an_instance_whose_device_is_lost_computes_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
