#pragma once
#include "common/base/error.h"
#include <stddef.h>
#include <stdint.h>

/** Bytes in memory. The functions say who owns them. */
struct bytes {
    uint8_t *data;
    size_t size;
};

/** Reads a whole regular file of at most limit bytes into owned memory (free(out->data)); a NUL follows the last byte. */
bool file_read(const char *path, size_t limit, struct bytes *out, struct error *err);

/** Writes a file so that a crash leaves the old one or the new one: temporary, fsync, rename, fsync of the folder. */
bool file_write_atomic(const char *path, const void *data, size_t size, struct error *err);

/** As file_write_atomic, of several pieces one after the other: for files too large to put together in memory first. */
bool file_write_atomic_parts(const char *path, const struct bytes *parts, size_t count, struct error *err);

/** A file mapped read-only. */
struct file_map {
    const uint8_t *data; /**< NULL for an empty file */
    size_t size;
};
bool file_map_open(const char *path, struct file_map *map, struct error *err);
void file_map_close(struct file_map *map);

/** Makes the folder and those above it (mode 0755 less the umask). An existing folder is no error. */
bool file_make_folders(const char *path, struct error *err);

bool file_exists(const char *path);
bool file_is_folder(const char *path);

/** Writes all bytes to a descriptor, going on after partial writes and signals. */
bool file_write_all(int descriptor, const void *data, size_t size, struct error *err);

/** fsync of a folder, so that a rename or unlink in it lasts. */
bool file_sync_folder(const char *path, struct error *err);

/** Puts "folder/name" into out; an error where it does not fit. */
bool file_join(char *out, size_t size, const char *folder, const char *name, struct error *err);

/** Removes a file or a folder with all that is in it; does not follow links. A path that is not there is no error. */
bool file_remove_tree(const char *path, struct error *err);
