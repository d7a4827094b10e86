#pragma once
#include "common/base/arena.h"
#include "common/base/error.h"
#include <stddef.h>
#include <stdint.h>

enum {
    MANIFEST_FORMAT = 2, /**< 1: without precision and quantisation, which are f32 and none */
    MANIFEST_MAX_BYTES = 1 << 20,
    MANIFEST_MAX_CLASSES = 64,
    MANIFEST_MAX_OPERATING_POINTS = 32,
    MANIFEST_MAX_METRICS = 256,
    MANIFEST_MAX_VIEWS = 16,
    MANIFEST_MAX_QUANTISED = 1024,
};

/** A named threshold on one class's calibrated probability, with what it gave where it was fitted. */
struct manifest_operating_point {
    const char *name;                /**< "balanced", "sensitive", ...: what a request may ask for */
    const char *class_name;          /**< of the manifest's classes */
    double threshold;                /**< 0..1: at or above it the answer is positive */
    double sensitivity, specificity; /**< 0..1, on the validation part */
};

/** One figure and where it was measured. */
struct manifest_metric {
    const char *name;     /**< "accuracy", "auc.PNEUMONIA", ... */
    const char *data_set; /**< the data's name, never a path */
    const char *split;    /**< "validation", "test" */
    double value;
};

/** For whom the model was made: a request outside of it is answered with a warning. */
struct manifest_intended_use {
    double age_min_years, age_max_years; /**< inclusive, 0..150 */
    int view_count;
    const char **views; /**< DICOM view positions such as "AP"; none: any */
    const char *statement;
};

/** How the weights came to be. */
struct manifest_training {
    const char *config_digest; /**< SHA-256 of the configuration in force, hexadecimal; "" where imported */
    const char *run_name, *software_version;
    const char *finished_at; /**< "2026-11-23T01:02:03.456Z" */
    int64_t seed;
    int epochs;
};

/** How a node of the folded network is quantised: common/graph/quantise.h. */
struct manifest_quantised {
    const char *node;
    const char *computes; /**< "int8" or "f32" */
    const char *dtype;    /**< "u8" or "s8": what its output is kept in where integers are wanted */
    double scale;         /**< what 1 stands for there */
};

/** What the weights are weights of. */
struct manifest_architecture {
    const char *name; /**< a row of common/models/registry.h */
    const char *stem; /**< "7x7" or "3x3" */
    int input_channels, size;
};

/**
 * What a published model says of itself. It travels as JSON in the model file's metadata, under the key
 * "thorax". A manifest that was parsed owns its strings in `arena`; one that is filled in by hand may borrow
 * them from anywhere that lives long enough. Strings are never NULL after parsing.
 */
struct manifest {
    struct arena arena;
    int format;          /**< 1; 2 where the precision is not f32, which older programs must not take for f32 */
    const char *name;    /**< of the model: 1..100 of A-Z a-z 0-9 . _ - */
    const char *version; /**< 1..100 of the same */
    struct manifest_architecture architecture;
    const char *precision; /**< what the answers were measured in, and are computed in: "f32", "bf16" or "int8" */
    int quantised_count;   /**< int8 only */
    struct manifest_quantised *quantised;
    int class_count;
    const char **classes;      /**< in the order of the network's outputs; unique */
    const char *preprocessing; /**< the recipe as a JSON object in text: common/image/recipe.h reads it */
    double temperature;        /**< logits are divided by it before softmax; .01..100 */
    int operating_point_count;
    struct manifest_operating_point *operating_points; /**< unique names; the first is the default */
    int metric_count;
    struct manifest_metric *metrics;
    struct manifest_intended_use intended_use;
    const char *data_digest;    /**< SHA-256 of the training data, hexadecimal; "" where unknown */
    const char *weights_digest; /**< of the tensors (model_file_digest), hexadecimal */
    struct manifest_training training;
};

/** An empty manifest: format 1, temperature 1, ages 0..150, every string "". */
struct manifest manifest_empty(void);

/** Frees what parsing made. Harmless on a zeroed or finished one. */
void manifest_fini(struct manifest *manifest);

/**
 * Every value within its range, names unique and well-formed, text in UTF-8, numbers finite, operating points
 * about classes that exist. ERROR_INVALID names the field. manifest_parse and manifest_print call it.
 */
bool manifest_check(const struct manifest *manifest, struct error *err);

/**
 * Reads JSON of length bytes. Duplicate and missing keys, wrong types and whatever manifest_check refuses are
 * errors; a newer format is ERROR_UNSUPPORTED; keys that are not known are ignored. On error nothing is to be
 * freed.
 */
bool manifest_parse(const char *json, size_t length, struct manifest *out, struct error *err);

/** The manifest as owned JSON text (free()); `indent` 0 puts it on one line. NULL on error. Same manifest,
 * same text. */
char *manifest_print(const struct manifest *manifest, int indent, struct error *err);

/** The operating point of that name; "" or NULL: the first. NULL where there is none. */
const struct manifest_operating_point *manifest_operating_point(const struct manifest *manifest,
                                                                const char *name);

/** The class's index; -1 where there is none of that name. */
int manifest_class(const struct manifest *manifest, const char *name);
