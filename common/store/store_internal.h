#pragma once
#include "common/store/store.h"

/* Shared by store.c, store_collect.c and partial.c: how the folder is laid out. */

enum { STORE_PATH_SIZE = 4096 };

struct store {
    int64_t max_object_bytes;
    int lock_descriptor;
    char folder[STORE_PATH_SIZE - 160]; /* leaves room for the longest name below it */
};

/** folder/part/NAME of a digest ("partial", "quarantine"), or objects/ab/cdef... where part is NULL. Always
 * fits. */
void store_object_path(const struct store *store, const char *part, const struct digest *digest,
                       char out[STORE_PATH_SIZE]);

/** Renames a synced temporary to its object, and syncs the folders that changed. */
bool store_publish_file(const struct store *store, const char *temporary, const struct digest *digest,
                        struct error *err);
