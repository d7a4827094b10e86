#pragma once
#include "common/base/error.h"
#include <net/if.h>

/** Name of the network interface that has this address, a number. ERROR_NOT_FOUND where none has. */
bool interface_of(const char *address, char out[IF_NAMESIZE], struct error *err);

/**
 * Has NCCL meet over the interface with that address, by NCCL_SOCKET_IFNAME, where the environment says none; NULL or "":
 * on loopback, as nothing is encrypted.
 */
bool interface_for_nccl(const char *address, struct error *err);
