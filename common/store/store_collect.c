#include "common/store/store.h"

#include "common/base/clock.h"
#include "common/store/store_internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/** Calls visit with each name in folder that starts with no dot, until it returns false. */
static bool each_name(const char *folder,
                      bool (*visit)(void *context, const char *folder, const char *name, struct error *err),
                      void *context, struct error *err) {
    DIR *stream = opendir(folder);
    if (!stream)
        return error_set_errno(err, "%s", folder);
    bool ok = true;
    for (struct dirent *entry; ok && (entry = readdir(stream));) {
        if (entry->d_name[0] != '.')
            ok = visit(context, folder, entry->d_name, err);
    }
    closedir(stream);
    return ok;
}

/** What a walk gathers: first the pinned digests, then the objects. */
struct gather {
    const struct store *store;
    struct digest *pins;
    size_t pin_count, pin_room;
    struct store_entry *entries;
    size_t count, room;
};

/** Makes room for one more element in *array; room grows by doubling. */
static bool grow(void **array, size_t count, size_t *room, size_t element, struct error *err) {
    if (count < *room)
        return true;
    size_t wanted = *room ? *room * 2 : 16;
    void *larger = realloc(*array, wanted * element);
    if (!larger)
        return error_set(err, ERROR_MEMORY, "out of memory for a store's list");
    *array = larger;
    *room = wanted;
    return true;
}

static bool gather_pin(void *context, const char *folder, const char *name, struct error *err) {
    (void)folder;
    struct gather *gather = context;
    void *pins = gather->pins;
    if (!grow(&pins, gather->pin_count, &gather->pin_room, sizeof *gather->pins, err))
        return false;
    gather->pins = pins;
    struct error reason = {0};
    if (store_pinned(gather->store, name, &gather->pins[gather->pin_count], &reason)) {
        gather->pin_count++;
        return true;
    }
    if (reason.code == ERROR_NOT_FOUND || reason.code == ERROR_INVALID)
        return true; /* unpinned meanwhile, or no pin's name: the temporary of one that was cut short */
    if (err)
        *err = reason; /* an unreadable pin must stop a collection, not loosen what it held */
    return false;
}

static bool is_pinned(const struct gather *gather, const struct digest *digest) {
    for (size_t i = 0; i < gather->pin_count; i++) {
        if (digest_equal(&gather->pins[i], digest))
            return true;
    }
    return false;
}

static bool gather_object(void *context, const char *folder, const char *name, struct error *err) {
    struct gather *gather = context;
    char hex[DIGEST_HEX_SIZE], path[STORE_PATH_SIZE];
    struct store_entry entry = {0};
    struct stat status;
    const char *prefix = strrchr(folder, '/') + 1;
    if (snprintf(hex, sizeof hex, "%s%s", prefix, name) != DIGEST_HEX_SIZE - 1 ||
        !digest_parse(hex, &entry.digest, NULL))
        return true;
    if (!file_join(path, sizeof path, folder, name, err))
        return false;
    if (lstat(path, &status) != 0 || !S_ISREG(status.st_mode))
        return true;
    void *entries = gather->entries;
    if (!grow(&entries, gather->count, &gather->room, sizeof entry, err))
        return false;
    gather->entries = entries;
    entry.size_bytes = status.st_size;
    entry.pinned = is_pinned(gather, &entry.digest);
    gather->entries[gather->count++] = entry;
    return true;
}

static bool gather_folder(void *context, const char *folder, const char *name, struct error *err) {
    char path[STORE_PATH_SIZE];
    if (!file_join(path, sizeof path, folder, name, err))
        return false;
    return !file_is_folder(path) || each_name(path, gather_object, context, err);
}

static int by_digest(const void *a, const void *b) {
    const struct store_entry *left = a, *right = b;
    return memcmp(left->digest.bytes, right->digest.bytes, sizeof left->digest.bytes);
}

bool store_list(const struct store *store, struct store_list *list, struct error *err) {
    struct gather gather = {.store = store};
    char pins[STORE_PATH_SIZE], objects[STORE_PATH_SIZE];
    snprintf(pins, sizeof pins, "%s/pins", store->folder);
    snprintf(objects, sizeof objects, "%s/objects", store->folder);
    bool ok = each_name(pins, gather_pin, &gather, err) && each_name(objects, gather_folder, &gather, err);
    free(gather.pins);
    if (!ok) {
        free(gather.entries);
        *list = (struct store_list){0};
        return false;
    }
    if (gather.count > 0)
        qsort(gather.entries, gather.count, sizeof *gather.entries, by_digest);
    *list = (struct store_list){gather.entries, gather.count};
    return true;
}

void store_list_fini(struct store_list *list) {
    free(list->entries);
    *list = (struct store_list){0};
}

bool store_remove(struct store *store, const struct digest *digest, struct error *err) {
    struct gather gather = {.store = store};
    char path[STORE_PATH_SIZE];
    snprintf(path, sizeof path, "%s/pins", store->folder);
    bool ok = each_name(path, gather_pin, &gather, err);
    bool pinned = ok && is_pinned(&gather, digest);
    free(gather.pins);
    if (!ok)
        return false;
    store_object_path(store, NULL, digest, path);
    if (pinned)
        return error_set(err, ERROR_STATE, "%s: pinned", path);
    return unlink(path) == 0 || errno == ENOENT || error_set_errno(err, "%s", path);
}

struct partial_sweep {
    int64_t oldest_ms; /* wall clock; what was written before goes */
    struct store_collected *collected;
};

static bool sweep_partial(void *context, const char *folder, const char *name, struct error *err) {
    struct partial_sweep *sweep = context;
    char path[STORE_PATH_SIZE];
    struct stat status;
    if (!file_join(path, sizeof path, folder, name, err))
        return false;
    if (lstat(path, &status) != 0 || (int64_t)status.st_mtim.tv_sec * 1000 >= sweep->oldest_ms)
        return true;
    if (unlink(path) != 0)
        return errno == ENOENT || error_set_errno(err, "%s", path);
    sweep->collected->partials++;
    sweep->collected->bytes += status.st_size;
    return true;
}

bool store_collect_partials(struct store *store, int64_t partial_age_ms, struct store_collected *collected,
                            struct error *err) {
    struct store_collected ignored = {0};
    struct partial_sweep sweep = {clock_wall_ms() - partial_age_ms, collected ? collected : &ignored};
    char partials[STORE_PATH_SIZE];
    snprintf(partials, sizeof partials, "%s/partial", store->folder);
    return each_name(partials, sweep_partial, &sweep, err);
}

bool store_collect(struct store *store, int64_t partial_age_ms, struct store_collected *collected,
                   struct error *err) {
    struct store_collected ignored;
    collected = collected ? collected : &ignored;
    *collected = (struct store_collected){0};
    struct store_list list;
    if (!store_list(store, &list, err))
        return false;
    bool ok = true;
    for (size_t i = 0; ok && i < list.count; i++) {
        if (list.entries[i].pinned)
            continue;
        ok = store_remove(store, &list.entries[i].digest, err);
        collected->objects += ok;
        collected->bytes += ok ? list.entries[i].size_bytes : 0;
    }
    store_list_fini(&list);
    return ok && store_collect_partials(store, partial_age_ms, collected, err);
}
