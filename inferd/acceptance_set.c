#include "inferd/acceptance_set.h"
#include "common/base/file.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is listed before max_images are chosen from it. */
enum { FILES_MAX = 200000, MANIFEST_MAX_BYTES = 32 << 20, PATH_SIZE = 4096, FOLDERS_MAX = 1024 };

void acceptance_set_close(struct acceptance_set *set) {
    for (int i = 0; i < set->count; i++) {
        free(set->pictures[i].path);
    }
    free(set->pictures);
    *set = (struct acceptance_set){0};
}

static bool add(struct acceptance_set *set, const char *folder, const char *name, int label,
                struct error *err) {
    char path[PATH_SIZE];
    if (set->count >= FILES_MAX) {
        return error_set(err, ERROR_TOO_LARGE, "the acceptance set has more than %d files", FILES_MAX);
    }
    if ((set->count & (set->count - 1)) == 0) { /* doubles at each power of two */
        size_t room = set->count ? 2 * (size_t)set->count : 1;
        void *grown = realloc(set->pictures, room * sizeof *set->pictures);
        if (!grown) {
            return error_set(err, ERROR_MEMORY, "no memory for the acceptance set");
        }
        set->pictures = grown;
    }
    char *copy = file_join(path, sizeof path, folder, name, NULL) ? strdup(path) : NULL;
    if (!copy) {
        return error_set(err, ERROR_INVALID, "a path of the acceptance set is too long");
    }
    set->pictures[set->count++] = (struct acceptance_picture){copy, label};
    return true;
}

static int class_of(const struct model_info *info, const char *name) {
    for (int i = 0; i < info->class_count; i++) {
        if (strcmp(info->classes[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

static bool scan_class(struct acceptance_set *set, const char *folder, int label, struct error *err) {
    DIR *handle = opendir(folder);
    if (!handle) {
        return error_set(err, ERROR_IO, "a folder of the acceptance set cannot be read");
    }
    bool ok = true;
    for (const struct dirent *entry; ok && (entry = readdir(handle));) {
        ok = entry->d_name[0] == '.' || add(set, folder, entry->d_name, label, err);
    }
    closedir(handle);
    return ok;
}

static bool scan(struct acceptance_set *set, const struct model_info *info, const char *root,
                 struct error *err) {
    DIR *handle = opendir(root);
    char folder[PATH_SIZE];
    int folders = 0;
    if (!handle) {
        return error_set(err, ERROR_IO, "acceptance.folder cannot be read");
    }
    bool ok = true;
    for (const struct dirent *entry; ok && (entry = readdir(handle));) {
        if (entry->d_name[0] == '.' || !file_join(folder, sizeof folder, root, entry->d_name, NULL) ||
            !file_is_folder(folder)) {
            continue;
        }
        int label = class_of(info, entry->d_name);
        ok = (++folders <= FOLDERS_MAX && label >= 0) ||
             error_set(err, ERROR_INVALID, "acceptance.folder has a folder that is no class of the model");
        ok = ok && scan_class(set, folder, label, err);
    }
    closedir(handle);
    return ok;
}

/** Ends the field at `at` and returns what follows; NULL: it was the line's last. */
static char *end_field(char *at) {
    char *comma = strchr(at, ',');
    if (comma) {
        *comma = '\0';
    }
    return comma ? comma + 1 : NULL;
}

/** Which of a header's columns has that name; -1: none. */
static int column_of(const char *header, const char *name) {
    char copy[256];
    snprintf(copy, sizeof copy, "%s", header);
    int column = 0;
    for (char *field = copy, *next; field; field = next, column++) {
        next = end_field(field);
        if (strcmp(field, name) == 0) {
            return column;
        }
    }
    return -1;
}

static char *field_at(char *line, int column) {
    while (line && column-- > 0) {
        line = end_field(line);
    }
    if (line) {
        end_field(line);
    }
    return line;
}

/** One line below the header. */
static bool take_line(struct acceptance_set *set, const struct model_info *info, const char *folder,
                      char *line, const int columns[2]) {
    char copy[PATH_SIZE];
    if (strchr(line, '"') || strlen(line) >= sizeof copy) {
        return false;
    }
    snprintf(copy, sizeof copy, "%s", line);
    const char *path = field_at(line, columns[0]), *class_name = field_at(copy, columns[1]);
    int label = class_name ? class_of(info, class_name) : -1;
    return path && *path && label >= 0 && add(set, folder, path, label, NULL);
}

static bool read_lines(struct acceptance_set *set, const struct model_info *info, const char *folder,
                       char *text, struct error *err) {
    char *save = NULL, *line = strtok_r(text, "\r\n", &save);
    int columns[2] = {line ? column_of(line, "path") : -1, line ? column_of(line, "class") : -1};
    if (columns[0] < 0 || columns[1] < 0) {
        return error_set(err, ERROR_FORMAT,
                         "acceptance.manifest: the first line has no columns path and class");
    }
    for (int number = 2; (line = strtok_r(NULL, "\r\n", &save)); number++) {
        if (!take_line(set, info, folder, line, columns)) {
            return error_set(
                err, ERROR_FORMAT,
                "acceptance.manifest: entry %d is no path with a class of the model, without quotes", number);
        }
    }
    return true;
}

static bool read_manifest(struct acceptance_set *set, const struct model_info *info, const char *manifest,
                          struct error *err) {
    char folder[PATH_SIZE];
    struct bytes text;
    const char *slash = strrchr(manifest, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - manifest) : 1, slash ? manifest : ".");
    if (!file_read(manifest, MANIFEST_MAX_BYTES, &text, NULL)) {
        return error_set(err, ERROR_IO, "acceptance.manifest cannot be read, or has more than %d bytes",
                         MANIFEST_MAX_BYTES);
    }
    bool ok = read_lines(set, info, slash == manifest ? "/" : folder, (char *)text.data, err);
    free(text.data);
    return ok;
}

static int by_class_and_name(const void *a, const void *b) {
    const struct acceptance_picture *one = a, *two = b;
    return one->label != two->label ? one->label - two->label : strcmp(one->path, two->path);
}

/** Keeps `keep` of the `count` pictures from `from` on, evenly spread, moving them to `to`. */
static int thin(struct acceptance_set *set, int from, int count, int keep, int to) {
    int kept = 0;
    for (int i = 0; i < count; i++) {
        bool take = (int64_t)(i + 1) * keep / count > (int64_t)i * keep / count;
        struct acceptance_picture picture = set->pictures[from + i];
        if (take) {
            set->pictures[to + kept++] = picture;
        } else {
            free(picture.path);
        }
    }
    return kept;
}

static void choose(struct acceptance_set *set, int class_count, int max_images) {
    int counts[MODEL_MAX_CLASSES] = {0}, classes = 0, kept = 0, from = 0;
    for (int i = 0; i < set->count; i++) {
        classes += counts[set->pictures[i].label]++ == 0 ? 1 : 0;
    }
    int share = classes > 0 && max_images / classes > 0 ? max_images / classes : 1;
    for (int k = 0; k < class_count; k++) {
        if (counts[k] > 0) {
            kept += thin(set, from, counts[k], counts[k] < share ? counts[k] : share, kept);
            from += counts[k];
        }
    }
    set->count = kept;
}

bool acceptance_set_open(const struct acceptance_spec *spec, const struct model_info *info,
                         struct acceptance_set *out, struct error *err) {
    *out = (struct acceptance_set){0};
    bool from_folder = spec->folder && *spec->folder;
    bool ok =
        from_folder ? scan(out, info, spec->folder, err) : read_manifest(out, info, spec->manifest, err);
    if (!ok) {
        return false;
    }
    if (out->count > 0) {
        qsort(out->pictures, (size_t)out->count, sizeof *out->pictures, by_class_and_name);
    }
    choose(out, info->class_count, spec->max_images);
    return true;
}
