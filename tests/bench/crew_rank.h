#pragma once
#include "tests/bench/crew.h"

/**
 * The life of one rank, in a process of its own: reports once that it is ready, then once for each order from the socket, until
 * that is closed or something fails. The ranks meet in the folder. Does not return.
 */
_Noreturn void crew_rank_run(const struct crew_spec *spec, int rank, const char *folder, int socket);

/** Whole structs over a socket; false: the other side is gone. */
bool crew_send(int socket, const void *data, size_t size);
bool crew_receive(int socket, void *data, size_t size);
