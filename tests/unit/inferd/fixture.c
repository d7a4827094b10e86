#include "tests/unit/inferd/fixture.h"
#include "common/base/clock.h"
#include "common/base/rng.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { DRAIN_MS = 20000 };

struct server_spec fixture_spec(void) {
    static const char *const bind[] = {"tcp://127.0.0.1:*", NULL};
    return (struct server_spec){.bind = bind,
                                .member = "test-member",
                                .version = "test",
                                .max_message_bytes = 1 << 20,
                                .default_timeout_ms = 20000,
                                .drain_timeout_ms = DRAIN_MS,
                                .allow_drain = true,
                                .max_timeout_ms = 60000,
                                .decode_threads = 2,
                                .max_jobs = 16,
                                .max_job_bytes = 8 << 20,
                                .max_batch = 4,
                                .max_delay_us = 500,
                                .limits = {.max_bytes = 1 << 20, .max_pixels = 1 << 20, .max_side = 4096}};
}

static void *run(void *argument) {
    struct fixture *fixture = argument;
    struct error err = {0};
    while (!atomic_load(&fixture->stop) && !server_draining(fixture->server) && server_step(fixture->server, 5, &err)) {
    }
    int64_t start = clock_now_ms();
    fixture->drained = server_drain(fixture->server, DRAIN_MS, &err);
    fixture->drain_ms = clock_now_ms() - start;
    return NULL;
}

void fixture_start(struct fixture *fixture, const struct server_spec *spec, struct model *model) {
    struct error err = {0};
    struct server_spec with_slot = *spec;
    memset(fixture, 0, sizeof *fixture);
    assert_true(digest_start(NULL));
    with_slot.slot = fixture->slot = slot_create();
    if (model) {
        slot_swap(fixture->slot, model);
    }
    fixture->server = server_create(&with_slot, &err);
    if (!fixture->server) {
        fail_msg("%s", err.message);
    }
    assert_non_null(server_bound(fixture->server, 0, fixture->endpoint, sizeof fixture->endpoint));
    assert_int_equal(pthread_create(&fixture->thread, NULL, run, fixture), 0);
}

void fixture_stop(struct fixture *fixture) {
    atomic_store(&fixture->stop, true);
    pthread_join(fixture->thread, NULL);
    server_destroy(fixture->server);
    slot_destroy(fixture->slot);
}

struct bytes fixture_image(uint64_t seed) {
    struct image image;
    struct bytes png;
    struct rng rng;
    rng_init(&rng, seed, RNG_TEST, 0, 0);
    assert_true(image_init(&image, 64, 48, 1, 8, NULL));
    for (int i = 0; i < 64 * 48; i++) {
        ((uint8_t *)image.pixels)[i] = (uint8_t)rng_below(&rng, 256);
    }
    assert_true(image_encode_png(&image, NULL, 0, &png, NULL));
    image_fini(&image);
    return png;
}
