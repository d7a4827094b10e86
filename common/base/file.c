#include "common/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool read_exactly(int descriptor, uint8_t *data, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t got = read(descriptor, data + done, size - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            errno = got == 0 ? EIO : errno;
            return false;
        }
        done += (size_t)got;
    }
    return true;
}

bool file_read(const char *path, size_t limit, struct bytes *out, struct error *err) {
    *out = (struct bytes){0};
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return error_set_errno(err, "%s", path);
    struct stat status;
    bool ok = false;
    if (fstat(descriptor, &status) != 0)
        error_set_errno(err, "%s", path);
    else if (!S_ISREG(status.st_mode))
        error_set(err, ERROR_INVALID, "%s: not a regular file", path);
    else if ((uint64_t)status.st_size > limit)
        error_set(err, ERROR_TOO_LARGE, "%s: %lld bytes, the limit is %zu", path, (long long)status.st_size, limit);
    else if (!(out->data = malloc((size_t)status.st_size + 1)))
        error_set(err, ERROR_MEMORY, "%s: out of memory for %lld bytes", path, (long long)status.st_size);
    else if (!read_exactly(descriptor, out->data, (size_t)status.st_size))
        error_set_errno(err, "%s: reading", path);
    else
        ok = true;
    if (ok) {
        out->size = (size_t)status.st_size;
        out->data[out->size] = 0;
    } else {
        free(out->data);
        *out = (struct bytes){0};
    }
    close(descriptor);
    return ok;
}

bool file_write_all(int descriptor, const void *data, size_t size, struct error *err) {
    const uint8_t *bytes = data;
    while (size > 0) {
        ssize_t put = write(descriptor, bytes, size);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return error_set_errno(err, "writing");
        bytes += put;
        size -= (size_t)put;
    }
    return true;
}

bool file_sync_folder(const char *path, struct error *err) {
    int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0)
        return error_set_errno(err, "%s", path);
    bool ok = fsync(descriptor) == 0 || error_set_errno(err, "%s: fsync", path);
    close(descriptor);
    return ok;
}

static bool sync_parent(const char *path, struct error *err) {
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (!slash)
        return file_sync_folder(".", err);
    snprintf(folder, sizeof folder, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    return file_sync_folder(folder, err);
}

static bool write_parts(int descriptor, const struct bytes *parts, size_t count, struct error *err) {
    for (size_t i = 0; i < count; i++) {
        if (!file_write_all(descriptor, parts[i].data, parts[i].size, err))
            return false;
    }
    return true;
}

bool file_write_atomic_parts(const char *path, const struct bytes *parts, size_t count, struct error *err) {
    char temporary[PATH_MAX];
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.XXXXXX", path) >= sizeof temporary)
        return error_set(err, ERROR_TOO_LARGE, "%s: path too long", path);
    int descriptor = mkostemp(temporary, O_CLOEXEC);
    if (descriptor < 0)
        return error_set_errno(err, "%s", temporary);
    bool ok = write_parts(descriptor, parts, count, err) || error_prefix(err, "%s", temporary);
    if (ok && (fchmod(descriptor, 0644) != 0 || fsync(descriptor) != 0))
        ok = error_set_errno(err, "%s: fsync", temporary);
    if (close(descriptor) != 0 && ok)
        ok = error_set_errno(err, "%s: close", temporary);
    if (ok && rename(temporary, path) != 0)
        ok = error_set_errno(err, "%s: rename to %s", temporary, path);
    if (!ok) {
        unlink(temporary);
        return false;
    }
    return sync_parent(path, err);
}

bool file_write_atomic(const char *path, const void *data, size_t size, struct error *err) {
    struct bytes whole = {.data = (uint8_t *)data, .size = size};
    return file_write_atomic_parts(path, &whole, 1, err);
}

bool file_map_open(const char *path, struct file_map *map, struct error *err) {
    *map = (struct file_map){0};
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return error_set_errno(err, "%s", path);
    struct stat status;
    bool ok = true;
    if (fstat(descriptor, &status) != 0) {
        ok = error_set_errno(err, "%s", path);
    } else if (!S_ISREG(status.st_mode)) {
        ok = error_set(err, ERROR_INVALID, "%s: not a regular file", path);
    } else if (status.st_size > 0) {
        void *data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (data == MAP_FAILED)
            ok = error_set_errno(err, "%s: mmap", path);
        else
            *map = (struct file_map){data, (size_t)status.st_size};
    }
    close(descriptor);
    return ok;
}

void file_map_close(struct file_map *map) {
    if (map->data)
        munmap((void *)map->data, map->size);
    *map = (struct file_map){0};
}

bool file_make_folders(const char *path, struct error *err) {
    char part[PATH_MAX];
    size_t length = strlen(path);
    if (length >= sizeof part)
        return error_set(err, ERROR_TOO_LARGE, "%s: path too long", path);
    memcpy(part, path, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (part[i] != '/' && part[i] != '\0')
            continue;
        char saved = part[i];
        part[i] = '\0';
        if (mkdir(part, 0755) != 0 && errno != EEXIST)
            return error_set_errno(err, "%s: cannot make the folder", part);
        part[i] = saved;
    }
    if (!file_is_folder(path))
        return error_set(err, ERROR_INVALID, "%s: there, but not a folder", path);
    return true;
}

bool file_exists(const char *path) {
    struct stat status;
    return stat(path, &status) == 0;
}

bool file_is_folder(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

bool file_join(char *out, size_t size, const char *folder, const char *name, struct error *err) {
    int used = snprintf(out, size, "%s/%s", folder, name);
    if (used < 0 || (size_t)used >= size)
        return error_set(err, ERROR_TOO_LARGE, "%s/%s: path too long", folder, name);
    return true;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *position) {
    (void)status, (void)type, (void)position;
    return remove(path);
}

bool file_remove_tree(const char *path, struct error *err) {
    if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
        return error_set_errno(err, "%s: removing", path);
    return true;
}
