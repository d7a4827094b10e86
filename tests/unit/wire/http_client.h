#pragma once
#include <stdbool.h>
#include <stddef.h>

/** Plain bytes to an HTTP server on loopback, for tests: they decide what a request looks like. */

/** A connected socket; fails the test where there is none. */
int http_dial(int port);
/** Reads until the server closes; out is ended with NUL. False where it did not close in time. */
bool http_read_all(int descriptor, char *out, size_t size);
/** Sends bytes on a new connection and reads all that comes back. Returns the status code; 0: none came. */
int http_ask(int port, const char *request, char *out, size_t size);
/** GET path. */
int http_get(int port, const char *path, char *out, size_t size);
