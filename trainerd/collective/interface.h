#pragma once
#include "common/base/error.h"
#include <net/if.h>

/** Name of the network interface that has this address, a number. ERROR_NOT_FOUND where none has. */
bool interface_of(const char *address, char out[IF_NAMESIZE], struct error *err);
