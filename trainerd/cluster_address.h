#pragma once
#include "common/base/error.h"
#include <stddef.h>

/**
 * The address, as a number, of the interface over which this machine reaches a tcp://HOST:PORT: what others behind it can reach
 * this machine by. Nothing is sent. ERROR_NOT_FOUND where the name has no address, ERROR_IO where there is no way to it.
 */
bool cluster_address_towards(const char *endpoint, char *out, size_t size, struct error *err);
