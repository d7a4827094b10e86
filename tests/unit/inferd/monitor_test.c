#include "inferd/monitor.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "inferd/client/client.h"
#include "tests/unit/inferd/fake_model.h"
#include "tests/unit/inferd/fixture.h"
#include "tests/unit/wire/http_client.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { REPLY_SIZE = 1 << 17, TIMEOUT_MS = 15000 };

static const struct fake_model_spec SICK = {.name = "si\"ck", .logits = {0, 3, 0}};

static struct monitor *watch(const struct fixture *fixture) {
    struct error err = {0};
    struct monitor_spec spec = {
        .bind = "127.0.0.1:0", .version = "test", .server = fixture->server, .slot = fixture->slot};
    struct monitor *monitor = monitor_create(&spec, &err);
    if (!monitor)
        fail_msg("%s", err.message);
    return monitor;
}

/** Asks about one image, or, where damaged, about bytes that are none. */
static void ask(const struct fixture *fixture, bool damaged) {
    struct error err = {0};
    struct client_reply reply;
    struct bytes image = fixture_image(1);
    struct client *client = client_open(&(struct client_spec){.endpoint = fixture->endpoint}, &err);
    struct client_request request = {
        .image = image.data, .image_size = damaged ? 10 : image.size, .timeout_ms = TIMEOUT_MS};
    assert_non_null(client);
    if (!client_diagnose(client, &request, &reply, &err))
        fail_msg("%s", err.message);
    client_reply_fini(&reply);
    client_close(client);
    free(image.data);
}

static int get(struct monitor *monitor, const char *path, char *out) {
    return http_get(monitor_port(monitor), path, out, REPLY_SIZE);
}

/** Until the server's thread has begun: at most TIMEOUT_MS. */
static int get_ready(struct monitor *monitor, int wanted, char *out) {
    int64_t deadline = clock_now_ms() + TIMEOUT_MS;
    int status;
    while ((status = get(monitor, "/readyz", out)) != wanted && clock_left_ms(deadline) > 0)
        clock_sleep_ms(5);
    return status;
}

static void a_member_is_alive_without_a_model_and_ready_with_one(void **state) {
    (void)state;
    static char reply[REPLY_SIZE];
    struct fixture fixture;
    struct server_spec spec = fixture_spec();
    fixture_start(&fixture, &spec, NULL);
    struct monitor *monitor = watch(&fixture);
    assert_int_equal(get(monitor, "/healthz", reply), 200);
    assert_int_equal(get(monitor, "/readyz", reply), 503);
    assert_non_null(strstr(reply, "no model yet"));
    slot_swap(fixture.slot, fake_model(&SICK));
    assert_int_equal(get_ready(monitor, 200, reply), 200);
    monitor_destroy(monitor);
    fixture_stop(&fixture);
}

static void a_member_that_drains_is_alive_and_not_ready(void **state) {
    (void)state;
    static char reply[REPLY_SIZE];
    struct fixture fixture;
    struct server_spec spec = fixture_spec();
    fixture_start(&fixture, &spec, fake_model(&SICK));
    struct monitor *monitor = watch(&fixture);
    assert_int_equal(get_ready(monitor, 200, reply), 200);
    atomic_store(&fixture.stop, true);
    assert_int_equal(get_ready(monitor, 503, reply), 503);
    assert_non_null(strstr(reply, "shutting down"));
    assert_int_equal(get(monitor, "/healthz", reply), 200);
    monitor_destroy(monitor);
    fixture_stop(&fixture);
}

static void metrics_count_requests_stages_and_batches(void **state) {
    (void)state;
    static char reply[REPLY_SIZE];
    static const char *const lines[] = {
        "\nthorax_requests_total{status=\"OK\"} 3\n",
        "\nthorax_requests_total{status=\"UNSUPPORTED_MEDIA\"} 1\n",
        "\nthorax_requests_total{status=\"BUSY\"} 0\n",
        "\nthorax_request_seconds_count 4\n",
        "\nthorax_request_stage_seconds_count{stage=\"queue\"} 4\n",
        "\nthorax_request_stage_seconds_count{stage=\"decode\"} 4\n",
        "\nthorax_request_stage_seconds_count{stage=\"batch\"} 3\n",
        "\nthorax_request_stage_seconds_count{stage=\"compute\"} 3\n",
        "\nthorax_batch_images_bucket{le=\"1\"} 3\n",
        "\nthorax_images_total 3\n",
        "\nthorax_instances 1\n",
        "\nthorax_instance_busy_seconds_total{instance=\"0\"} ",
        "\nthorax_requests_in_flight 0\n",
        "\nthorax_requests_queue_limit 16\n",
        "\nthorax_ready 1\n",
        "\nthorax_draining 0\n",
        "\nthorax_model_swaps_total 0\n",
        "\nthorax_model_info{name=\"si\\\"ck\",version=",
        "\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n",
    };
    struct fixture fixture;
    struct server_spec spec = fixture_spec();
    fixture_start(&fixture, &spec, fake_model(&SICK));
    struct monitor *monitor = watch(&fixture);
    for (int i = 0; i < 4; i++)
        ask(&fixture, i == 2);
    assert_int_equal(get(monitor, "/metrics", reply), 200);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        if (!strstr(reply, lines[i]))
            fail_msg("no line %s in %s", lines[i] + 1, reply);
    }
    assert_null(strstr(reply, "thorax_publisher_connected")); /* it follows nobody */
    monitor_destroy(monitor);
    fixture_stop(&fixture);
}

/** The stages of a request add up to no more than the whole, and the compute is what the model took. */
static void the_slow_stage_is_the_one_that_shows(void **state) {
    (void)state;
    struct fixture fixture;
    struct server_spec spec = fixture_spec();
    struct fake_model_spec slow = {.name = "slow", .logits = {0, 3, 0}, .compute_ms = 150};
    fixture_start(&fixture, &spec, fake_model(&slow));
    ask(&fixture, false);
    const struct counters *counters = server_counters(fixture.server);
    uint64_t sum = 0;
    for (int i = 0; i < COUNTERS_STAGES; i++)
        sum += counters->stages[i].sum_us;
    assert_true(counters->stages[COUNTERS_COMPUTE].sum_us >= 149000);
    assert_true(counters->instances[0].busy_us >= 149000);
    assert_true(counters->request.sum_us + COUNTERS_STAGES >= sum);
    fixture_stop(&fixture);
}

int main(void) {
    log_init("monitor_test", LOG_ERROR + 1, LOG_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_member_is_alive_without_a_model_and_ready_with_one),
        cmocka_unit_test(a_member_that_drains_is_alive_and_not_ready),
        cmocka_unit_test(metrics_count_requests_stages_and_batches),
        cmocka_unit_test(the_slow_stage_is_the_one_that_shows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
