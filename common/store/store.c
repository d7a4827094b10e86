#include "common/store/store.h"

#include "common/store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const PARTS[] = {"objects", "partial", "quarantine", "pins"};

void store_object_path(const struct store *store, const char *part, const struct digest *digest,
                       char out[STORE_PATH_SIZE]) {
    char hex[DIGEST_HEX_SIZE];
    digest_hex(digest, hex);
    if (part)
        snprintf(out, STORE_PATH_SIZE, "%s/%s/%s", store->folder, part, hex);
    else
        snprintf(out, STORE_PATH_SIZE, "%s/objects/%.2s/%s", store->folder, hex, hex + 2);
}

static bool take_lock(struct store *store, struct error *err) {
    char path[STORE_PATH_SIZE];
    snprintf(path, sizeof path, "%s/lock", store->folder);
    store->lock_descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (store->lock_descriptor < 0)
        return error_set_errno(err, "%s", path);
    if (flock(store->lock_descriptor, LOCK_EX | LOCK_NB) != 0) {
        error_set(err, ERROR_BUSY, "%s: the store is open in another process", store->folder);
        return error_hint(err, "give each daemon a store folder of its own");
    }
    return true;
}

static bool make_parts(struct store *store, struct error *err) {
    char path[STORE_PATH_SIZE];
    for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++) {
        snprintf(path, sizeof path, "%s/%s", store->folder, PARTS[i]);
        if (!file_make_folders(path, err))
            return false;
    }
    /* Temporaries are only ever whole after a rename: what a crash left there is of no use. */
    snprintf(path, sizeof path, "%s/temporary", store->folder);
    return file_remove_tree(path, err) && file_make_folders(path, err);
}

struct store *store_open(const char *folder, int64_t max_object_bytes, struct error *err) {
    if (max_object_bytes < 1 || max_object_bytes > STORE_MAX_OBJECT_BYTES) {
        error_set(err, ERROR_INVALID, "a store's limit is 1 to %lld bytes",
                  (long long)STORE_MAX_OBJECT_BYTES);
        return NULL;
    }
    struct store *store = calloc(1, sizeof *store);
    if (!store) {
        error_set(err, ERROR_MEMORY, "out of memory for a store");
        return NULL;
    }
    store->lock_descriptor = -1;
    store->max_object_bytes = max_object_bytes;
    size_t length = strlen(folder);
    bool ok = length > 0 && length < sizeof store->folder;
    if (!ok)
        error_set(err, ERROR_INVALID, "a store's folder has a name of 1 to %zu bytes",
                  sizeof store->folder - 1);
    else
        memcpy(store->folder, folder, length + 1);
    ok = ok && digest_start(err) && file_make_folders(folder, err) && take_lock(store, err) &&
         make_parts(store, err);
    if (!ok) {
        store_close(store);
        return NULL;
    }
    return store;
}

void store_close(struct store *store) {
    if (!store)
        return;
    if (store->lock_descriptor >= 0)
        close(store->lock_descriptor);
    free(store);
}

const char *store_folder(const struct store *store) {
    return store->folder;
}

bool store_publish_file(const struct store *store, const char *temporary, const struct digest *digest,
                        struct error *err) {
    char path[STORE_PATH_SIZE], parent[STORE_PATH_SIZE], objects[STORE_PATH_SIZE];
    store_object_path(store, NULL, digest, path);
    snprintf(parent, sizeof parent, "%.*s", (int)(strrchr(path, '/') - path), path);
    snprintf(objects, sizeof objects, "%s/objects", store->folder);
    if (!file_make_folders(parent, err))
        return false;
    if (rename(temporary, path) != 0)
        return error_set_errno(err, "%s", path);
    return file_sync_folder(parent, err) && file_sync_folder(objects, err);
}

/** An open, empty temporary in the store; its name is written to path. */
static int open_temporary(const struct store *store, char path[STORE_PATH_SIZE], struct error *err) {
    snprintf(path, STORE_PATH_SIZE, "%s/temporary/XXXXXX", store->folder);
    int descriptor = mkostemp(path, O_CLOEXEC);
    if (descriptor < 0)
        error_set_errno(err, "%s", path);
    return descriptor;
}

/** Syncs and closes a filled temporary and makes it the object, or removes it where ok is false. */
static bool finish_temporary(struct store *store, int descriptor, const char *path,
                             const struct digest *digest, bool ok, struct error *err) {
    if (ok && (fchmod(descriptor, 0444) != 0 || fsync(descriptor) != 0))
        ok = error_set_errno(err, "%s: fsync", path);
    close(descriptor);
    ok = ok && store_publish_file(store, path, digest, err);
    if (!ok)
        unlink(path);
    return ok;
}

bool store_put(struct store *store, const void *data, size_t size, struct digest *digest, struct error *err) {
    if (size > (uint64_t)store->max_object_bytes)
        return error_set(err, ERROR_TOO_LARGE, "%zu bytes, the store takes %lld", size,
                         (long long)store->max_object_bytes);
    struct digest name = digest_of(data, size);
    if (digest)
        *digest = name;
    if (store_verify(store, &name, NULL))
        return true;
    char path[STORE_PATH_SIZE];
    int descriptor = open_temporary(store, path, err);
    if (descriptor < 0)
        return false;
    bool ok = file_write_all(descriptor, data, size, err) || error_prefix(err, "%s", path);
    return finish_temporary(store, descriptor, path, &name, ok, err);
}

/** Copies all of source, taking its digest on the way. */
static bool copy_stream(int source, int target, int64_t limit_bytes, struct digest *digest,
                        struct error *err) {
    uint8_t *buffer = malloc(1 << 18);
    if (!buffer)
        return error_set(err, ERROR_MEMORY, "out of memory for a copy");
    struct digest_state state;
    digest_init(&state);
    bool ok = true;
    ssize_t got = 0;
    for (int64_t total = 0; ok; total += got) {
        got = read(source, buffer, 1 << 18);
        if (got < 0 && errno == EINTR) {
            got = 0;
            continue;
        }
        if (got <= 0)
            break;
        digest_update(&state, buffer, (size_t)got);
        if (total + got > limit_bytes)
            ok = error_set(err, ERROR_TOO_LARGE, "over the store's %lld bytes", (long long)limit_bytes);
        else
            ok = file_write_all(target, buffer, (size_t)got, err);
    }
    if (ok && got < 0)
        ok = error_set_errno(err, "reading");
    free(buffer);
    *digest = digest_final(&state);
    return ok;
}

bool store_put_file(struct store *store, const char *path, struct digest *digest, struct error *err) {
    int source = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (source < 0)
        return error_set_errno(err, "%s", path);
    struct stat status;
    char temporary[STORE_PATH_SIZE];
    struct digest name;
    bool ok = false;
    int target = -1;
    if (fstat(source, &status) != 0)
        error_set_errno(err, "%s", path);
    else if (!S_ISREG(status.st_mode))
        error_set(err, ERROR_INVALID, "%s: not a regular file", path);
    else if ((target = open_temporary(store, temporary, err)) >= 0)
        ok =
            copy_stream(source, target, store->max_object_bytes, &name, err) || error_prefix(err, "%s", path);
    if (target >= 0)
        ok = finish_temporary(store, target, temporary, &name, ok, err);
    close(source);
    if (ok && digest)
        *digest = name;
    return ok;
}

bool store_has(const struct store *store, const struct digest *digest) {
    char path[STORE_PATH_SIZE];
    store_object_path(store, NULL, digest, path);
    return file_exists(path);
}

bool store_path(const struct store *store, const struct digest *digest, char *out, size_t size,
                struct error *err) {
    char path[STORE_PATH_SIZE];
    store_object_path(store, NULL, digest, path);
    if (!file_exists(path))
        return error_set_errno(err, "%s", path);
    int used = snprintf(out, size, "%s", path);
    return (used >= 0 && (size_t)used < size) || error_set(err, ERROR_TOO_LARGE, "%s: path too long", path);
}

static bool quarantine(struct store *store, const char *path, const struct digest *digest,
                       struct error *err) {
    char aside[STORE_PATH_SIZE];
    store_object_path(store, "quarantine", digest, aside);
    if (rename(path, aside) != 0)
        return error_set_errno(err, "%s: corrupt, and cannot be moved to quarantine", path);
    error_set(err, ERROR_FORMAT, "%s: corrupt: its bytes do not have the digest that it is named by", path);
    return error_hint(err, "it was moved to %s/quarantine; check the disk", store->folder);
}

bool store_get(struct store *store, const struct digest *digest, struct file_map *map, struct error *err) {
    char path[STORE_PATH_SIZE];
    store_object_path(store, NULL, digest, path);
    if (!file_map_open(path, map, err))
        return false;
    struct digest found = digest_of(map->data, map->size);
    if (digest_equal(&found, digest))
        return true;
    file_map_close(map);
    return quarantine(store, path, digest, err);
}

bool store_verify(struct store *store, const struct digest *digest, struct error *err) {
    struct file_map map;
    if (!store_get(store, digest, &map, err))
        return false;
    file_map_close(&map);
    return true;
}
