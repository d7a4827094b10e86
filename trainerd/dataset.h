#pragma once
#include "common/base/arena.h"
#include "common/base/digest.h"
#include "common/base/error.h"

enum {
    DATASET_MAX_CLASSES = 16,
    DATASET_MAX_SAMPLES = 10000000,
    DATASET_MIN_VALIDATION =
        32, /**< a given validation part with fewer images of a class says nothing: it is split anew */
    DATASET_MAX_NOTES = 32,
};

enum dataset_part { DATASET_TRAIN, DATASET_VALIDATION, DATASET_TEST, DATASET_PARTS };

/** Folders whose images are of one class. Each holds images, or {train,val,test} folders of images. */
struct dataset_folders {
    const char *class_name;
    const char *const *folders; /**< (count), relative to the spec's directory, where it has one */
    int count;
};

/**
 * Where the images are. One of directory, mapping, manifest and npz names the main source (mapping may use
 * directory as the root of its folders). NULL and 0 mean absent. Borrows everything, until dataset_open
 * returns.
 */
struct dataset_spec {
    const char *const *class_names; /**< (classes), in the order of the labels; 0: NORMAL, PNEUMONIA and
                                       INVALID if it is there */
    int classes;
    const char *directory;                 /**< holds {train,val,test}/CLASS/image */
    const struct dataset_folders *mapping; /**< (mappings) instead of directory's layout */
    int mappings;
    const char
        *manifest;   /**< CSV with a header: path,class[,patient][,split]; paths relative to its own folder */
    const char *npz; /**< MedMNIST: {train,val,test}_{images,labels} */
    const char *invalid_directory; /**< folder of out-of-domain images, or of {train,val,test} of them: class
                                      INVALID */
    const char
        *validation_list; /**< with directory: a file of relative paths that form the validation part */
    double
        validation_fraction; /**< of each class, where a validation part is to be split off; 0: one tenth */
    uint64_t seed;           /**< of that split */
};

/** One image. Names and paths are about patients: they are never logged. */
struct dataset_sample {
    const char *name; /**< stable and unique, independent of where the data lies; samples are sorted by it */
    const char *path; /**< file, or NULL where pixels are here */
    const uint8_t *pixels; /**< (height, width, channels), or NULL */
    int height, width, channels;
    int32_t label;
    int32_t group; /**< patient: samples with equal numbers are of one; INT32 from 0 */
    enum dataset_part part;
    int line;              /**< of the manifest; 0 elsewhere */
    const char *patient;   /**< what the manifest says; NULL: from the name */
    struct digest content; /**< SHA-256 of the file, or of the pixels */
};

/**
 * A data set: what there is, in which part, of which patient. Immutable after dataset_open, so any thread may
 * read it.
 */
struct dataset {
    struct arena arena; /* names */
    int classes;
    const char *class_names[DATASET_MAX_CLASSES];
    struct dataset_sample *samples; /**< (count) */
    int64_t count;
    int64_t capacity;
    int32_t groups;                       /**< patients */
    const char *notes[DATASET_MAX_NOTES]; /**< what the caller should log: how parts were made, what was
                                             passed over */
    int note_count;
    struct digest digest;           /**< of names, labels and contents; not of the split */
    void *blobs[2 * DATASET_PARTS]; /* owned pixels and labels of an .npz */
    int blob_count;
};

/**
 * Finds the images, assigns patients, makes the parts and takes the digest (reads every file once). Decodes
 * nothing.
 *
 * Patients come from file names (Kermany's personN_bacteria_M, personN_virus_M, IM-N-M, NORMAL2-IM-N-M;
 * phantomN-M; else each file is its own) or the manifest. Without a validation part, or with one of fewer
 * than DATASET_MIN_VALIDATION images of some class, it and train are merged and split by patient, class by
 * class, in an order that follows from the seed alone.
 *
 * Errors: a folder or file that is not there; a class without training images; a broken manifest, list or
 * archive (with its line, never with a patient's file name). On failure *dataset is empty. dataset_close
 * frees.
 */
bool dataset_open(struct dataset *dataset, const struct dataset_spec *spec, struct error *err);

/** Frees; harmless on a zeroed data set. */
void dataset_close(struct dataset *dataset);

/** "train", "validation" or "test". */
const char *dataset_part_name(enum dataset_part part);

/** Images of that class in that part. */
int64_t dataset_count(const struct dataset *dataset, enum dataset_part part, int32_t label);
