#pragma once
#include "common/base/error.h"
#include <stdio.h>

/**
 * A small HTTP server for health and metrics: GET only, a fixed table of routes, one thread of its own. No
 * other part of the project includes microhttpd.h. A client may open HTTP_MAX_CONNECTIONS connections at a
 * time in all, send up to HTTP_MAX_REQUEST_BYTES of request line and headers and no body, and be silent for
 * HTTP_TIMEOUT_S: who does more is refused or cut off.
 */
struct http_server;

enum { HTTP_MAX_CONNECTIONS = 32, HTTP_MAX_REQUEST_BYTES = 4096, HTTP_TIMEOUT_S = 5, HTTP_MAX_ROUTES = 16 };

/** One path. Other paths are 404, other methods 405. */
struct http_route {
    const char *path;         /**< "/metrics"; a query behind it is ignored */
    const char *content_type; /**< of what answer writes */
    /**
     * Writes the body and returns the status code, 200 to 599. Called on the server's thread, one call at a
     * time: reads only what any thread may, and takes leaf locks only, so that it never waits for the daemon.
     */
    int (*answer)(void *context, FILE *out);
};

struct http_spec {
    const char
        *bind; /**< HOST:PORT; HOST: an IPv4 address, [an IPv6 address] or localhost; PORT 0: a free one */
    bool insecure;                   /**< without it, an address other than loopback is refused: nothing is
                                        encrypted */
    const struct http_route *routes; /**< (route_count), copied; their strings are borrowed */
    int route_count;                 /**< 1 to HTTP_MAX_ROUTES */
    void *context;                   /**< of every answer; borrowed */
};

/** Binds and starts the thread. Returns owned. ERROR_INVALID: the address; ERROR_IO: it cannot be bound. */
struct http_server *http_server_create(const struct http_spec *spec, struct error *err);
/** Ends the thread: no answer is called after that. Takes NULL. */
void http_server_destroy(struct http_server *server);
/** The port that was really bound. */
int http_server_port(const struct http_server *server);
