#include "inferd/shadow.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "inferd/client/client.h"
#include "tests/unit/inferd/fake_model.h"
#include "tests/unit/inferd/fixture.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { TIMEOUT_MS = 20000, LIMIT = 8, CLASSES = 3 };

static const struct fake_model_spec SICK = {.name = "sick", .logits = {0, 3, 0}};

static struct shadow *make(struct model_stats *stats) {
    struct error err = {0};
    assert_true(digest_start(NULL));
    struct shadow *shadow = shadow_create(&(struct shadow_spec){.stats = stats, .limit = LIMIT}, &err);
    assert_non_null(shadow);
    return shadow;
}

/** What is known of one model; zero where it is not known. */
static struct model_record record_of(struct model_stats *stats, const char *name) {
    struct model_record records[MODEL_STATS_MAX], none = {0};
    struct digest digest = digest_of(name, strlen(name));
    int count = model_stats_copy(stats, records);
    for (int i = 0; i < count; i++) {
        if (digest_equal(&records[i].digest, &digest)) {
            return records[i];
        }
    }
    return none;
}

static void wait_compared(struct model_stats *stats, const char *name, uint64_t count) {
    int64_t deadline = clock_now_ms() + TIMEOUT_MS;
    while (record_of(stats, name).compared < count) {
        assert_true(clock_now_ms() < deadline);
        clock_sleep_ms(1);
    }
}

/** One picture, answered by a model; the shadow is given time to compare it. Returns whether a sample was
 * taken. */
static bool show(struct shadow *shadow, struct model *active, const float *logits) {
    struct image image;
    uint8_t grey[28 * 28] = {0};
    double probabilities[CLASSES];
    assert_true(image_init(&image, 64, 48, 1, 8, NULL));
    memset(image.pixels, 100, 64 * 48);
    struct shadow_sample *sample = shadow_begin(shadow, active, &image, grey);
    image_fini(&image);
    if (sample) {
        double sum = exp(logits[0]) + exp(logits[1]) + exp(logits[2]);
        for (int k = 0; k < CLASSES; k++) {
            probabilities[k] = exp(logits[k]) / sum;
        }
        shadow_submit(sample, &active->info, probabilities);
    }
    return sample != NULL;
}

static double finding(const float *logits) {
    return exp(logits[1]) / (exp(logits[0]) + exp(logits[1]) + exp(logits[2]));
}

/** The shadow says one thing, the active model four: one the same, one of another decision, one INVALID, one
 * the same again. */
static void decisions_and_probabilities_are_compared(void **state) {
    (void)state;
    const float shadow_logits[] = {0, 3, 0};
    const float answers[][CLASSES] = {{0, 3, 0}, {3, 0, 0}, {0, 2, 3}, {0, 4, 0}};
    struct model_stats *stats = model_stats_create();
    struct shadow *shadow = make(stats);
    struct model *active = fake_model(&(struct fake_model_spec){.name = "active"});
    double sum = 0, squares = 0;
    shadow_set(shadow, fake_model(&SICK), 1000);
    for (uint64_t i = 0; i < 4; i++) {
        double drift = finding(shadow_logits) - finding(answers[i]);
        assert_true(show(shadow, active, answers[i]));
        wait_compared(stats, "sick", i + 1);
        sum += drift;
        squares += drift * drift;
    }
    struct model_record record = record_of(stats, "sick");
    assert_int_equal(record.agreed, 2);
    assert_int_equal(record.shadow_failed, 0);
    assert_true(fabs(record.drift_sum - sum) < 1e-9);
    assert_true(fabs(record.drift_square_sum - squares) < 1e-9);
    shadow_destroy(shadow);
    model_release(active);
    model_stats_destroy(stats);
}

static void pictures_that_both_find_invalid_agree(void **state) {
    (void)state;
    const float invalid[] = {0, 1, 5};
    struct model_stats *stats = model_stats_create();
    struct shadow *shadow = make(stats);
    struct model *active = fake_model(&(struct fake_model_spec){.name = "active"});
    shadow_set(shadow, fake_model(&(struct fake_model_spec){.name = "s", .logits = {0, -4, 9}}), 1000);
    assert_true(show(shadow, active, invalid));
    wait_compared(stats, "s", 1);
    assert_int_equal(record_of(stats, "s").agreed, 1);
    shadow_destroy(shadow);
    model_release(active);
    model_stats_destroy(stats);
}

static void its_share_of_the_pictures_is_taken(void **state) {
    (void)state;
    const float logits[] = {0, 3, 0};
    int taken = 0;
    struct model_stats *stats = model_stats_create();
    struct shadow *shadow = make(stats);
    struct model *active = fake_model(&(struct fake_model_spec){.name = "active"});
    assert_false(show(shadow, active, logits)); /* there is none yet */
    shadow_set(shadow, fake_model(&SICK), 30);
    for (int i = 0; i < 1000; i++) {
        if (show(shadow, active, logits)) {
            wait_compared(stats, "sick", (uint64_t)++taken);
        }
    }
    assert_int_equal(taken, 30);
    shadow_set_share(shadow, 1000);
    assert_true(show(shadow, active, logits));
    struct model *same = fake_model(&SICK);
    assert_false(show(shadow, same, logits)); /* it serves already */
    model_release(same);
    shadow_destroy(shadow);
    model_release(active);
    model_stats_destroy(stats);
}

static void what_cannot_be_computed_is_counted(void **state) {
    (void)state;
    const float logits[] = {0, 3, 0};
    struct model_stats *stats = model_stats_create();
    struct shadow *shadow = make(stats);
    struct model *active = fake_model(&(struct fake_model_spec){.name = "active"});
    shadow_set(shadow, fake_model(&(struct fake_model_spec){.name = "bad", .fails = true}), 1000);
    assert_true(show(shadow, active, logits));
    wait_compared(stats, "bad", 1);
    shadow_set(shadow, fake_model(&(struct fake_model_spec){.name = "nan", .logits = {0, NAN, 0}}), 1000);
    assert_true(show(shadow, active, logits));
    wait_compared(stats, "nan", 1);
    assert_int_equal(record_of(stats, "bad").shadow_failed, 1);
    assert_int_equal(record_of(stats, "nan").shadow_failed, 1);
    assert_int_equal(record_of(stats, "nan").agreed, 0);
    shadow_destroy(shadow);
    model_release(active);
    model_stats_destroy(stats);
}

/** The model that is compared waits for the test at each picture. */
struct held {
    struct model model;
    atomic_int computing;
    atomic_bool go;
};

static bool compute_held(struct model *model, int instance, const float *images, int count, float *logits,
                         struct error *err) {
    struct held *held = (struct held *)model;
    (void)instance;
    (void)images;
    (void)count;
    (void)err;
    atomic_fetch_add(&held->computing, 1);
    while (!atomic_load(&held->go)) {
        clock_sleep_ms(1);
    }
    memset(logits, 0, CLASSES * sizeof *logits);
    return true;
}

static void keep(struct model *model) {
    (void)model;
}

static void what_is_too_much_is_dropped_and_a_shadow_that_ends_is_let_go(void **state) {
    (void)state;
    static const struct model_ops ops = {.compute = compute_held, .destroy = keep};
    const float logits[] = {0, 3, 0};
    atomic_int alive = 0;
    struct model_stats *stats = model_stats_create();
    struct shadow *shadow = make(stats);
    struct model *active = fake_model(&(struct fake_model_spec){.name = "active", .alive = &alive});
    struct held held = {.model = {.ops = &ops, .max_batch = 1, .info = active->info}};
    atomic_init(&held.model.references, 1);
    held.model.info.digest = digest_of("held", 4);
    held.model.info.recipe = recipe_default(32, 32, 1); /* of another size: it is resized a second time */
    shadow_set(shadow, &held.model, 1000);
    for (int i = 0; i < LIMIT; i++) {
        assert_true(show(shadow, active, logits));
    }
    for (int i = 0; i < 5; i++) {
        assert_false(show(shadow, active, logits));
    }
    assert_int_equal(shadow_dropped(shadow), 5);
    while (!atomic_load(&held.computing)) {
        clock_sleep_ms(1);
    }
    shadow_set(shadow, fake_model(&(struct fake_model_spec){.name = "next", .alive = &alive}), 1000);
    atomic_store(&held.go, true);
    while (atomic_load(&held.model.references) > 0) {
        clock_sleep_ms(1); /* fails by the test's time limit, where samples hold it for ever */
    }
    assert_int_equal(atomic_load(&held.computing),
                     1); /* what waited for the one before is not computed any more */
    assert_true(show(shadow, active, logits));
    wait_compared(stats, "next", 1);
    shadow_set(shadow, NULL, 0);
    assert_false(show(shadow, active, logits));
    shadow_destroy(shadow);
    model_release(active);
    assert_int_equal(atomic_load(&alive), 0);
    model_stats_destroy(stats);
}

static void live_answers_are_compared_and_are_the_active_models(void **state) {
    (void)state;
    enum { QUESTIONS = 40 };
    struct fixture fixture;
    struct model_stats *stats = model_stats_create();
    struct shadow *shadow = make(stats);
    struct server_spec spec = fixture_spec();
    struct bytes picture = fixture_image(3);
    atomic_int computed = 0;
    spec.shadow = shadow;
    spec.stats = stats;
    fixture_start(&fixture, &spec, fake_model(&SICK));
    shadow_set(
        shadow,
        fake_model(&(struct fake_model_spec){.name = "well", .logits = {3, 0, 0}, .computed = &computed}),
        500);
    struct client *client = client_open(&(struct client_spec){.endpoint = fixture.endpoint}, NULL);
    for (uint64_t i = 0; i < QUESTIONS; i++) {
        struct client_reply reply;
        struct client_request request = {
            .image = picture.data, .image_size = picture.size, .timeout_ms = TIMEOUT_MS};
        assert_true(client_diagnose(client, &request, &reply, NULL));
        assert_int_equal(reply.diagnosis->status, THORAX__V1__STATUS__STATUS_OK);
        assert_string_equal(reply.diagnosis->model->name, "sick");
        client_reply_fini(&reply);
        wait_compared(stats, "well", (i + 1) / 2);
    }
    struct model_record record = record_of(stats, "well");
    assert_int_equal(record.compared, QUESTIONS / 2);
    assert_int_equal(atomic_load(&computed), QUESTIONS / 2);
    assert_int_equal(record.agreed, 0);
    assert_int_equal(record.answered, 0);
    assert_true(record.drift_sum < -0.8 * QUESTIONS / 2);
    record = record_of(stats, "sick");
    assert_int_equal(record.answered, QUESTIONS);
    assert_int_equal(record.latency.total, QUESTIONS);
    client_close(client);
    fixture_stop(&fixture);
    shadow_destroy(shadow);
    model_stats_destroy(stats);
    free(picture.data);
}

int main(void) {
    log_init("shadow_test", LOG_ERROR + 1, LOG_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decisions_and_probabilities_are_compared),
        cmocka_unit_test(pictures_that_both_find_invalid_agree),
        cmocka_unit_test(its_share_of_the_pictures_is_taken),
        cmocka_unit_test(what_cannot_be_computed_is_counted),
        cmocka_unit_test(what_is_too_much_is_dropped_and_a_shadow_that_ends_is_let_go),
        cmocka_unit_test(live_answers_are_compared_and_are_the_active_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
