#include "common/base/file.h"
#include "trainerd/dataset_build.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { PATH_SIZE = 4096 };

/* One folder of images: where it is, and what its files are called and count as. */
struct folder {
    char path[PATH_SIZE];
    char prefix[PATH_SIZE]; /* of the samples' names */
    int32_t label;
    enum dataset_part part;
};

static const char *const part_folders[DATASET_PARTS] = {"train", "val", "test"};

static bool is_image_name(const char *name) {
    static const char *const endings[] = {".jpg", ".jpeg", ".png"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t ending = strlen(endings[i]);
        if (length > ending && strcasecmp(name + length - ending, endings[i]) == 0)
            return true;
    }
    return false;
}

static bool add_file(struct dataset *dataset, const struct folder *folder, const char *file,
                     struct error *err) {
    char path[PATH_SIZE + 256], name[PATH_SIZE + 256];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", folder->path, file);
    snprintf(name, sizeof name, "%s/%s", folder->prefix, file);
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode))
        return true;
    /* A dangling link or a pipe stays in: whoever decodes lists it among the broken ones. */
    struct dataset_sample sample = {.name = name, .path = path, .label = folder->label, .part = folder->part};
    return dataset_add(dataset, &sample, err);
}

static bool scan_folder(struct dataset *dataset, const struct folder *folder, struct error *err) {
    DIR *handle = opendir(folder->path);
    if (!handle)
        return error_set_errno(err, "%s", folder->path);
    int64_t passed_over = 0;
    bool ok = true;
    for (struct dirent *entry; ok && (entry = readdir(handle));) {
        if (entry->d_name[0] == '.')
            continue;
        if (is_image_name(entry->d_name))
            ok = add_file(dataset, folder, entry->d_name, err);
        else
            passed_over++;
    }
    closedir(handle);
    if (ok && passed_over > 0)
        dataset_note(dataset, "%.300s: passed over %lld entries that are no .jpg, .jpeg or .png",
                     folder->path, (long long)passed_over);
    return ok;
}

static bool folder_set(struct folder *folder, const char *path, const char *prefix, const char *below,
                       struct error *err) {
    int path_size = snprintf(folder->path, PATH_SIZE, "%s%s%s", path, *below ? "/" : "", below);
    int prefix_size =
        snprintf(folder->prefix, PATH_SIZE, "%s%s%s", prefix, *prefix && *below ? "/" : "", below);
    return (path_size < PATH_SIZE && prefix_size < PATH_SIZE) ||
           error_set(err, ERROR_INVALID, "%.200s...: path too long", path);
}

/* Scans path/{train,val,test} where it has a train folder, else path itself as train. */
static bool scan_parts(struct dataset *dataset, const char *path, const char *prefix, int32_t label,
                       struct error *err) {
    struct folder folder = {.label = label, .part = DATASET_TRAIN};
    if (!folder_set(&folder, path, prefix, "train", err))
        return false;
    if (!file_is_folder(folder.path))
        return folder_set(&folder, path, prefix, "", err) && scan_folder(dataset, &folder, err);
    for (int part = 0; part < DATASET_PARTS; part++) {
        folder.part = (enum dataset_part)part;
        if (!folder_set(&folder, path, prefix, part_folders[part], err))
            return false;
        if (file_is_folder(folder.path) && !scan_folder(dataset, &folder, err))
            return false;
    }
    return true;
}

bool dataset_scan_layout(struct dataset *dataset, const struct dataset_spec *spec, struct error *err) {
    for (int part = 0; part < DATASET_PARTS; part++) {
        char below[256];
        struct folder folder = {.part = (enum dataset_part)part};
        if (!folder_set(&folder, spec->directory, "", part_folders[part], err))
            return false;
        if (part != DATASET_TRAIN && !file_is_folder(folder.path))
            continue;
        for (folder.label = 0; folder.label < dataset->classes; folder.label++) {
            const char *class_name = dataset->class_names[folder.label];
            snprintf(below, sizeof below, "%s/%s", part_folders[part], class_name);
            if (!folder_set(&folder, spec->directory, "", below, err))
                return false;
            if (file_is_folder(folder.path)) {
                if (!scan_folder(dataset, &folder, err))
                    return false;
            } else if (part == DATASET_TRAIN &&
                       !(spec->invalid_directory && strcmp(class_name, "INVALID") == 0)) {
                return error_set(err, ERROR_NOT_FOUND, "%s: there is no such folder", folder.path);
            }
        }
    }
    return true;
}

static bool scan_class_folders(struct dataset *dataset, const struct dataset_spec *spec,
                               const struct dataset_folders *folders, struct error *err) {
    int32_t label = dataset_label(dataset, folders->class_name);
    if (label < 0)
        return error_set(err, ERROR_INVALID, "class %.64s has folders but is not among the classes",
                         folders->class_name);
    for (int i = 0; i < folders->count; i++) {
        char path[PATH_SIZE], prefix[128];
        bool relative = spec->directory && folders->folders[i][0] != '/';
        int size = snprintf(path, sizeof path, "%s%s%s", relative ? spec->directory : "", relative ? "/" : "",
                            folders->folders[i]);
        snprintf(prefix, sizeof prefix, "%s/%d", folders->class_name, i);
        if (size >= PATH_SIZE || !file_is_folder(path))
            return error_set(err, ERROR_NOT_FOUND, "%.400s: there is no such folder (class %s)", path,
                             folders->class_name);
        if (!scan_parts(dataset, path, prefix, label, err))
            return false;
    }
    return true;
}

bool dataset_scan_mapping(struct dataset *dataset, const struct dataset_spec *spec, struct error *err) {
    for (int i = 0; i < spec->mappings; i++)
        if (!scan_class_folders(dataset, spec, &spec->mapping[i], err))
            return false;
    return true;
}

bool dataset_scan_invalid(struct dataset *dataset, const struct dataset_spec *spec, struct error *err) {
    int32_t label = dataset_label(dataset, "INVALID");
    if (label < 0)
        return error_set(err, ERROR_INVALID,
                         "%.300s holds images of class INVALID, which is not among the classes",
                         spec->invalid_directory);
    if (!file_is_folder(spec->invalid_directory))
        return error_set(err, ERROR_NOT_FOUND, "%.400s: there is no such folder (class INVALID)",
                         spec->invalid_directory);
    int64_t before = dataset->count;
    if (!scan_parts(dataset, spec->invalid_directory, "invalid-directory", label, err))
        return false;
    return dataset->count > before ||
           error_set(err, ERROR_NOT_FOUND, "%.400s: no images in it (class INVALID)",
                     spec->invalid_directory);
}
