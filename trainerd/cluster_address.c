#include "trainerd/cluster_address.h"

#include "trainerd/cluster_place.h"

#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/** HOST and PORT of tcp://HOST:PORT, brackets taken off. */
static bool split(const char *endpoint, char host[CLUSTER_ENDPOINT_SIZE], const char **port) {
    static const char scheme[] = "tcp://";
    const char *begin = endpoint + sizeof scheme - 1, *colon = strrchr(endpoint, ':');
    size_t length = colon && colon > begin ? (size_t)(colon - begin) : 0;
    if (strncmp(endpoint, scheme, sizeof scheme - 1) != 0 || length == 0 || length >= CLUSTER_ENDPOINT_SIZE)
        return false;
    bool bracketed = begin[0] == '[' && colon[-1] == ']' && length > 2;
    memcpy(host, begin + bracketed, length - 2 * (size_t)bracketed);
    host[length - 2 * (size_t)bracketed] = '\0';
    *port = colon + 1;
    return true;
}

/** A datagram socket that is connected only chooses the interface. */
static bool local_of(const struct addrinfo *to, char *out, size_t size, struct error *err) {
    struct sockaddr_storage local;
    socklen_t length = sizeof local;
    int descriptor = socket(to->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok = descriptor >= 0 && connect(descriptor, to->ai_addr, to->ai_addrlen) == 0 &&
              getsockname(descriptor, (struct sockaddr *)&local, &length) == 0;
    if (!ok)
        error_set_errno(err, "no way to it");
    if (descriptor >= 0)
        close(descriptor);
    if (!ok)
        return false;
    int failed = getnameinfo((struct sockaddr *)&local, length, out, (socklen_t)size, NULL, 0, NI_NUMERICHOST);
    return !failed || error_set(err, ERROR_IO, "the own address: %s", gai_strerror(failed));
}

bool cluster_address_towards(const char *endpoint, char *out, size_t size, struct error *err) {
    char host[CLUSTER_ENDPOINT_SIZE];
    const char *port;
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *found = NULL;
    if (!split(endpoint, host, &port))
        return error_set(err, ERROR_INVALID, "%s is no tcp://HOST:PORT", endpoint);
    int failed = getaddrinfo(host, port, &hints, &found);
    if (failed)
        return error_set(err, ERROR_NOT_FOUND, "%s: %s", endpoint, gai_strerror(failed));
    bool ok = local_of(found, out, size, err) || error_prefix(err, "%s", endpoint);
    freeaddrinfo(found);
    return ok;
}
