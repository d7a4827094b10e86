#include "common/wire/http.h"
#include "common/base/text.h"
#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HOST_SIZE = 64, BACKLOG = 16 };

struct http_server {
    struct http_route routes[HTTP_MAX_ROUTES];
    int route_count;
    void *context;
    int port;
    struct MHD_Daemon *daemon;
};

/** An address to listen on, IPv4 or IPv6. */
struct address {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } socket;
    socklen_t size;
};

static bool parse_host(const char *host, in_port_t port, struct address *out) {
    struct sockaddr_in *v4 = &out->socket.v4;
    struct sockaddr_in6 *v6 = &out->socket.v6;
    char inner[HOST_SIZE];
    memset(out, 0, sizeof *out);
    if (strcmp(host, "localhost") == 0) {
        host = "127.0.0.1";
    }
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        out->size = sizeof *v4;
        return true;
    }
    size_t length = strlen(host);
    if (length < 3 || host[0] != '[' || host[length - 1] != ']') {
        return false;
    }
    snprintf(inner, sizeof inner, "%.*s", (int)length - 2, host + 1);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    out->size = sizeof *v6;
    return inet_pton(AF_INET6, inner, &v6->sin6_addr) == 1;
}

static bool is_loopback(const struct address *address) {
    return address->socket.any.sa_family == AF_INET ? ntohl(address->socket.v4.sin_addr.s_addr) >> 24 == 127
                                                    : IN6_IS_ADDR_LOOPBACK(&address->socket.v6.sin6_addr);
}

static bool parse_bind(const struct http_spec *spec, struct address *out, struct error *err) {
    const char *colon = strrchr(spec->bind, ':');
    char host[HOST_SIZE];
    int64_t port;
    size_t length = colon ? (size_t)(colon - spec->bind) : 0;
    if (length == 0 || length >= sizeof host || !text_to_int(colon + 1, 0, 65535, &port, NULL)) {
        return error_set(err, ERROR_INVALID, "http address %.80s: expected HOST:PORT", spec->bind);
    }
    memcpy(host, spec->bind, length);
    host[length] = 0;
    if (!parse_host(host, (in_port_t)port, out)) {
        return error_set(
            err, ERROR_INVALID,
            "http address %.80s: HOST is an IPv4 address, an IPv6 address in brackets, or localhost",
            spec->bind);
    }
    if (spec->insecure || is_loopback(out)) {
        return true;
    }
    error_set(err, ERROR_INVALID,
              "refusing to serve http at %s: it is not a loopback address and nothing would be encrypted",
              spec->bind);
    return error_hint(err, "bind 127.0.0.1, or say security.insecure: true where the whole network is trusted");
}

/** A listening socket, so that errors and the port are ours to tell. -1 on error. */
static int listen_at(const char *bind_text, const struct address *address, int *port, struct error *err) {
    int one = 1,
        descriptor = socket(address->socket.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct address bound = {.size = sizeof bound.socket};
    if (descriptor < 0) {
        error_set_errno(err, "http: socket");
        return -1;
    }
    if (setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(descriptor, &address->socket.any, address->size) < 0 || listen(descriptor, BACKLOG) < 0 ||
        getsockname(descriptor, &bound.socket.any, &bound.size) < 0) {
        error_set(err, ERROR_IO, "http: cannot listen at %s: %s", bind_text, strerror(errno));
        close(descriptor);
        return -1;
    }
    *port =
        ntohs(bound.socket.any.sa_family == AF_INET ? bound.socket.v4.sin_port : bound.socket.v6.sin6_port);
    return descriptor;
}

/** Sends text or, where text is NULL, nothing; takes text. */
static enum MHD_Result reply(struct MHD_Connection *connection, int status, const char *type, char *text,
                             size_t size) {
    struct MHD_Response *response = MHD_create_response_from_buffer(
        text ? size : 0, text ? text : (char *)"", text ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    if (!response) {
        free(text);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, MHD_HTTP_METHOD_GET);
    }
    enum MHD_Result result = MHD_queue_response(connection, (unsigned)status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result refuse(struct MHD_Connection *connection, int status, const char *reason) {
    char *text = strdup(reason);
    return reply(connection, status, "text/plain; charset=utf-8", text, text ? strlen(text) : 0);
}

static bool has_body(struct MHD_Connection *connection) {
    const char *length =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_TRANSFER_ENCODING) ||
           (length && strcmp(length, "0") != 0);
}

static enum MHD_Result answer(const struct http_server *server, const struct http_route *route,
                              struct MHD_Connection *connection) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) {
        return MHD_NO;
    }
    int status = route->answer(server->context, out);
    bool whole = !ferror(out);
    if (fclose(out) != 0 || !whole) {
        free(text);
        return MHD_NO;
    }
    return reply(connection, status, route->content_type, text, size);
}

/** libmicrohttpd's call, once a request's headers are here. */
static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *path,
                              const char *method, const char *version, const char *body, size_t *body_size,
                              void **request) {
    const struct http_server *server = context;
    (void)version, (void)body, (void)body_size, (void)request;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0) {
        return refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET\n");
    }
    if (has_body(connection)) {
        return refuse(connection, MHD_HTTP_CONTENT_TOO_LARGE, "no body is taken\n");
    }
    for (int i = 0; i < server->route_count; i++) {
        if (strcmp(server->routes[i].path, path) == 0) {
            return answer(server, &server->routes[i], connection);
        }
    }
    return refuse(connection, MHD_HTTP_NOT_FOUND, "no such page\n");
}

/** What the library says of bad requests is the peer's own business, and may quote it. */
static void ignore(void *context, const char *format, va_list arguments) {
    (void)context, (void)format, (void)arguments;
}

/** Starts the thread with all signals blocked: they are for the daemon's own loop. Takes the descriptor. */
static bool start(struct http_server *server, int descriptor, struct error *err) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    server->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        handle, server, MHD_OPTION_EXTERNAL_LOGGER, ignore, NULL, MHD_OPTION_LISTEN_SOCKET, descriptor,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_MAX_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)HTTP_TIMEOUT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_MAX_REQUEST_BYTES,
        MHD_OPTION_END);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!server->daemon) {
        close(descriptor);
        return error_set(err, ERROR_IO, "the http server does not start");
    }
    return true;
}

struct http_server *http_server_create(const struct http_spec *spec, struct error *err) {
    struct address address;
    struct http_server *server = NULL;
    if (spec->route_count < 1 || spec->route_count > HTTP_MAX_ROUTES) {
        error_set(err, ERROR_INVALID, "%d http routes: 1 to %d", spec->route_count, HTTP_MAX_ROUTES);
        return NULL;
    }
    if (!parse_bind(spec, &address, err)) {
        return NULL;
    }
    if (!(server = calloc(1, sizeof *server))) {
        error_set(err, ERROR_MEMORY, "no memory for the http server");
        return NULL;
    }
    memcpy(server->routes, spec->routes, (size_t)spec->route_count * sizeof *spec->routes);
    server->route_count = spec->route_count;
    server->context = spec->context;
    int descriptor = listen_at(spec->bind, &address, &server->port, err);
    if (descriptor < 0 || !start(server, descriptor, err)) {
        http_server_destroy(server);
        return NULL;
    }
    return server;
}

void http_server_destroy(struct http_server *server) {
    if (server) {
        if (server->daemon) {
            MHD_stop_daemon(server->daemon);
        }
        free(server);
    }
}

int http_server_port(const struct http_server *server) {
    return server->port;
}
