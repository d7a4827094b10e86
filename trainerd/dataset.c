#include "trainerd/dataset.h"

#include "common/base/file.h"
#include "trainerd/dataset_build.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const default_classes[] = {"NORMAL", "PNEUMONIA", "INVALID"};
enum { DEFAULT_CLASSES = 2 }; /* the third where it is there */

const char *dataset_part_name(enum dataset_part part) {
    static const char *const names[DATASET_PARTS] = {"train", "validation", "test"};
    return names[part];
}

bool dataset_part_parse(const char *text, enum dataset_part *out) {
    static const struct {
        const char *name;
        enum dataset_part part;
    } names[] = {{"train", DATASET_TRAIN},
                 {"val", DATASET_VALIDATION},
                 {"valid", DATASET_VALIDATION},
                 {"validation", DATASET_VALIDATION},
                 {"test", DATASET_TEST}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(text, names[i].name) == 0) {
            *out = names[i].part;
            return true;
        }
    return false;
}

int64_t dataset_count(const struct dataset *dataset, enum dataset_part part, int32_t label) {
    int64_t count = 0;
    for (int64_t i = 0; i < dataset->count; i++)
        count += dataset->samples[i].part == part && dataset->samples[i].label == label;
    return count;
}

int32_t dataset_label(const struct dataset *dataset, const char *class_name) {
    for (int32_t i = 0; i < dataset->classes; i++)
        if (strcmp(dataset->class_names[i], class_name) == 0)
            return i;
    return -1;
}

static const char *copy_text(struct dataset *dataset, const char *text) {
    return text ? arena_copy(&dataset->arena, text, strlen(text)) : NULL;
}

static bool grow(struct dataset *dataset) {
    int64_t capacity = dataset->capacity ? dataset->capacity * 2 : 1024;
    struct dataset_sample *samples = realloc(dataset->samples, (size_t)capacity * sizeof *samples);
    if (!samples)
        return false;
    dataset->samples = samples;
    dataset->capacity = capacity;
    return true;
}

bool dataset_add(struct dataset *dataset, const struct dataset_sample *sample, struct error *err) {
    if (dataset->count == DATASET_MAX_SAMPLES)
        return error_set(err, ERROR_TOO_LARGE, "the data set has more than %d images", DATASET_MAX_SAMPLES);
    struct dataset_sample copy = *sample;
    copy.name = copy_text(dataset, sample->name);
    copy.path = copy_text(dataset, sample->path);
    copy.patient = copy_text(dataset, sample->patient);
    bool copied = copy.name && !sample->path == !copy.path && !sample->patient == !copy.patient;
    if (!copied || (dataset->count == dataset->capacity && !grow(dataset)))
        return error_set(err, ERROR_MEMORY, "data set: out of memory");
    dataset->samples[dataset->count++] = copy;
    return true;
}

void dataset_note(struct dataset *dataset, const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    const char *note = copy_text(dataset, text);
    if (note && dataset->note_count < DATASET_MAX_NOTES)
        dataset->notes[dataset->note_count++] = note;
}

bool dataset_own(struct dataset *dataset, void *blob, struct error *err) {
    if (dataset->blob_count == sizeof dataset->blobs / sizeof dataset->blobs[0]) {
        free(blob);
        return error_set(err, ERROR_INTERNAL, "data set: more arrays than an archive can hold");
    }
    dataset->blobs[dataset->blob_count++] = blob;
    return true;
}

void dataset_close(struct dataset *dataset) {
    for (int i = 0; i < dataset->blob_count; i++)
        free(dataset->blobs[i]);
    free(dataset->samples);
    arena_fini(&dataset->arena);
    *dataset = (struct dataset){0};
}

static bool check_sources(const struct dataset_spec *spec, struct error *err) {
    int sources = (spec->mappings > 0) + (spec->manifest != NULL) + (spec->npz != NULL);
    if (sources == 0 && !spec->directory)
        return error_set(err, ERROR_INVALID,
                         "no data set: a directory, classes' folders, a manifest or an .npz names one");
    if (sources > 1 || (spec->directory && (spec->manifest || spec->npz)))
        return error_set(err, ERROR_INVALID, "the data set is named in more than one way");
    if (spec->validation_list && (sources > 0 || !spec->directory))
        return error_set(err, ERROR_INVALID,
                         "a validation list goes with a data set directory, and with nothing else");
    if (!(spec->validation_fraction >= 0.0 && spec->validation_fraction <= 0.5))
        return error_set(err, ERROR_INVALID, "a validation fraction of %g is not in 0 to 0.5",
                         spec->validation_fraction);
    return true;
}

static bool add_class(struct dataset *dataset, const char *name, struct error *err) {
    if (dataset->classes == DATASET_MAX_CLASSES)
        return error_set(err, ERROR_INVALID, "more than %d classes", DATASET_MAX_CLASSES);
    if (!*name || strlen(name) > 64 || strchr(name, '/') || dataset_label(dataset, name) >= 0)
        return error_set(err, ERROR_INVALID, "class \"%.64s\": empty, too long, with a slash, or there twice",
                         name);
    if (!(dataset->class_names[dataset->classes] = copy_text(dataset, name)))
        return error_set(err, ERROR_MEMORY, "data set: out of memory");
    dataset->classes++;
    return true;
}

/* INVALID is a class of the default where the spec or the layout brings images of it. */
static bool wants_invalid(const struct dataset_spec *spec) {
    char path[4096];
    return spec->invalid_directory ||
           (spec->directory &&
            snprintf(path, sizeof path, "%s/train/INVALID", spec->directory) < (int)sizeof path &&
            file_is_folder(path));
}

static bool name_classes(struct dataset *dataset, const struct dataset_spec *spec, struct error *err) {
    bool ok = true;
    if (spec->classes > 0) {
        for (int i = 0; ok && i < spec->classes; i++)
            ok = add_class(dataset, spec->class_names[i], err);
    } else if (spec->mappings > 0) {
        for (int i = 0; ok && i < spec->mappings; i++)
            ok = add_class(dataset, spec->mapping[i].class_name, err);
        if (ok && spec->invalid_directory && dataset_label(dataset, "INVALID") < 0)
            ok = add_class(dataset, "INVALID", err);
    } else {
        int classes = DEFAULT_CLASSES + wants_invalid(spec);
        for (int i = 0; ok && i < classes; i++)
            ok = add_class(dataset, default_classes[i], err);
    }
    return ok && (dataset->classes >= 2 ||
                  error_set(err, ERROR_INVALID, "a classifier needs two classes at least"));
}

static bool read_sources(struct dataset *dataset, const struct dataset_spec *spec, struct error *err) {
    bool ok;
    if (spec->manifest)
        ok = dataset_read_manifest(dataset, spec->manifest, err);
    else if (spec->npz)
        ok = dataset_read_npz(dataset, spec->npz, err);
    else if (spec->mappings > 0)
        ok = dataset_scan_mapping(dataset, spec, err);
    else
        ok = dataset_scan_layout(dataset, spec, err);
    return ok && (!spec->invalid_directory || dataset_scan_invalid(dataset, spec, err));
}

static int by_name(const void *left, const void *right) {
    return strcmp(((const struct dataset_sample *)left)->name, ((const struct dataset_sample *)right)->name);
}

static bool sort_samples(struct dataset *dataset, struct error *err) {
    if (dataset->count == 0)
        return error_set(err, ERROR_NOT_FOUND, "the data set has no images");
    qsort(dataset->samples, (size_t)dataset->count, sizeof *dataset->samples, by_name);
    for (int64_t i = 1; i < dataset->count; i++) {
        const struct dataset_sample *sample = &dataset->samples[i];
        if (strcmp(sample->name, sample[-1].name) == 0)
            return error_set(err, ERROR_INVALID, "lines %d and %d of the manifest name the same image",
                             sample[-1].line, sample->line);
    }
    return true;
}

static bool check_classes(const struct dataset *dataset, struct error *err) {
    for (int32_t label = 0; label < dataset->classes; label++)
        if (dataset_count(dataset, DATASET_TRAIN, label) == 0)
            return error_set(err, ERROR_INVALID, "class %s has no training images",
                             dataset->class_names[label]);
    return true;
}

/* A pipe or a device would never end. */
static bool is_file(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

/* A file that cannot be read now will be listed among the broken ones by whoever decodes; its content counts
 * as nothing. */
static void digest_sample(struct dataset_sample *sample) {
    if (sample->pixels)
        sample->content = digest_of(sample->pixels, (size_t)sample->height * (size_t)sample->width *
                                                        (size_t)sample->channels);
    else if (!is_file(sample->path) || !digest_file(sample->path, &sample->content, NULL))
        sample->content = (struct digest){{0}};
}

static bool digest_samples(struct dataset *dataset, struct error *err) {
    if (!digest_start(err))
        return false;
    struct digest_state state;
    digest_init(&state);
    for (int i = 0; i < dataset->classes; i++)
        digest_update(&state, dataset->class_names[i], strlen(dataset->class_names[i]) + 1);
    for (int64_t i = 0; i < dataset->count; i++) {
        struct dataset_sample *sample = &dataset->samples[i];
        digest_sample(sample);
        uint8_t shape[13] = {(uint8_t)sample->label};
        for (int byte = 0; byte < 4; byte++) {
            shape[1 + byte] = (uint8_t)(sample->height >> 8 * byte);
            shape[5 + byte] = (uint8_t)(sample->width >> 8 * byte);
            shape[9 + byte] = (uint8_t)(sample->channels >> 8 * byte);
        }
        digest_update(&state, sample->name, strlen(sample->name) + 1);
        digest_update(&state, shape, sizeof shape);
        digest_update(&state, &sample->content, sizeof sample->content);
    }
    dataset->digest = digest_final(&state);
    return true;
}

/* A patient on both sides makes the figures better than they are: worth a line in the log. */
static bool note_shared_patients(struct dataset *dataset, struct error *err) {
    uint8_t *parts = calloc((size_t)dataset->groups, 1);
    if (!parts)
        return error_set(err, ERROR_MEMORY, "data set: out of memory");
    for (int64_t i = 0; i < dataset->count; i++)
        parts[dataset->samples[i].group] |= (uint8_t)(1u << dataset->samples[i].part);
    for (int part = DATASET_VALIDATION; part < DATASET_PARTS; part++) {
        int64_t shared = 0;
        for (int32_t group = 0; group < dataset->groups; group++)
            shared += (parts[group] & 1u) && (parts[group] & 1u << part);
        if (shared > 0)
            dataset_note(dataset, "%lld patients are both in train and in %s", (long long)shared,
                         dataset_part_name((enum dataset_part)part));
    }
    free(parts);
    return true;
}

bool dataset_open(struct dataset *dataset, const struct dataset_spec *spec, struct error *err) {
    *dataset = (struct dataset){0};
    arena_init(&dataset->arena, 0);
    double fraction = spec->validation_fraction > 0.0 ? spec->validation_fraction : 0.1;
    bool ok = check_sources(spec, err) && name_classes(dataset, spec, err) &&
              read_sources(dataset, spec, err) && sort_samples(dataset, err) &&
              dataset_assign_groups(dataset, err) &&
              (!spec->validation_list || dataset_apply_list(dataset, spec->validation_list, err)) &&
              check_classes(dataset, err) && dataset_split(dataset, fraction, spec->seed, err) &&
              digest_samples(dataset, err) && note_shared_patients(dataset, err);
    if (!ok)
        dataset_close(dataset);
    return ok;
}
