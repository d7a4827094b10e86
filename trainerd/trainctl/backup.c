#include "trainerd/trainctl/backup.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "trainerd/registry.h"

#include <dirent.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A backup is a folder with a copy of the registry and the models that it names, laid out as in a store. It
 * is built beside its place and renamed, so that it is whole or not there. */

static const char backup_usage[] =
    "usage: trainctl backup --store DIR --out FOLDER\n"
    "Copies a publisher's registry and models, also while it publishes. Every model is checked on the way.\n"
    "  --store DIR       the publisher's store (publish.store)\n"
    "  --out FOLDER      where to; must not be there\n"
    "  --help            this text\n";
static const char restore_usage[] =
    "usage: trainctl restore --from FOLDER --store DIR\n"
    "Makes a store of a backup. A publisher that starts on it holds: it activates nothing until somebody has "
    "looked and\n"
    "lifts that by `trainctl rollout resume`; members serve on what they run.\n"
    "  --from FOLDER     what trainctl backup made\n"
    "  --store DIR       the publisher's store (publish.store); must not be there, or be empty\n"
    "  --help            this text\n";

/** From one folder in a store's layout to another. */
struct copy {
    const char *from, *to;
    int models;
};

static bool object_path(const char *folder, const struct digest *digest, char out[PATH_MAX], bool make,
                        struct error *err) {
    char hex[DIGEST_HEX_SIZE], parent[PATH_MAX];
    digest_hex(digest, hex);
    int used = snprintf(parent, sizeof parent, "%s/objects/%.2s", folder, hex);
    if (used < 0 || (size_t)used >= sizeof parent)
        return error_set(err, ERROR_TOO_LARGE, "%.200s: too long a path", folder);
    return (!make || file_make_folders(parent, err)) && file_join(out, PATH_MAX, parent, hex + 2, err);
}

static bool copy_model(void *context, const struct digest *digest, struct error *err) {
    struct copy *copy = context;
    char from[PATH_MAX], to[PATH_MAX];
    struct file_map map;
    if (!object_path(copy->from, digest, from, false, err) || !object_path(copy->to, digest, to, true, err))
        return false;
    if (!file_map_open(from, &map, err))
        return error_hint(err, "a model was removed meanwhile? try again");
    struct digest found = digest_of(map.data, map.size);
    bool ok = digest_equal(&found, digest) ||
              error_set(err, ERROR_FORMAT,
                        "%s: damaged: its bytes do not have the digest that it is named by", from);
    ok = ok && file_write_atomic(to, map.data, map.size, err);
    file_map_close(&map);
    copy->models += ok;
    return ok;
}

/** Registry first: models that come later are not in it, and those that it names are looked for. */
static bool copy_all(struct copy *copy, struct error *err) {
    char registry[PATH_MAX];
    return file_make_folders(copy->to, err) && registry_path(copy->to, registry, sizeof registry, err) &&
           registry_copy(copy->from, registry, err) && registry_each_stored(copy->to, copy_model, copy, err);
}

static bool is_empty(const char *path) {
    DIR *folder = opendir(path);
    int entries = 0;
    while (folder && readdir(folder))
        entries++;
    if (folder)
        closedir(folder);
    return folder && entries <= 2; /* itself and the one above */
}

/** The path without slashes at its end: what a shell completes would be inside of the folder, not beside it.
 */
static bool trim(const char *path, char out[PATH_MAX], struct error *err) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    if (length >= PATH_MAX - 32)
        return error_set(err, ERROR_TOO_LARGE, "%.200s: too long a path", path);
    memcpy(out, path, length);
    out[length] = '\0';
    return true;
}

/** Builds the folder beside its place, then puts it there. finish: the last thing before; may be NULL. */
static bool build(const char *from, const char *to, bool (*finish)(const char *folder, struct error *err),
                  int *models, struct error *err) {
    char target[PATH_MAX], beside[PATH_MAX + 32];
    if (!trim(to, target, err))
        return false;
    if (file_exists(target) && !is_empty(target))
        return error_set(err, ERROR_STATE, "%s: is there already; nothing was changed", target);
    snprintf(beside, sizeof beside, "%s.partial-%d", target, (int)getpid());
    struct copy copy = {.from = from, .to = beside};
    bool ok = copy_all(&copy, err) && (!finish || finish(beside, err)) && file_sync_folder(beside, err);
    if (ok && rename(beside, target) != 0)
        ok = error_set_errno(err, "%s", target);
    if (!ok)
        file_remove_tree(beside, NULL);
    *models = copy.models;
    return ok;
}

static bool mark(const char *folder, struct error *err) {
    char reason[128], when[32];
    time_t now = (time_t)(clock_wall_ms() / 1000);
    struct tm utc;
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", gmtime_r(&now, &utc));
    snprintf(reason, sizeof reason, "restored from a backup at %s UTC", when);
    return registry_mark_restored(folder, reason, err);
}

/** 1: go on; else the exit code, having said why. */
static int parse(int argc, char **argv, const char *usage, const char **from, const char **to) {
    static const struct option rows[] = {{"store", required_argument, NULL, 's'},
                                         {"out", required_argument, NULL, 'o'},
                                         {"from", required_argument, NULL, 'f'},
                                         {"help", no_argument, NULL, 'h'},
                                         {0}};
    bool backup = strcmp(argv[0], "backup") == 0, ok = true;
    optind = 1;
    opterr = 0;
    for (int letter; (letter = getopt_long(argc, argv, "", rows, NULL)) != -1;) {
        if (letter == 'h')
            return fputs(usage, stdout) < 0;
        if (letter == 's')
            *(backup ? from : to) = optarg;
        else if (letter == (backup ? 'o' : 'f'))
            *(backup ? to : from) = optarg;
        else
            ok = false;
    }
    if (ok && optind == argc && *from && *to)
        return -1;
    fprintf(stderr, "trainctl %s: %s\n%s", argv[0], "two folders are wanted", usage);
    return 2;
}

static int run(char **argv, const char *from, const char *to,
               bool (*finish)(const char *folder, struct error *err)) {
    struct error err = {0};
    int models;
    if (!build(from, to, finish, &models, &err)) {
        fprintf(stderr, "trainctl %s: %s%s%s\n", argv[0], err.message, err.hint[0] ? "; " : "", err.hint);
        return 1;
    }
    printf("%s: the registry and %d models\n", to, models);
    return 0;
}

int command_backup(int argc, char **argv) {
    const char *from = NULL, *to = NULL;
    int code = parse(argc, argv, backup_usage, &from, &to);
    return code >= 0 ? code : run(argv, from, to, NULL);
}

int command_restore(int argc, char **argv) {
    const char *from = NULL, *to = NULL;
    int code = parse(argc, argv, restore_usage, &from, &to);
    return code >= 0 ? code : run(argv, from, to, mark);
}
