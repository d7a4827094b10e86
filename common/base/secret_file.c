#include "common/base/secret_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/** Whose the file is, and who else may do what with it. */
static bool check_status(const char *path, const struct stat *status, enum secret_access access,
                         struct error *err) {
    if (!S_ISREG(status->st_mode))
        return error_set(err, ERROR_INVALID, "%s: not a regular file", path);
    if (status->st_uid != geteuid() && status->st_uid != 0) {
        error_set(err, ERROR_INVALID, "%s: belongs to user %u, who could change it", path,
                  (unsigned)status->st_uid);
        return error_hint(err, "chown it to the user that runs this program, or to root");
    }
    mode_t forbidden = access == SECRET_PRIVATE ? S_IRWXG | S_IRWXO : S_IWGRP | S_IWOTH;
    if (!(status->st_mode & forbidden))
        return true;
    error_set(err, ERROR_INVALID, "%s: mode %04o lets others %s it", path, (unsigned)status->st_mode & 07777,
              access == SECRET_PRIVATE ? "read or change" : "change");
    return error_hint(err, "chmod %s %s", access == SECRET_PRIVATE ? "0600" : "0644", path);
}

static bool read_all(int descriptor, struct bytes *out) {
    for (size_t done = 0; done < out->size;) {
        ssize_t got = read(descriptor, out->data + done, out->size - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            errno = got == 0 ? EIO : errno; /* cut short while it was read */
            return false;
        }
        done += (size_t)got;
    }
    return true;
}

static bool read_open(int descriptor, const char *path, enum secret_access access, size_t limit,
                      struct bytes *out, struct error *err) {
    struct stat status;
    if (fstat(descriptor, &status) != 0)
        return error_set_errno(err, "%s", path);
    if (!check_status(path, &status, access, err))
        return false;
    if ((uint64_t)status.st_size > limit)
        return error_set(err, ERROR_TOO_LARGE, "%s: %lld bytes, the limit is %zu", path,
                         (long long)status.st_size, limit);
    out->size = (size_t)status.st_size;
    if (!(out->data = calloc(out->size + 1, 1)))
        return error_set(err, ERROR_MEMORY, "%s: out of memory", path);
    return read_all(descriptor, out) || error_set_errno(err, "%s: reading", path);
}

bool secret_file_read(const char *path, enum secret_access access, size_t limit, struct bytes *out,
                      struct error *err) {
    *out = (struct bytes){0};
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (descriptor < 0 && errno == ELOOP) {
        error_set(err, ERROR_INVALID, "%s: a symbolic link", path);
        return error_hint(err, "give the path of the file itself");
    }
    if (descriptor < 0)
        return error_set_errno(err, "%s", path);
    bool ok = read_open(descriptor, path, access, limit, out, err);
    close(descriptor);
    if (!ok)
        secret_wipe(out);
    return ok;
}

void secret_wipe(struct bytes *bytes) {
    if (bytes->data)
        sodium_memzero(bytes->data, bytes->size);
    free(bytes->data);
    *bytes = (struct bytes){0};
}

static bool write_new(const char *path, mode_t mode, const char *text, struct error *err) {
    int descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (descriptor < 0 && errno == EEXIST) {
        error_set(err, ERROR_STATE, "%s: is there already", path);
        return error_hint(err, "keys are never overwritten: choose another name, or move the old pair away");
    }
    if (descriptor < 0)
        return error_set_errno(err, "%s", path);
    bool ok = file_write_all(descriptor, text, strlen(text), err) || error_prefix(err, "%s", path);
    if (ok && (fchmod(descriptor, mode) != 0 || fsync(descriptor) != 0))
        ok = error_set_errno(err, "%s: fsync", path);
    if (close(descriptor) != 0 && ok)
        ok = error_set_errno(err, "%s: close", path);
    if (!ok)
        unlink(path);
    return ok;
}

bool secret_file_write(const char *path, const char *text, struct error *err) {
    return write_new(path, 0600, text, err);
}

bool secret_file_write_pair(const char *name, const char *secret_text, const char *public_text,
                            struct error *err) {
    char key[PATH_MAX], pub[PATH_MAX];
    if ((size_t)snprintf(key, sizeof key, "%s.key", name) >= sizeof key ||
        (size_t)snprintf(pub, sizeof pub, "%s.pub", name) >= sizeof pub)
        return error_set(err, ERROR_TOO_LARGE, "%s: path too long", name);
    if (!write_new(key, 0600, secret_text, err))
        return false;
    if (write_new(pub, 0644, public_text, err))
        return true;
    unlink(key);
    return false;
}

static const struct key_line *find_line(const char *line, size_t name_length, const struct key_line *lines,
                                        int count) {
    for (int i = 0; i < count; i++) {
        if (strlen(lines[i].name) == name_length && strncmp(lines[i].name, line, name_length) == 0)
            return &lines[i];
    }
    return NULL;
}

/** One line behind the title; number is its own, for errors. */
static bool take_line(const char *line, size_t length, const struct key_line *lines, int count,
                      const char **fault) {
    if (length == 0 || (line[0] == '#' && (length == 1 || line[1] == ' ')))
        return true;
    size_t name = strcspn(line, " \n");
    const struct key_line *row = name < length ? find_line(line, name, lines, count) : NULL;
    *fault = "no line of such a file";
    if (!row)
        return false;
    *fault = "given twice";
    if (row->value[0])
        return false;
    *fault = "its value has not the right length";
    if (length - name - 1 != row->size - 1)
        return false;
    memcpy(row->value, line + name + 1, row->size - 1);
    row->value[row->size - 1] = '\0';
    return true;
}

bool key_text_parse(const char *text, const char *where, const char *title, const struct key_line *lines,
                    int count, struct error *err) {
    size_t length = strcspn(text, "\n");
    const char *fault = NULL;
    for (int i = 0; i < count; i++)
        memset(lines[i].value, 0, lines[i].size);
    if (length != strlen(title) || strncmp(text, title, length) != 0)
        return error_set(err, ERROR_FORMAT, "%s: the first line is not \"%s\"", where, title);
    for (int number = 2; text[length] == '\n'; number++) {
        text += length + 1;
        length = strcspn(text, "\n");
        if (!take_line(text, length, lines, count, &fault))
            return error_set(err, ERROR_FORMAT, "%s:%d: %s", where, number, fault);
    }
    for (int i = 0; i < count; i++) {
        if (!lines[i].value[0])
            return error_set(err, ERROR_FORMAT, "%s: no line \"%s\"", where, lines[i].name);
    }
    return true;
}
