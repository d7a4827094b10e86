#include "common/base/clock.h"
#include "common/base/log.h"
#include "inferd/client/client.h"
#include "tests/unit/inferd/fake_model.h"
#include "tests/unit/inferd/fixture.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MODELS = 12, ASKERS = 6, SWAP_EVERY_MS = 60, TIMEOUT_MS = 20000 };

/** Model i's logit for PNEUMONIA: far enough apart that an answer shows which model computed it. */
static float logit_of(int i) {
    return (float)i * 0.25f - 1.5f;
}

static struct model *make_model(int i, atomic_int *alive) {
    char name[16];
    snprintf(name, sizeof name, "m%d", i);
    return fake_model(&(struct fake_model_spec){
        .name = name, .logits = {0, logit_of(i), 0}, .compute_ms = 2, .alive = alive});
}

/** Asks without pause until told to stop. */
struct asker {
    const char *endpoint;
    atomic_bool *stop;
    pthread_t thread;
    int answered, lost, wrong, models_seen;
};

static bool is_by_the_model_it_names(const Thorax__V1__DiagnosisReply *answer, int *model) {
    if (answer->status != THORAX__V1__STATUS__STATUS_OK || sscanf(answer->model->name, "m%d", model) != 1) {
        return false;
    }
    struct digest digest = digest_of(answer->model->name, strlen(answer->model->name));
    double finding = exp((double)logit_of(*model));
    return memcmp(answer->model->digest.data, digest.bytes, sizeof digest.bytes) == 0 &&
           fabs(answer->probabilities[1]->probability - finding / (finding + 2)) < 1e-9;
}

static void *ask_without_pause(void *argument) {
    struct asker *asker = argument;
    struct bytes image = fixture_image((uint64_t)(uintptr_t)asker);
    struct client *client = client_open(&(struct client_spec){.endpoint = asker->endpoint}, NULL);
    struct client_request request = {.image = image.data, .image_size = image.size, .timeout_ms = TIMEOUT_MS};
    int last = -1, model;
    while (!atomic_load(asker->stop)) {
        struct client_reply reply;
        if (!client_diagnose(client, &request, &reply, NULL)) {
            asker->lost++;
            continue;
        }
        if (!is_by_the_model_it_names(reply.diagnosis, &model)) {
            asker->wrong++;
        } else {
            asker->answered++;
            asker->models_seen += model != last;
            last = model;
        }
        client_reply_fini(&reply);
    }
    client_close(client);
    free(image.data);
    return NULL;
}

/** Swaps and, after every other one, rolls back to the model before and forward again. Returns how often
 * something was swapped. */
static uint64_t exchange_models(struct slot *slot, atomic_int *alive) {
    uint64_t swaps = 0;
    for (int i = 1; i < MODELS; i++) {
        struct model *before = slot_acquire(slot);
        clock_sleep_ms(SWAP_EVERY_MS);
        slot_swap(slot, make_model(i, alive));
        swaps++;
        struct model *now = slot_acquire(slot);
        if (i % 2) {
            clock_sleep_ms(SWAP_EVERY_MS / 2);
            assert_true(slot_activate(slot, &before->info.digest));
            clock_sleep_ms(SWAP_EVERY_MS / 2);
            assert_true(slot_activate(slot, &now->info.digest));
            swaps += 2;
        }
        model_release(now);
        model_release(before);
    }
    clock_sleep_ms(SWAP_EVERY_MS);
    return swaps;
}

static uint64_t counted_answers(struct model_stats *stats) {
    struct model_record records[MODEL_STATS_MAX];
    uint64_t answered = 0;
    for (int i = model_stats_copy(stats, records) - 1; i >= 0; i--) {
        answered += records[i].answered;
        assert_int_equal(records[i].failed, 0);
    }
    return answered;
}

/** With the model before resident, rollbacks to it, and a shadow that would give itself away by its answers.
 */
static void check_answers(const struct instances *instances) {
    struct fixture fixture;
    struct asker askers[ASKERS];
    atomic_int alive = 0, shadowed = 0;
    atomic_bool stop = false;
    assert_true(digest_start(NULL));
    struct model_stats *stats = model_stats_create();
    struct shadow *shadow = shadow_create(&(struct shadow_spec){.stats = stats, .limit = 4}, NULL);
    struct server_spec spec = fixture_spec();
    spec.stats = stats;
    spec.shadow = shadow;
    spec.instances = instances;
    fixture_start(&fixture, &spec, make_model(0, &alive));
    slot_keep_previous(fixture.slot, true);
    shadow_set(
        shadow,
        fake_model(&(struct fake_model_spec){
            .name = "shadow", .logits = {0, 9, 0}, .compute_ms = 1, .alive = &alive, .computed = &shadowed}),
        1000);
    for (int i = 0; i < ASKERS; i++) {
        askers[i] = (struct asker){.endpoint = fixture.endpoint, .stop = &stop};
        pthread_create(&askers[i].thread, NULL, ask_without_pause, &askers[i]);
    }
    uint64_t swaps = exchange_models(fixture.slot, &alive), answered = 0;
    atomic_store(&stop, true);
    for (int i = 0; i < ASKERS; i++) {
        pthread_join(askers[i].thread, NULL);
        assert_int_equal(askers[i].lost, 0);
        assert_int_equal(askers[i].wrong, 0);
        assert_true(askers[i].answered > 0);
        assert_true(askers[i].models_seen > 1);
        answered += (uint64_t)askers[i].answered;
    }
    assert_int_equal(slot_swaps(fixture.slot), swaps);
    assert_true(atomic_load(&shadowed) > 0);
    assert_true(counted_answers(stats) <= answered); /* of the models used last */
    assert_int_equal(atomic_load(&alive), 3); /* the active one, the one before, the shadow */
    shadow_set(shadow, NULL, 0);
    fixture_stop(&fixture);
    shadow_destroy(shadow);
    assert_int_equal(atomic_load(&alive), 0); /* nothing holds on to any of them */
    model_stats_destroy(stats);
}

static void every_answer_is_by_the_model_that_it_names(void **state) {
    (void)state;
    check_answers(NULL);
}

static void so_it_is_with_two_instances(void **state) {
    (void)state;
    check_answers(&(struct instances){.count = 2, .threads = 1});
}

static void a_request_finishes_on_the_model_that_it_began_with(void **state) {
    (void)state;
    atomic_int alive = 0;
    struct slot *slot = slot_create();
    assert_null(slot_acquire(slot));
    slot_swap(slot, make_model(1, &alive));
    struct model *begun = slot_acquire(slot);
    slot_swap(slot, make_model(2, &alive));
    assert_string_equal(begun->info.name, "m1");
    assert_int_equal(atomic_load(&alive), 2);
    model_release(begun);
    assert_int_equal(atomic_load(&alive), 1);
    slot_destroy(slot);
    assert_int_equal(atomic_load(&alive), 0);
}

int main(void) {
    log_init("swap_test", LOG_ERROR + 1, LOG_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_answer_is_by_the_model_that_it_names),
        cmocka_unit_test(so_it_is_with_two_instances),
        cmocka_unit_test(a_request_finishes_on_the_model_that_it_began_with),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
