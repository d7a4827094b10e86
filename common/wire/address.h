#pragma once
#include "common/base/error.h"

/** What ZeroMQ endpoints say of where they are: tcp://HOST:PORT, ipc://PATH, inproc://NAME. Thread-safe. */
enum { ADDRESS_SIZE = 256 };

/** True where nothing that is sent there leaves the machine: ipc, inproc, TCP on a loopback address. */
bool address_is_local(const char *endpoint);
/** The same of a host alone: a numeric loopback address (IPv6 with or without brackets), localhost, or the interface lo. */
bool address_host_is_local(const char *host);
bool address_is_tcp(const char *endpoint);
/** Whether all of a NULL-ended list (NULL: empty) are TCP; *any: whether one is. */
bool address_all_tcp(const char *const *endpoints, bool *any);
/** Refuses what is no endpoint, is too long, or leaves the machine without insecure. */
bool address_check_bind(const char *endpoint, bool insecure, struct error *err);
