#pragma once
#include "common/base/error.h"

#include <stdbool.h>

/**
 * The folder in which the ranks of a run on one machine meet: a socket and nothing else, under XDG_RUNTIME_DIR,
 * TMPDIR or /tmp, that only its user can enter. A lock says that its run lives: what a run that was killed has left is removed by
 * the next one of the same user.
 */
#define RENDEZVOUS_FOLDER_SOCKET "rendezvous"
enum { RENDEZVOUS_FOLDER_SIZE = 100 }; /* a socket's path has 107 bytes at most */

struct rendezvous_folder {
    char path[RENDEZVOUS_FOLDER_SIZE]; /**< "": none */
    int lock;                          /**< the folder, open and locked */
};

/** folder: zeroed; rendezvous_folder_remove it. ERROR_IO where no place for one is found. */
bool rendezvous_folder_make(struct rendezvous_folder *folder, struct error *err);
/** Takes a zeroed one. */
void rendezvous_folder_remove(struct rendezvous_folder *folder);
