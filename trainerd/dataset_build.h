#pragma once
#include "trainerd/dataset.h"

/* What the readers of data sets share; private to dataset*.c. */

/** Adds a sample; copies name, path and patient. Errors: too many samples, out of memory. */
bool dataset_add(struct dataset *dataset, const struct dataset_sample *sample, struct error *err);

/** Adds a note for the log; notes past DATASET_MAX_NOTES are dropped. Never with a file's name in it. */
void dataset_note(struct dataset *dataset, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** The label of that class name; -1 where there is none. */
int32_t dataset_label(const struct dataset *dataset, const char *class_name);

/** Takes memory that lives as long as the data set; frees it itself where there is no room. */
bool dataset_own(struct dataset *dataset, void *blob, struct error *err);

/** Parses "train", "val", "valid", "validation" or "test". */
bool dataset_part_parse(const char *text, enum dataset_part *out);

/** Readers: each adds the samples of its source. */
bool dataset_scan_layout(struct dataset *dataset, const struct dataset_spec *spec, struct error *err);
bool dataset_scan_mapping(struct dataset *dataset, const struct dataset_spec *spec, struct error *err);
bool dataset_scan_invalid(struct dataset *dataset, const struct dataset_spec *spec, struct error *err);
bool dataset_read_manifest(struct dataset *dataset, const char *path, struct error *err);
bool dataset_read_npz(struct dataset *dataset, const char *path, struct error *err);

/**
 * Makes the samples that a list file names the validation part. Images of a given validation part go to
 * train, where the list says something about their class, unless their patient is in the list. Wants sorted
 * samples with groups.
 */
bool dataset_apply_list(struct dataset *dataset, const char *path, struct error *err);

enum { DATASET_PATIENT_SIZE = 1024 };

/**
 * Writes the patient that a file name (or path) speaks of, e.g. "person12/virus"; the whole name where it
 * follows no known pattern.
 */
void dataset_patient(const char *name, char out[DATASET_PATIENT_SIZE]);

/** Numbers the patients. Errors: out of memory. */
bool dataset_assign_groups(struct dataset *dataset, struct error *err);

/** Splits off a validation part where none is given or it is too small, and notes what it did. */
bool dataset_split(struct dataset *dataset, double fraction, uint64_t seed, struct error *err);
