#include "common/base/rng.h"
#include "trainerd/dataset_build.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Skips a run of digits; NULL where there is none. */
static const char *skip_digits(const char *text) {
    if (!isdigit((unsigned char)*text))
        return NULL;
    while (isdigit((unsigned char)*text))
        text++;
    return text;
}

/* "personN_bacteria_..." or "personN_virus_...": both kinds number their patients from 1. Returns the end of
 * the kind. */
static const char *match_person(const char *file) {
    const char *end = strncmp(file, "person", 6) == 0 ? skip_digits(file + 6) : NULL;
    if (end && strncmp(end, "_bacteria_", 10) == 0)
        return end + 9;
    return end && strncmp(end, "_virus_", 7) == 0 ? end + 6 : NULL;
}

/* "IM-N-..." and "NORMAL2-IM-N-...". Returns the end of N. */
static const char *match_study(const char *file) {
    const char *start = file;
    if (strncmp(file, "NORMAL", 6) == 0 && (start = skip_digits(file + 6)))
        start += *start == '-';
    const char *end = start && strncmp(start, "IM-", 3) == 0 ? skip_digits(start + 3) : NULL;
    return end && *end == '-' ? end : NULL;
}

static const char *match_phantom(const char *file) {
    const char *end = strncmp(file, "phantom", 7) == 0 ? skip_digits(file + 7) : NULL;
    return end && *end == '-' ? end : NULL;
}

void dataset_patient(const char *name, char out[DATASET_PATIENT_SIZE]) {
    static const char *(*const patterns[])(const char *file) = {match_person, match_study, match_phantom};
    const char *slash = strrchr(name, '/'), *file = slash ? slash + 1 : name;
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        const char *end = patterns[i](file);
        if (end && end - file < DATASET_PATIENT_SIZE) {
            snprintf(out, DATASET_PATIENT_SIZE, "%.*s", (int)(end - file), file);
            return;
        }
    }
    /* The end of a long path tells files apart, not its beginning. */
    size_t length = strlen(name);
    snprintf(out, DATASET_PATIENT_SIZE, "/%s",
             length > DATASET_PATIENT_SIZE - 2 ? name + length - (DATASET_PATIENT_SIZE - 2) : name);
}

struct keyed {
    const char *patient;
    int64_t index;
};

static int by_patient(const void *left, const void *right) {
    const struct keyed *a = left, *b = right;
    int order = strcmp(a->patient, b->patient);
    return order ? order : (a->index > b->index) - (a->index < b->index);
}

static bool key_samples(struct dataset *dataset, struct arena *arena, struct keyed *keyed) {
    for (int64_t i = 0; i < dataset->count; i++) {
        const struct dataset_sample *sample = &dataset->samples[i];
        char patient[DATASET_PATIENT_SIZE];
        if (!sample->patient)
            dataset_patient(sample->name, patient);
        const char *key = sample->patient ? sample->patient : arena_copy(arena, patient, strlen(patient));
        if (!key)
            return false;
        keyed[i] = (struct keyed){key, i};
    }
    return true;
}

bool dataset_assign_groups(struct dataset *dataset, struct error *err) {
    struct arena arena;
    arena_init(&arena, 0);
    struct keyed *keyed = malloc((size_t)dataset->count * sizeof *keyed);
    bool ok = keyed && key_samples(dataset, &arena, keyed);
    if (ok) {
        qsort(keyed, (size_t)dataset->count, sizeof *keyed, by_patient);
        for (int64_t i = 0; i < dataset->count; i++) {
            dataset->groups += i == 0 || strcmp(keyed[i].patient, keyed[i - 1].patient) != 0;
            dataset->samples[keyed[i].index].group = dataset->groups - 1;
        }
    }
    free(keyed);
    arena_fini(&arena);
    return ok || error_set(err, ERROR_MEMORY, "data set: out of memory");
}

/* Per patient: how many images of each class there are to split, and which class the patient counts for. */
struct patients {
    int64_t (*counts)[DATASET_MAX_CLASSES]; /* (groups) */
    int32_t *order;                         /* (groups) scratch: the patients of one class, shuffled */
    bool *chosen;                           /* (groups) for validation */
};

static void patients_fini(struct patients *patients) {
    free(patients->counts);
    free(patients->order);
    free(patients->chosen);
}

static bool patients_init(struct patients *patients, const struct dataset *dataset) {
    size_t groups = (size_t)dataset->groups;
    *patients =
        (struct patients){calloc(groups, sizeof *patients->counts), calloc(groups, sizeof *patients->order),
                          calloc(groups, sizeof *patients->chosen)};
    if (!patients->counts || !patients->order || !patients->chosen)
        return false;
    for (int64_t i = 0; i < dataset->count; i++)
        if (dataset->samples[i].part != DATASET_TEST)
            patients->counts[dataset->samples[i].group][dataset->samples[i].label]++;
    return true;
}

/* The class that most of the patient's images are of; -1 where there are none to split. */
static int32_t main_class(const struct patients *patients, int32_t group, int classes) {
    int32_t best = -1;
    for (int32_t label = 0; label < classes; label++)
        if (patients->counts[group][label] > (best < 0 ? 0 : patients->counts[group][best]))
            best = label;
    return best;
}

static int32_t shuffled_patients(struct patients *patients, const struct dataset *dataset, int32_t label,
                                 uint64_t seed) {
    int32_t count = 0;
    for (int32_t group = 0; group < dataset->groups; group++)
        if (main_class(patients, group, dataset->classes) == label)
            patients->order[count++] = group;
    struct rng rng;
    rng_init(&rng, seed, RNG_SPLIT, (uint64_t)label, 0);
    for (int32_t i = count - 1; i > 0; i--) {
        int32_t other = (int32_t)rng_below(&rng, (uint32_t)i + 1), held = patients->order[i];
        patients->order[i] = patients->order[other];
        patients->order[other] = held;
    }
    return count;
}

/* Takes patients in shuffled order until the class has its fraction; one patient at least stays in train. */
static void choose_patients(struct patients *patients, const struct dataset *dataset, int32_t label,
                            double fraction, uint64_t seed) {
    int32_t count = shuffled_patients(patients, dataset, label, seed);
    int64_t total = 0, taken = 0;
    for (int32_t i = 0; i < count; i++)
        total += patients->counts[patients->order[i]][label];
    int64_t target = llround((double)total * fraction);
    target = target > 0 ? target : 1;
    for (int32_t i = 0; i + 1 < count && taken < target; i++) {
        patients->chosen[patients->order[i]] = true;
        taken += patients->counts[patients->order[i]][label];
    }
}

static int64_t smallest_class(const struct dataset *dataset, enum dataset_part part, int32_t *label) {
    int64_t least = INT64_MAX;
    for (int32_t i = 0; i < dataset->classes; i++) {
        int64_t count = dataset_count(dataset, part, i);
        if (count < least) {
            least = count;
            *label = i;
        }
    }
    return least;
}

static void note_split(struct dataset *dataset, bool given, int64_t smallest, int32_t label,
                       double fraction) {
    if (given)
        dataset_note(dataset,
                     "the given validation part has %lld images of class %s, fewer than %d: merged into "
                     "train and split "
                     "anew by patient, %.3g of each class",
                     (long long)smallest, dataset->class_names[label], DATASET_MIN_VALIDATION, fraction);
    else
        dataset_note(dataset, "no validation part is given: %.3g of each class split off by patient",
                     fraction);
    int64_t now = smallest_class(dataset, DATASET_VALIDATION, &label);
    if (now < DATASET_MIN_VALIDATION)
        dataset_note(dataset, "the validation part has only %lld images of class %s: its figures mean little",
                     (long long)now, dataset->class_names[label]);
}

bool dataset_split(struct dataset *dataset, double fraction, uint64_t seed, struct error *err) {
    int32_t label = 0;
    int64_t smallest = smallest_class(dataset, DATASET_VALIDATION, &label), given = 0;
    if (smallest >= DATASET_MIN_VALIDATION)
        return true;
    for (int32_t i = 0; i < dataset->classes; i++)
        given += dataset_count(dataset, DATASET_VALIDATION, i);
    struct patients patients;
    bool ok = patients_init(&patients, dataset);
    for (int32_t i = 0; ok && i < dataset->classes; i++)
        choose_patients(&patients, dataset, i, fraction, seed);
    for (int64_t i = 0; ok && i < dataset->count; i++) {
        struct dataset_sample *sample = &dataset->samples[i];
        if (sample->part != DATASET_TEST)
            sample->part = patients.chosen[sample->group] ? DATASET_VALIDATION : DATASET_TRAIN;
    }
    patients_fini(&patients);
    if (!ok)
        return error_set(err, ERROR_MEMORY, "data set: out of memory");
    note_split(dataset, given > 0, smallest, label, fraction);
    return true;
}
