#pragma once
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include <stddef.h>
#include <stdint.h>

/**
 * Files under their own SHA-256 in one folder:
 *
 *     objects/ab/cdef...   whole files, read-only, named by their digest
 *     partial/abcdef...    files that are still arriving (partial.h); never seen by get, list or path
 *     temporary/           files being put; emptied by the next open
 *     quarantine/          objects whose bytes no longer match their name, kept for whoever looks into it
 *     pins/NAME            a digest that collect() must keep, e.g. pins/active
 *     lock                 held while the store is open: one process at a time
 *
 * An object appears by rename after fsync, so after a crash it is there whole or not at all. The folder is
 * all the state: any thread may call any function here; two calls about one object are safe, the later rename
 * or removal wins.
 */
struct store;

/** Largest file any store takes: what a descriptor may promise, too. */
#define STORE_MAX_OBJECT_BYTES (INT64_C(4) << 30)

enum { STORE_PIN_NAME_SIZE = 81 };

/**
 * Opens the folder, and makes it where it is not there; leftovers of an earlier crash (temporaries) are
 * removed. max_object_bytes: 1 to STORE_MAX_OBJECT_BYTES. Returns owned. ERROR_BUSY: another process has it
 * open.
 */
struct store *store_open(const char *folder, int64_t max_object_bytes, struct error *err);
/** Takes NULL. Partial files that are open stay usable until they are closed. */
void store_close(struct store *store);

const char *store_folder(const struct store *store);

/** Puts bytes in. Putting what is there already is no error. digest: out, may be NULL. */
bool store_put(struct store *store, const void *data, size_t size, struct digest *digest, struct error *err);
/** Copies a file in. ERROR_TOO_LARGE over the store's limit. digest: out, may be NULL. */
bool store_put_file(struct store *store, const char *path, struct digest *digest, struct error *err);

/** True where an object of that name is there; its bytes are not looked at. */
bool store_has(const struct store *store, const struct digest *digest);
/** The object's path, for code that opens files by name. ERROR_NOT_FOUND; ERROR_TOO_LARGE where out is too
 * small. */
bool store_path(const struct store *store, const struct digest *digest, char *out, size_t size,
                struct error *err);
/**
 * Maps an object read-only after its bytes were checked against its name. file_map_close it. A corrupt object
 * goes to quarantine: ERROR_FORMAT. A removed object stays mapped.
 */
bool store_get(struct store *store, const struct digest *digest, struct file_map *map, struct error *err);
/** As get, without the mapping. */
bool store_verify(struct store *store, const struct digest *digest, struct error *err);
/** Removes an object. One that is not there is no error; a pinned one is ERROR_STATE. */
bool store_remove(struct store *store, const struct digest *digest, struct error *err);

/** Points the pin NAME at digest (which need not be there yet). Names: 1 to 80 of [A-Za-z0-9_-]. */
bool store_pin(struct store *store, const char *name, const struct digest *digest, struct error *err);
/** A pin that is not there is no error. */
bool store_unpin(struct store *store, const char *name, struct error *err);
/** What NAME points at. ERROR_NOT_FOUND where there is no such pin. */
bool store_pinned(const struct store *store, const char *name, struct digest *digest, struct error *err);

struct store_entry {
    struct digest digest;
    int64_t size_bytes;
    bool pinned;
};
struct store_list {
    struct store_entry *entries; /**< owned: store_list_fini */
    size_t count;
};
/** All objects, by digest in ascending order. Files with foreign names are passed over. */
bool store_list(const struct store *store, struct store_list *list, struct error *err);
void store_list_fini(struct store_list *list);

struct store_collected {
    int objects;
    int partials;
    int64_t bytes;
};
/**
 * Removes the objects that no pin names, and partial files that nobody wrote to for partial_age_ms. What was
 * collected: out, may be NULL. Callers pin what they put before they let anybody collect.
 */
bool store_collect(struct store *store, int64_t partial_age_ms, struct store_collected *collected,
                   struct error *err);
/** The second half of collect alone. */
bool store_collect_partials(struct store *store, int64_t partial_age_ms, struct store_collected *collected,
                            struct error *err);
