#include "common/wire/address.h"
#include <arpa/inet.h>
#include <string.h>

/** True for a numeric loopback address, localhost, or the loopback interface: what binds no network card. */
static bool host_is_loopback(const char *host, size_t length) {
    char text[64];
    if (length >= sizeof text) {
        return false;
    }
    memcpy(text, host, length);
    text[length] = 0;
    struct in_addr v4;
    if (inet_pton(AF_INET, text, &v4) == 1) {
        return ntohl(v4.s_addr) >> 24 == 127;
    }
    return strcmp(text, "localhost") == 0 || strcmp(text, "lo") == 0 || strcmp(text, "[::1]") == 0 ||
           strcmp(text, "::1") == 0;
}

bool address_host_is_local(const char *host) {
    return host_is_loopback(host, strlen(host));
}

bool address_is_local(const char *endpoint) {
    if (strncmp(endpoint, "ipc://", 6) == 0 || strncmp(endpoint, "inproc://", 9) == 0)
        return true;
    const char *host = endpoint + 6, *colon = strncmp(endpoint, "tcp://", 6) == 0 ? strrchr(host, ':') : NULL;
    return colon && host_is_loopback(host, (size_t)(colon - host));
}

bool address_check_bind(const char *endpoint, bool insecure, struct error *err) {
    if (strlen(endpoint) >= ADDRESS_SIZE) {
        return error_set(err, ERROR_INVALID, "endpoint of %zu characters: at most %d", strlen(endpoint),
                         ADDRESS_SIZE - 1);
    }
    if (strncmp(endpoint, "ipc://", 6) == 0 || strncmp(endpoint, "inproc://", 9) == 0) {
        return true;
    }
    if (strncmp(endpoint, "tcp://", 6) != 0) {
        return error_set(err, ERROR_UNSUPPORTED,
                         "endpoint %s: expected tcp://HOST:PORT, ipc://PATH or inproc://NAME", endpoint);
    }
    const char *host = endpoint + 6, *colon = strrchr(host, ':');
    if (!colon) {
        return error_set(err, ERROR_INVALID, "endpoint %s: no port", endpoint);
    }
    if (insecure || host_is_loopback(host, (size_t)(colon - host))) {
        return true;
    }
    error_set(err, ERROR_INVALID,
              "refusing to bind %s: it is not a loopback address and nothing would be encrypted", endpoint);
    return error_hint(err, "bind 127.0.0.1, give keys (security.key, security.allow), or say security.insecure: true");
}

bool address_is_tcp(const char *endpoint) {
    return strncmp(endpoint, "tcp://", 6) == 0;
}

bool address_all_tcp(const char *const *endpoints, bool *any) {
    bool all = true;
    for (*any = false; endpoints && *endpoints; endpoints++) {
        *any = *any || address_is_tcp(*endpoints);
        all = all && address_is_tcp(*endpoints);
    }
    return all;
}
