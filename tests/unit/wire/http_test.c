#include "common/wire/http.h"
#include "tests/unit/wire/http_client.h"
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

enum { REPLY_SIZE = 65536 };

static atomic_int answered;

static int answer_health(void *context, FILE *out) {
    atomic_fetch_add(&answered, 1);
    fputs(context, out);
    return 200;
}

static int answer_sick(void *context, FILE *out) {
    (void)context;
    fputs("no model\n", out);
    return 503;
}

static const struct http_route routes[] = {
    {"/healthz", "text/plain", answer_health},
    {"/readyz", "text/plain", answer_sick},
};

static struct http_server *start(const char *bind, bool remote, struct error *err) {
    struct http_spec spec = {.bind = bind,
                             .insecure = remote,
                             .routes = routes,
                             .route_count = 2,
                             .context = "well\n"};
    return http_server_create(&spec, err);
}

static struct http_server *start_or_fail(void) {
    struct error err = {0};
    struct http_server *server = start("127.0.0.1:0", false, &err);
    if (!server)
        fail_msg("%s", err.message);
    return server;
}

static void a_route_answers_with_its_own_status_and_body(void **state) {
    (void)state;
    char reply[REPLY_SIZE];
    struct http_server *server = start_or_fail();
    assert_int_equal(
        http_ask(http_server_port(server), "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", reply, REPLY_SIZE),
        200);
    assert_non_null(strstr(reply, "\r\n\r\nwell\n"));
    assert_int_equal(http_ask(http_server_port(server), "GET /healthz?verbose=1 HTTP/1.1\r\nHost: x\r\n\r\n",
                              reply, REPLY_SIZE),
                     200);
    assert_int_equal(
        http_ask(http_server_port(server), "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", reply, REPLY_SIZE),
        503);
    assert_non_null(strstr(reply, "\r\n\r\nno model\n"));
    http_server_destroy(server);
}

static void all_else_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *request;
        int status;
    } rows[] = {
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404},
        {"GET /healthz/ HTTP/1.1\r\nHost: x\r\n\r\n", 404},
        {"GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404},
        {"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", 405},
        {"DELETE /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 405},
        {"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n", 413},
        {"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 413},
    };
    char reply[REPLY_SIZE];
    struct http_server *server = start_or_fail();
    atomic_store(&answered, 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int status = http_ask(http_server_port(server), rows[i].request, reply, REPLY_SIZE);
        if (status != rows[i].status)
            fail_msg("row %zu: %d: %s", i, status, reply);
    }
    assert_int_equal(atomic_load(&answered), 0);
    http_server_destroy(server);
}

static void a_request_over_the_limit_is_refused(void **state) {
    (void)state;
    enum { PADDING = 2 * HTTP_MAX_REQUEST_BYTES };
    static char request[PADDING + 128], padding[PADDING + 1], reply[REPLY_SIZE];
    struct http_server *server = start_or_fail();
    atomic_store(&answered, 0);
    memset(padding, 'x', PADDING);
    snprintf(request, sizeof request, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Padding: %s\r\n\r\n", padding);
    int status = http_ask(http_server_port(server), request, reply, REPLY_SIZE);
    assert_true(status == 0 || (status >= 400 && status < 500));
    snprintf(request, sizeof request, "GET /healthz?%s HTTP/1.1\r\nHost: x\r\n\r\n", padding);
    status = http_ask(http_server_port(server), request, reply, REPLY_SIZE);
    assert_true(status == 0 || (status >= 400 && status < 500));
    assert_int_equal(atomic_load(&answered), 0);
    http_server_destroy(server);
}

static void one_silent_client_keeps_nobody_waiting(void **state) {
    (void)state;
    char reply[REPLY_SIZE];
    struct http_server *server = start_or_fail();
    int silent = http_dial(http_server_port(server));
    assert_int_equal(send(silent, "GET /hea", 8, MSG_NOSIGNAL), 8);
    assert_int_equal(
        http_ask(http_server_port(server), "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", reply, REPLY_SIZE),
        200);
    assert_true(http_read_all(silent, reply, REPLY_SIZE)); /* cut off once its time is over */
    close(silent);
    http_server_destroy(server);
}

static void connections_over_the_limit_are_not_served_until_others_end(void **state) {
    (void)state;
    int held[HTTP_MAX_CONNECTIONS];
    char reply[REPLY_SIZE];
    struct http_server *server = start_or_fail();
    for (int i = 0; i < HTTP_MAX_CONNECTIONS; i++)
        held[i] = http_dial(http_server_port(server));
    atomic_store(&answered, 0);
    int extra = http_dial(http_server_port(server));
    assert_true(send(extra, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 35, MSG_NOSIGNAL) > 0);
    struct pollfd item = {.fd = extra, .events = POLLIN};
    bool silent = poll(&item, 1, 300) == 0; /* it waits in the backlog, or was closed */
    assert_true(silent || atomic_load(&answered) == 0);
    for (int i = 0; i < HTTP_MAX_CONNECTIONS; i++)
        close(held[i]);
    close(extra);
    assert_int_equal(
        http_ask(http_server_port(server), "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", reply, REPLY_SIZE),
        200);
    http_server_destroy(server);
}

static void only_loopback_is_bound_unless_told_otherwise(void **state) {
    (void)state;
    static const char *const refused[] = {"0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[2001:db8::1]:0"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct error err = {0};
        assert_null(start(refused[i], false, &err));
        assert_int_equal(err.code, ERROR_INVALID);
        assert_non_null(strstr(err.message, "loopback"));
    }
    struct http_server *server = start("0.0.0.0:0", true, NULL);
    assert_non_null(server);
    assert_true(http_server_port(server) > 0);
    http_server_destroy(server);
}

static void what_is_no_address_is_an_error(void **state) {
    (void)state;
    static const char *const wrong[] = {"",
                                        "9100",
                                        ":9100",
                                        "127.0.0.1",
                                        "127.0.0.1:",
                                        "127.0.0.1:70000",
                                        "127.0.0.1:http",
                                        "example.org:80",
                                        "::1:80",
                                        "[::1:80",
                                        "[]:80",
                                        "127.0.0.1:-1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct error err = {0};
        assert_null(start(wrong[i], true, &err));
        assert_int_equal(err.code, ERROR_INVALID);
    }
}

static void an_address_in_use_is_an_error_that_names_it(void **state) {
    (void)state;
    struct error err = {0};
    char bind[64];
    struct http_server *server = start_or_fail();
    snprintf(bind, sizeof bind, "127.0.0.1:%d", http_server_port(server));
    assert_null(start(bind, false, &err));
    assert_int_equal(err.code, ERROR_IO);
    assert_non_null(strstr(err.message, bind));
    http_server_destroy(server);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_route_answers_with_its_own_status_and_body),
        cmocka_unit_test(all_else_is_refused),
        cmocka_unit_test(a_request_over_the_limit_is_refused),
        cmocka_unit_test(one_silent_client_keeps_nobody_waiting),
        cmocka_unit_test(connections_over_the_limit_are_not_served_until_others_end),
        cmocka_unit_test(only_loopback_is_bound_unless_told_otherwise),
        cmocka_unit_test(what_is_no_address_is_an_error),
        cmocka_unit_test(an_address_in_use_is_an_error_that_names_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
