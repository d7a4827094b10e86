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
    struct client *client = client_open(asker->endpoint, NULL);
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

static void every_answer_is_by_the_model_that_it_names(void **state) {
    (void)state;
    struct fixture fixture;
    struct asker askers[ASKERS];
    atomic_int alive = 0;
    atomic_bool stop = false;
    struct server_spec spec = fixture_spec();
    fixture_start(&fixture, &spec, make_model(0, &alive));
    for (int i = 0; i < ASKERS; i++) {
        askers[i] = (struct asker){.endpoint = fixture.endpoint, .stop = &stop};
        pthread_create(&askers[i].thread, NULL, ask_without_pause, &askers[i]);
    }
    for (int i = 1; i < MODELS; i++) {
        clock_sleep_ms(SWAP_EVERY_MS);
        slot_swap(fixture.slot, make_model(i, &alive));
    }
    clock_sleep_ms(SWAP_EVERY_MS);
    atomic_store(&stop, true);
    for (int i = 0; i < ASKERS; i++) {
        pthread_join(askers[i].thread, NULL);
        assert_int_equal(askers[i].lost, 0);
        assert_int_equal(askers[i].wrong, 0);
        assert_true(askers[i].answered > 0);
        assert_true(askers[i].models_seen > 1);
    }
    assert_int_equal(slot_swaps(fixture.slot), MODELS - 1);
    assert_int_equal(atomic_load(&alive),
                     1); /* those before are gone, with the last request that used them */
    fixture_stop(&fixture);
    assert_int_equal(atomic_load(&alive), 0);
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
        cmocka_unit_test(a_request_finishes_on_the_model_that_it_began_with),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
