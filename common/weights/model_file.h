#pragma once
#include "common/base/digest.h"
#include "common/base/file.h"
#include "common/graph/parameters.h"
#include "common/models/registry.h"
#include "common/weights/manifest.h"
#include "common/weights/safetensors.h"

/**
 * A model as one safetensors file: the network's parameters under their names, the manifest as metadata
 * "thorax", and extra tensors whose names start with "golden.", for the self-test (golden.images u8
 * (G,1,H,W), golden.probabilities f32 (G,K)).
 */
struct model_file {
    struct file_map map; /**< must not be changed by others while open: model files are written once and
                            renamed into place */
    struct safetensors tensors;
    struct manifest manifest;
};

#define MODEL_FILE_METADATA "thorax"
#define MODEL_FILE_EXTRA    "golden."

/** What model_file_save writes. All borrowed. */
struct model_content {
    const struct graph *graph;
    const struct parameters *parameters;
    const struct manifest *manifest;         /**< its weights_digest is not looked at: it is computed */
    const struct safetensors_tensor *extras; /**< names with "golden." in front */
    int extra_count;
};

/** Writes the file atomically. The same content gives the same bytes, and so the same digest. */
bool model_file_save(const char *path, const struct model_content *content, struct error *err);

/**
 * Maps and checks a file: format, manifest, and that the weights are those whose digest the manifest names.
 * Everything in it is hostile until then. On error nothing is to be closed.
 */
bool model_file_open(const char *path, struct model_file *out, struct error *err);

/** Harmless on a zeroed or closed one. */
void model_file_close(struct model_file *file);

/** What to build the graph from; strings are borrowed from the file. Dropout is 0. */
struct model_spec model_file_spec(const struct model_file *file);

/**
 * Copies the file's weights into parameters of the graph. A tensor that is missing, surplus, of another shape
 * or type is an error that names it; ERROR_FORMAT also where a weight is not finite, or a running variance
 * negative.
 */
bool model_file_load(const struct model_file *file, const struct graph *graph, struct parameters *parameters,
                     struct error *err);

/** As model_file_load, from any safetensors file with the graph's names: checkpoints, exchange. */
bool model_file_load_tensors(const struct safetensors *tensors, const struct graph *graph,
                             struct parameters *parameters, struct error *err);

/** An owned copy of the extra tensor of that name, which must have that type and rank. */
bool model_file_extra(const struct model_file *file, const char *name, enum dtype dtype, int rank,
                      struct tensor *out, struct error *err);

/** SHA-256 over name, type, shape and bytes of all tensors but the extra ones, in the order of their names.
 */
bool model_file_digest(const struct safetensors_tensor *tensors, int count, struct digest *out,
                       struct error *err);
