#pragma once
#include "common/device/device.h"
#include "common/graph/parameters.h"
#include "common/op/precision.h"

/**
 * A plan binds a graph to a device, a batch size and a precision: every kernel prepared, every tensor placed in one arena by its
 * lifetime, nothing allocated per step. Training plans own the parameters, gradients and optimiser state in flat buffers, in f32
 * whatever the precision: what convolutions multiply is converted from them once a step.
 * One thread at a time, that of the device. Plans that share weights are created one after the other, by any threads; then each
 * runs on its device's thread, at the same time as the others.
 */
struct plan;

enum plan_mode { PLAN_INFER, PLAN_TRAIN };

struct plan_spec {
    const struct graph *graph;           /**< ends in logits (N, K); borrowed during create */
    const struct parameters *parameters; /**< values to start from, or to serve; borrowed during create */
    struct device *device;               /**< borrowed for the plan's life */
    enum plan_mode mode;
    enum precision precision; /**< F32, BF16 or F16; what is not on this device is ERROR_UNSUPPORTED */
    int64_t batch;            /**< images per run (of this rank) */
    bool keep_outputs;        /**< PLAN_INFER: every node's output stays readable after a run, at the price of its memory */
    /** PLAN_INFER: one of the same graph, parameters and precision, on this device or one that shares (device_spec.share),
     * whose weights are used too; or NULL. */
    struct plan *share;

    /* PLAN_TRAIN only: */
    int parts;                  /**< runs whose gradients make one step (gradient accumulation); 0: 1 */
    size_t bucket_bytes;        /**< gradients go to the collective in pieces of about this size (buckets.h); 0: 25 MiB */
    bool bf16_reductions; /**< gradients go to the collective rounded to bf16, which adds them so; plan_update takes f32 again */
    bool recompute;             /**< keep few activations and compute the others again in the backward pass */
    bool freeze_batch_norm;     /**< normalise with running statistics and leave them alone */
    bool synchronise_batch_norm; /**< statistics are of all ranks' images, by reductions that block; not beside freezing */
    /**
     * Makes its images itself, of pictures with their variations, by OP_VARY, where the device has that (plan_varies);
     * channels 0: takes images
     */
    struct vary vary;
    float label_smoothing;
    const float *class_weights; /**< (K), or NULL for ones */
    enum op_kind optimizer;     /**< OP_SGD or OP_ADAMW */
    bool ema;                   /**< keep a moving average of the weights */
};

/** Whether the device computes in the precision; the error says that it does not. */
bool plan_precision_supported(struct device *device, enum precision precision, enum plan_mode mode, struct error *err);

/** Prepares everything. NULL on error, naming the node. */
struct plan *plan_create(const struct plan_spec *spec, struct error *err);
/** Takes NULL. Plans that share weights may be destroyed in any order. */
void plan_destroy(struct plan *plan);

/** Why the plan runs kernel by kernel although its device makes recordings: NULL where it does not. Borrowed from the plan. */
const char *plan_unrecorded(const struct plan *plan);

/** PLAN_TRAIN: whether what the functions below call images are pictures with their variations: the rows of OP_VARY, bytes. */
bool plan_varies(const struct plan *plan);
/** Uploads images (N, C, H, W) f32, canonical, or takes those that were staged. */
bool plan_set_images(struct plan *plan, const void *images, struct error *err);
/** PLAN_TRAIN: whether images can be staged: on devices that run behind the host's back. */
bool plan_stages(const struct plan *plan);
/**
 * Begins to upload the images of the next run while the one before computes; from host_alloc'ed memory without waiting. They
 * stay as they are until that run is done, and plan_set_images of the same memory takes them.
 */
bool plan_stage_images(struct plan *plan, const void *images, struct error *err);
/** Waits for images that were staged and that no run takes; their memory is free then. */
bool plan_drop_staged(struct plan *plan, struct error *err);
/** PLAN_TRAIN: uploads labels (N) in [0, K), and what dropout draws from: the run's seed, the step, the
 * global index of the first image. */
bool plan_set_targets(struct plan *plan, const int32_t *labels, const int64_t seed[3], struct error *err);

/** A stretch of gradients (or statistics) that other ranks must add theirs to. */
struct plan_reduction {
    void *buffer; /**< device memory, in the plan's own layout (the same on all ranks whose fingerprints agree) */
    enum dtype dtype;
    int64_t count;
    bool blocking; /**< true: the next segment needs the sum (synchronised batch norm); false: only plan_update does */
    struct event *ready; /**< reached when the buffer is complete; NULL where running the segment already waits (CPUs) */
};

/**
 * The steps of a plan, cut where a reduction becomes ready: after running segment i, its reductions may start, while segment
 * i + 1 runs. An inference plan has one segment without reductions. All as data, so that a captured GPU graph and a CPU
 * loop run the same plan.
 */
int plan_segment_count(const struct plan *plan);
bool plan_run_segment(struct plan *plan, int segment, struct error *err);
int plan_reductions(const struct plan *plan, int segment, const struct plan_reduction **out);

/** What a run takes: `batch` images of `image_bytes` each (or what they are made of); `parts` runs make a step. */
struct plan_shape {
    int64_t batch;
    int parts;
    size_t image_bytes;
};
void plan_shape(const struct plan *plan, struct plan_shape *out);

/**
 * PLAN_TRAIN: says which part of a step's batch the next run is, 0 to parts - 1. Gradients of parts are summed: behind the last
 * one's segments the reductions hold the sum of all (HYPER_GRADIENT_SCALE makes a mean of it). Each part has batch statistics
 * of its own and moves the running ones; reductions that block are due in every part.
 */
void plan_set_part(struct plan *plan, int part);

/** Runs all segments; for plans that need no reduction: without one a synchronised batch norm sees this rank's images only. */
bool plan_run(struct plan *plan, struct error *err);

/** PLAN_TRAIN: gradient norm, clipping, optimiser and EMA, with these numbers (enum hyper). Skips the update
 * where a gradient is not finite. */
bool plan_update(struct plan *plan, const float hyper[HYPER_COUNT], struct error *err);

/** Waits for the device and reads back. logits: (N, K) f32. */
bool plan_read_logits(struct plan *plan, float *logits, struct error *err);
/** A node of the graph that runs (PLAN_INFER: folded), by its place; NULL past the last. For plans that keep outputs. */
const struct graph_node *plan_node(const struct plan *plan, int node);
/** What a node gave in the last run, canonical f32 (N, ...); the plan keeps outputs. Waits for the device. */
bool plan_read_output(struct plan *plan, int node, float *out, struct error *err);
/**
 * PLAN_TRAIN: multiplies the loss, and so all gradients, by that power of two from the next run on (1 until then). What
 * plan_read_loss gives is not multiplied; HYPER_GRADIENT_SCALE has to make up for it.
 */
bool plan_set_loss_scale(struct plan *plan, float scale, struct error *err);
float plan_loss_scale(const struct plan *plan);
/**
 * PLAN_TRAIN: queues the download of the loss below, times plan_loss_scale; it is there once the device has come so far. For
 * page-locked memory.
 */
bool plan_fetch_loss(struct plan *plan, float *loss, struct error *err);
/** PLAN_TRAIN: this rank's mean loss of the last run. */
bool plan_read_loss(struct plan *plan, float *loss, struct error *err);
/** PLAN_TRAIN, after plan_update: [0] the 2-norm of the scaled gradients, [1] the number of non-finite ones. */
bool plan_read_gradient_norm(struct plan *plan, float gradient_scale, double out[2], struct error *err);

/** The flat buffers of a training plan. */
enum plan_buffer { PLAN_VALUES, PLAN_GRADIENTS, PLAN_STATE, PLAN_STATE2, PLAN_EMA, PLAN_BUFFER_COUNT };
/** Whether the plan keeps that buffer (AdamW has a second state, EMA is optional). */
bool plan_has_buffer(const struct plan *plan, enum plan_buffer which);
/**
 * Copies a buffer to canonical host tensors, or back. Exact. Running statistics are part of PLAN_VALUES; in the other
 * buffers their tensors are left alone. `out` was made by parameters_create of the plan's graph.
 */
bool plan_export(struct plan *plan, enum plan_buffer which, struct parameters *out, struct error *err);
bool plan_import(struct plan *plan, enum plan_buffer which, const struct parameters *from, struct error *err);

struct plan_memory {
    size_t arena_bytes;      /**< activations, gradients of activations, workspaces, scratch: placed by lifetime */
    size_t arena_sum_bytes;  /**< what they would take side by side */
    size_t arena_live_bytes; /**< the most that is alive at once: no placing can do with less */
    size_t parameter_bytes;  /**< weights (all copies of this plan), gradients, optimiser state */
};
void plan_memory(const struct plan *plan, struct plan_memory *out);

/** Text that ranks must agree on: layouts, offsets and buckets of the flat buffers, one line each, digested.
 * 64 hexadecimal digits. */
const char *plan_fingerprint(const struct plan *plan);

/** One prepared kernel in its place, for profiles and benchmarks. */
struct plan_step {
    const char *name;            /**< the node's name */
    const struct kernel *kernel; /**< borrowed */
    double flops;
    size_t bytes; /**< of all arguments that it reads and writes, each counted once */
};
int plan_step_count(const struct plan *plan);
void plan_describe_step(const struct plan *plan, int step, struct plan_step *out);
/** Runs one step alone on whatever its buffers hold: for timing. */
bool plan_run_step(struct plan *plan, int step, struct error *err);
