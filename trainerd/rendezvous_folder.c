#include "trainerd/rendezvous_folder.h"

#include "common/base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX "thorax-run-"

enum { TRIES = 10 };

/** Opens and locks a folder of this user's own; -1: it is none, or somebody has it locked. */
static int lock_folder(int parent, const char *name) {
    struct stat status;
    int descriptor = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool ours = descriptor >= 0 && fstat(descriptor, &status) == 0 && status.st_uid == geteuid() &&
                (status.st_mode & 0777) == 0700 && flock(descriptor, LOCK_EX | LOCK_NB) == 0;
    if (!ours && descriptor >= 0)
        close(descriptor);
    return ours ? descriptor : -1;
}

/** A folder that holds anything but the socket stays. */
static void remove_locked(int parent, const char *name, int descriptor) {
    unlinkat(descriptor, RENDEZVOUS_FOLDER_SOCKET, 0);
    unlinkat(parent, name, AT_REMOVEDIR);
    close(descriptor);
}

/** Removes what runs that were killed have left in a folder. */
static void sweep(const char *base) {
    DIR *entries = opendir(base);
    if (!entries)
        return;
    for (struct dirent *entry; (entry = readdir(entries));) {
        if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) != 0)
            continue;
        int descriptor = lock_folder(dirfd(entries), entry->d_name);
        if (descriptor >= 0)
            remove_locked(dirfd(entries), entry->d_name, descriptor);
    }
    closedir(entries);
}

/** Whether the folder is still the one that was made: another run may have swept it before it was locked. */
static bool is_there(const struct rendezvous_folder *folder) {
    struct stat named, locked;
    return stat(folder->path, &named) == 0 && fstat(folder->lock, &locked) == 0 && named.st_ino == locked.st_ino &&
           named.st_dev == locked.st_dev;
}

static bool make_in(struct rendezvous_folder *folder, const char *base) {
    const size_t size = sizeof folder->path - sizeof "/" RENDEZVOUS_FOLDER_SOCKET;
    for (int i = 0; i < TRIES; i++) {
        if ((size_t)snprintf(folder->path, size, "%s/" PREFIX "XXXXXX", base) >= size || !mkdtemp(folder->path))
            break;
        folder->lock = lock_folder(AT_FDCWD, folder->path);
        if (folder->lock >= 0 && is_there(folder))
            return true;
        if (folder->lock >= 0)
            close(folder->lock);
    }
    *folder = (struct rendezvous_folder){0};
    return false;
}

bool rendezvous_folder_make(struct rendezvous_folder *folder, struct error *err) {
    const char *bases[] = {getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), "/tmp"};
    for (size_t i = 0; i < sizeof bases / sizeof *bases; i++) {
        if (!bases[i] || !file_is_folder(bases[i]))
            continue;
        sweep(bases[i]);
        if (make_in(folder, bases[i]))
            return true;
    }
    return error_set_errno(err, "no folder for the rendezvous: neither XDG_RUNTIME_DIR nor TMPDIR nor /tmp");
}

void rendezvous_folder_remove(struct rendezvous_folder *folder) {
    if (folder->path[0])
        remove_locked(AT_FDCWD, folder->path, folder->lock);
    *folder = (struct rendezvous_folder){0};
}
