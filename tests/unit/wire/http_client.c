#include "tests/unit/wire/http_client.h"
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

enum { WAIT_MS = 20000 };

int http_dial(int port) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(descriptor, (struct sockaddr *)&address, sizeof address), 0);
    return descriptor;
}

bool http_read_all(int descriptor, char *out, size_t size) {
    size_t used = 0;
    struct pollfd item = {.fd = descriptor, .events = POLLIN};
    out[0] = 0;
    while (used + 1 < size && poll(&item, 1, WAIT_MS) == 1) {
        ssize_t got = read(descriptor, out + used, size - 1 - used);
        if (got <= 0)
            return got == 0 || errno == ECONNRESET;
        used += (size_t)got;
        out[used] = 0;
    }
    return false;
}

int http_ask(int port, const char *request, char *out, size_t size) {
    int descriptor = http_dial(port);
    assert_true(send(descriptor, request, strlen(request), MSG_NOSIGNAL) > 0);
    assert_true(http_read_all(descriptor, out, size));
    close(descriptor);
    return strncmp(out, "HTTP/1.1 ", 9) == 0 ? (int)strtol(out + 9, NULL, 10) : 0;
}

int http_get(int port, const char *path, char *out, size_t size) {
    char request[256];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
    return http_ask(port, request, out, size);
}
