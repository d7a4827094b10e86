#include "common/base/file.h"
#include "common/base/text.h"
#include "trainerd/dataset_build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE_BYTES = 256 << 20, MAX_COLUMNS = 32, MAX_PATH_BYTES = 4095 };

/* Walks a text file in memory, line by line, in place. */
struct lines {
    const char *path;
    char *next; /* NULL at the end */
    int number;
};

static bool lines_open(struct lines *lines, const char *path, struct bytes *bytes, struct error *err) {
    if (!file_read(path, MAX_FILE_BYTES, bytes, err))
        return false;
    if (!text_is_utf8(bytes->data, bytes->size)) {
        free(bytes->data);
        return error_set(err, ERROR_FORMAT, "%s: not UTF-8 text", path);
    }
    char *text = (char *)bytes->data;
    if (strncmp(text, "\xEF\xBB\xBF", 3) == 0)
        text += 3; /* spreadsheets put a byte order mark in front */
    *lines = (struct lines){path, text, 0};
    return true;
}

static char *lines_take(struct lines *lines) {
    char *line = lines->next;
    if (!line || !*line)
        return NULL;
    size_t length = strcspn(line, "\n");
    lines->next = line[length] ? line + length + 1 : NULL;
    line[length] = 0;
    if (length > 0 && line[length - 1] == '\r')
        line[length - 1] = 0;
    lines->number++;
    return line;
}

/* Ends the quoted field that starts at *text (behind its quote) and undoubles its quotes (RFC 4180). NULL: no
 * closing quote. */
static char *unquote(char *text) {
    char *to = text;
    for (; *text; text++) {
        if (*text == '"' && *++text != '"') {
            *to = 0;
            return text;
        }
        *to++ = *text;
    }
    return NULL;
}

/* Splits a line at its commas, in place. Returns the number of fields, -1 where a quote is wrong or there are
 * too many. */
static int split_fields(char *line, char *fields[MAX_COLUMNS]) {
    int count = 0;
    for (;;) {
        if (count == MAX_COLUMNS)
            return -1;
        bool quoted = *line == '"';
        fields[count++] = quoted ? line + 1 : line;
        char *end = quoted ? unquote(line + 1) : line + strcspn(line, ",");
        if (!end || (*end && *end != ','))
            return -1;
        if (!*end)
            return count;
        *end = 0;
        line = end + 1;
    }
}

enum column { COLUMN_PATH, COLUMN_CLASS, COLUMN_PATIENT, COLUMN_SPLIT, COLUMNS };

struct manifest {
    struct lines lines;
    char folder[MAX_PATH_BYTES + 1]; /* of the manifest: paths are relative to it */
    int places[COLUMNS];             /* of the columns; -1: absent */
    int fields;
};

static bool read_header(struct manifest *manifest, struct error *err) {
    static const char *const names[COLUMNS] = {"path", "class", "patient", "split"};
    char *fields[MAX_COLUMNS], *line = lines_take(&manifest->lines);
    manifest->fields = line ? split_fields(line, fields) : 0;
    for (int column = 0; column < COLUMNS; column++) {
        manifest->places[column] = -1;
        for (int i = 0; i < manifest->fields; i++)
            if (strcmp(fields[i], names[column]) == 0)
                manifest->places[column] = i;
    }
    if (manifest->places[COLUMN_PATH] < 0 || manifest->places[COLUMN_CLASS] < 0)
        return error_set(err, ERROR_FORMAT,
                         "%s:1: the first line names the columns: path,class[,patient][,split]",
                         manifest->lines.path);
    return true;
}

static const char *field(const struct manifest *manifest, char *const *fields, enum column column) {
    int place = manifest->places[column];
    return place >= 0 && fields[place][0] ? fields[place] : NULL;
}

/* Messages give the line and never the field: it may hold a patient's name. */
static bool add_row(struct dataset *dataset, const struct manifest *manifest, char *const *fields,
                    struct error *err) {
    const char *file = manifest->lines.path, *path = field(manifest, fields, COLUMN_PATH);
    const char *class_name = field(manifest, fields, COLUMN_CLASS),
               *split = field(manifest, fields, COLUMN_SPLIT);
    char full[2 * MAX_PATH_BYTES + 2];
    int line = manifest->lines.number;
    struct dataset_sample sample = {
        .name = path, .path = full, .line = line, .patient = field(manifest, fields, COLUMN_PATIENT)};
    sample.label = class_name ? dataset_label(dataset, class_name) : -1;
    if (!path || strlen(path) > MAX_PATH_BYTES)
        return error_set(err, ERROR_FORMAT, "%s:%d: the path is empty or too long", file, line);
    if (sample.label < 0)
        return error_set(err, ERROR_FORMAT, "%s:%d: the class is none of the configured ones", file, line);
    if (split && !dataset_part_parse(split, &sample.part))
        return error_set(err, ERROR_FORMAT, "%s:%d: the split is none of train, val, test", file, line);
    bool relative = path[0] != '/';
    snprintf(full, sizeof full, "%s%s%s", relative ? manifest->folder : "", relative ? "/" : "", path);
    return dataset_add(dataset, &sample, err);
}

static bool read_rows(struct dataset *dataset, struct manifest *manifest, struct error *err) {
    char *fields[MAX_COLUMNS];
    for (char *line; (line = lines_take(&manifest->lines));) {
        if (!*line)
            continue;
        int count = split_fields(line, fields);
        if (count != manifest->fields)
            return error_set(err, ERROR_FORMAT, "%s:%d: %s, the first line has %d columns",
                             manifest->lines.path, manifest->lines.number,
                             count < 0 ? "a broken quote" : "another number of fields", manifest->fields);
        if (!add_row(dataset, manifest, fields, err))
            return false;
    }
    return true;
}

bool dataset_read_manifest(struct dataset *dataset, const char *path, struct error *err) {
    struct manifest manifest = {0};
    struct bytes bytes;
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 1;
    if (length > MAX_PATH_BYTES)
        return error_set(err, ERROR_INVALID, "%.200s...: path too long", path);
    snprintf(manifest.folder, sizeof manifest.folder, "%.*s", (int)length, slash ? path : ".");
    if (!lines_open(&manifest.lines, path, &bytes, err))
        return false;
    bool ok = read_header(&manifest, err) && read_rows(dataset, &manifest, err);
    free(bytes.data);
    return ok;
}

static int compare_name(const void *key, const void *sample) {
    return strcmp(key, ((const struct dataset_sample *)sample)->name);
}

/* Marks the samples that the list names and notes which classes it speaks of. */
static bool mark_listed(struct dataset *dataset, struct lines *lines, bool *listed, bool *spoken,
                        struct error *err) {
    for (char *line; (line = lines_take(lines));) {
        if (!*line || *line == '#')
            continue;
        const char *name = strncmp(line, "./", 2) == 0 ? line + 2 : line;
        const struct dataset_sample *sample =
            bsearch(name, dataset->samples, (size_t)dataset->count, sizeof *dataset->samples, compare_name);
        if (!sample)
            return error_set(err, ERROR_NOT_FOUND, "%s:%d: the data set has no image of that name",
                             lines->path, lines->number);
        if (sample->part == DATASET_TEST)
            return error_set(err, ERROR_INVALID, "%s:%d: an image of the test part cannot validate",
                             lines->path, lines->number);
        listed[sample - dataset->samples] = true;
        spoken[sample->label] = true;
    }
    return true;
}

static void move_listed(struct dataset *dataset, const bool *listed, const bool *spoken, bool *patients) {
    for (int64_t i = 0; i < dataset->count; i++)
        patients[dataset->samples[i].group] |= listed[i];
    for (int64_t i = 0; i < dataset->count; i++) {
        struct dataset_sample *sample = &dataset->samples[i];
        if (listed[i])
            sample->part = DATASET_VALIDATION;
        else if (sample->part == DATASET_VALIDATION && spoken[sample->label] && !patients[sample->group])
            sample->part = DATASET_TRAIN;
    }
}

bool dataset_apply_list(struct dataset *dataset, const char *path, struct error *err) {
    struct lines lines = {0};
    struct bytes bytes;
    if (!lines_open(&lines, path, &bytes, err))
        return false;
    bool spoken[DATASET_MAX_CLASSES] = {false};
    bool *listed = calloc((size_t)dataset->count, sizeof *listed),
         *patients = calloc((size_t)dataset->groups, sizeof *patients);
    bool ok = (listed && patients) || error_set(err, ERROR_MEMORY, "data set: out of memory");
    ok = ok && mark_listed(dataset, &lines, listed, spoken, err);
    if (ok)
        move_listed(dataset, listed, spoken, patients);
    free(listed);
    free(patients);
    free(bytes.data);
    return ok;
}
