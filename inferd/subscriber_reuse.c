#include "inferd/subscriber_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Models that follow each other often differ in their header alone: what is here need not travel. The chunks
 * are digested again when they are taken, so that nothing depends on these records being right. */

enum { ENTRIES_MAX = 1 << 18 };

static int by_chunk(const void *a, const void *b) {
    return memcmp(((const struct reuse_entry *)a)->chunk, ((const struct reuse_entry *)b)->chunk, 32);
}

/** Adds all chunks of one object. False: there is no room. */
static bool add_object(struct reuse *reuse, const struct descriptor *descriptor) {
    size_t count = reuse->count + descriptor->cut.count;
    struct reuse_entry *entries =
        count <= ENTRIES_MAX ? realloc(reuse->entries, count * sizeof *entries) : NULL;
    if (!entries)
        return false;
    reuse->entries = entries;
    for (size_t i = 0; i < descriptor->cut.count; i++) {
        struct reuse_entry *entry = &entries[reuse->count++];
        entry->object = descriptor->digest;
        entry->offset = descriptor_chunk_offset(&descriptor->cut, (int64_t)i);
        entry->size = descriptor_chunk_size(&descriptor->cut, entry->offset);
        memcpy(entry->chunk, descriptor->cut.digests + 32 * i, 32);
    }
    return true;
}

void reuse_open(struct reuse *reuse, const struct store *store) {
    struct store_list list;
    *reuse = (struct reuse){0};
    if (!store_list(store, &list, NULL))
        return;
    for (size_t i = 0; i < list.count; i++) {
        struct descriptor descriptor;
        if (!record_read(store, &list.entries[i].digest, &descriptor, NULL))
            continue;
        bool room = add_object(reuse, &descriptor);
        descriptor_fini(&descriptor);
        if (!room)
            break;
    }
    store_list_fini(&list);
    if (reuse->count > 0)
        qsort(reuse->entries, reuse->count, sizeof *reuse->entries, by_chunk);
}

void reuse_close(struct reuse *reuse) {
    free(reuse->entries);
    *reuse = (struct reuse){0};
}

struct reuse_entry *reuse_find(const struct reuse *reuse, const uint8_t chunk[32], size_t size) {
    struct reuse_entry key;
    if (reuse->count == 0)
        return NULL;
    memcpy(key.chunk, chunk, 32);
    struct reuse_entry *found = bsearch(&key, reuse->entries, reuse->count, sizeof key, by_chunk);
    return found && found->size == size ? found : NULL;
}

static bool read_all(int file, uint8_t *data, size_t size, int64_t offset) {
    for (size_t done = 0; done < size;) {
        ssize_t got = pread(file, data + done, size - done, offset + (int64_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

bool reuse_read(const struct store *store, struct reuse_entry *entry, void *data) {
    char path[PATH_MAX];
    int file = store_path(store, &entry->object, path, sizeof path, NULL)
                   ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
                   : -1;
    bool ok = file >= 0 && read_all(file, data, entry->size, entry->offset);
    if (file >= 0)
        close(file);
    if (ok) {
        struct digest found = digest_of(data, entry->size);
        ok = memcmp(found.bytes, entry->chunk, sizeof found.bytes) == 0;
    }
    if (!ok)
        entry->size = 0;
    return ok;
}
