#pragma once
#include "common/graph/plan.h"

#include <stdatomic.h>

/** Where a value's memory comes from. */
enum storage {
    STORAGE_ARENA,     /**< placed by lifetime */
    STORAGE_PARAMETER, /**< training: in the flat values buffer, or the running statistics; inference: the weight store */
    STORAGE_GRADIENT,  /**< in the flat gradients buffer */
    STORAGE_FIXED      /**< memory of its own for the plan's life: images, labels, loss */
};

/** One tensor of a plan: written once per run (in-place outputs are values of their own that share memory). */
struct value {
    struct tensor_desc desc;
    enum storage storage;
    int parameter;   /**< PARAMETER, GRADIENT: id in plan->graph */
    int copy_of;     /**< a reordered copy of that value, or -1 */
    int first, last; /**< steps that write and last read it */
    int root;        /**< the value whose memory it shares; itself where it has its own */
    size_t offset;   /**< in the arena */
    void *memory;
};

struct step {
    int node; /**< in plan->graph */
    struct kernel *kernel;
    int values[ARG_COUNT]; /**< by role; -1: absent */
    void *buffers[ARG_COUNT];
    bool blocks; /**< the ranks add up its ARG_SUMS before the next step */
};

struct segment {
    int first_step, step_count;
    int first_reduction, reduction_count;
    int first_bucket;   /**< of the reductions; one before it blocks: the ARG_SUMS of the segment's last step */
    struct event *done; /**< recorded behind the last step, where the device is asynchronous; else NULL */
    struct recording *recording; /**< of its steps; NULL: they are run one by one */
};

/** Where the next run's images wait on the device; all NULL in plans that stage none. */
struct staging {
    void *memory;
    struct stream *stream;  /**< that they are uploaded on */
    struct event *arrived;  /**< they are there */
    struct event *taken;    /**< the run has its copy: the memory is free */
    const void *images;     /**< the host's, while no run has taken them */
};

/**
 * The weights of inference plans, prepared once and shared by plans of several batch sizes and of several devices that share.
 * Plans that take weights out of it are made one after the other; once they have theirs they only read that memory, and let
 * go of the store on any thread.
 */
struct weight_store {
    atomic_int references;
    enum precision precision;
    struct graph *graph;           /**< folded */
    struct parameters *parameters; /**< folded */
    struct weight_entry {
        int parameter;
        struct tensor_desc desc;
        void *memory;
    } *entries;
    int count, capacity;
    size_t bytes;
};

/** A training plan's parameters: where each lies in the flat buffers. */
struct flat_parameter {
    int original;   /**< id in the graph that plan_create was given */
    int64_t offset; /**< in elements; -1: a running statistic with memory of its own */
    int value;      /**< id of its value */
    int gradient;   /**< id of its gradient's value, or -1 */
    int ready_step; /**< the step after which its gradient is complete */
};

struct plan {
    struct device *device;
    enum plan_mode mode;
    enum precision precision;
    int64_t batch;
    struct graph *graph;        /**< fused (owned), or the store's folded one (borrowed) */
    struct weight_store *store; /**< PLAN_INFER */

    struct value *values;
    int value_count, value_capacity;
    struct step *steps;
    int step_count, step_capacity;
    struct segment *segments;
    int segment_count;
    struct plan_reduction *reductions;
    int reduction_count;

    void *arena;
    size_t arena_bytes, arena_sum_bytes, arena_live_bytes, parameter_bytes;
    int images, labels, seed, class_weights, loss, logits; /**< value ids, -1: none */
    int *outputs; /**< plans that keep them: the value of each node's output; else NULL */

    struct flat_parameter *parameters; /**< PLAN_TRAIN, by parameter id of graph */
    int64_t flat_count;                /**< elements of each flat buffer */
    void *flat[PLAN_BUFFER_COUNT];
    void *decay, *hyper, *norm;
    void *update_scratch; /**< the larger of what the two kernels below want; NULL: none wants any */
    struct kernel *norm_kernel, *optimizer_kernel;
    float *class_weight_values; /**< PLAN_TRAIN: (K), before the loss is scaled */
    float loss_scale;
    int parts, part;       /**< of a step's batch, and which of them runs */
    float *held;           /**< parts > 1: the sum of the gradients of the parts before */
    struct kernel **sums;  /**< parts > 1: by reduction, adds to or from `held`; NULL for one that blocks */
    void *narrow;          /**< reductions in bf16: that copy of the gradients, flat_count elements; else NULL */
    struct kernel **narrowings, *widening; /**< into it, by reduction, and out of it, all at once */
    void *narrow_scratch;                  /**< what these want; NULL: nothing */
    size_t narrow_scratch_bytes;
    char fingerprint[65];

    struct recording *update; /**< of plan_update's kernels; NULL: they are run one by one */
    char unrecorded[256];     /**< why there are no recordings where the device makes some; else empty */
    struct staging staging;
};

/** Appends a value and returns its id, -1 where memory ends. */
int plan_add_value(struct plan *plan, const struct tensor_desc *desc, enum storage storage, struct error *err);

/** Emits the forward steps, and for training the loss and the backward steps. */
bool plan_compile(struct plan *plan, const struct plan_spec *spec, struct error *err);

/** Finds in-place outputs, places the arena's values by lifetime, allocates, and resolves every step's buffers. */
bool plan_place(struct plan *plan, struct error *err);

/** Training: orders the parameters by gradient readiness, cuts buckets and segments, allocates flat buffers. */
bool plan_make_state(struct plan *plan, const struct plan_spec *spec, struct error *err);
/** Points the reductions that block at what their steps write. After plan_place. */
void plan_bind_sums(struct plan *plan);
/** Frees the arena, the flat buffers and what else the plan holds on the device. */
void plan_free_state(struct plan *plan);

/** PLAN_TRAIN: brings the weights, running statistics and moving average. After plan_record, which spoils them. */
bool plan_load_values(struct plan *plan, const struct plan_spec *spec, struct error *err);

/** Runs a segment's steps, or the kernels of the update, one by one. */
bool plan_run_steps(struct plan *plan, int segment, struct error *err);
bool plan_run_update(struct plan *plan, int unused, struct error *err);
/** Where the device makes recordings: runs the plan once and takes it down. When all memory is in its place. */
bool plan_record(struct plan *plan, struct error *err);
void plan_free_recordings(struct plan *plan);

/** Where images are staged: memory, events and a stream for it. After plan_place. */
bool plan_prepare_transfer(struct plan *plan, struct error *err);
void plan_free_transfer(struct plan *plan);

/** Gradient accumulation over that many parts: memory and kernels. After plan_make_state. */
bool plan_prepare_parts(struct plan *plan, int parts, struct error *err);
void plan_free_parts(struct plan *plan);
/** Whether buckets of gradients are complete behind a segment. */
static inline bool segment_has_buckets(const struct segment *segment) {
    return segment->first_bucket < segment->first_reduction + segment->reduction_count;
}
/** Where a bucket lies in the flat gradients. */
static inline float *plan_bucket_gradients(const struct plan *plan, int reduction) {
    const struct plan_reduction *bucket = &plan->reductions[reduction];
    const char *summed = plan->narrow ? plan->narrow : plan->flat[PLAN_GRADIENTS];
    return (float *)plan->flat[PLAN_GRADIENTS] + ((const char *)bucket->buffer - summed) / (int64_t)dtype_size(bucket->dtype);
}
/** Puts a segment's buckets to those of the parts before. */
bool plan_sum_parts(struct plan *plan, const struct segment *segment, struct error *err);

/** Reductions in bf16, where the plan has such a buffer: kernels. After plan_make_state. */
bool plan_prepare_narrow(struct plan *plan, struct error *err);
void plan_free_narrow(struct plan *plan);
/** Rounds a segment's buckets into what the ranks add up. */
bool plan_narrow_buckets(struct plan *plan, const struct segment *segment, struct error *err);
/** The sums, all of them, back into the flat gradients. */
bool plan_widen_gradients(struct plan *plan, struct error *err);

/** Behind a segment's steps: what is to be done with its buckets before the collective gets them. */
bool plan_finish_buckets(struct plan *plan, const struct segment *segment, struct error *err);

/** Uploads a canonical tensor to device memory that is described by desc, reordering on the device; and back. */
bool plan_upload_tensor(struct device *device, const struct tensor *from, const struct tensor_desc *desc,
                        void *memory, struct error *err);
bool plan_download_tensor(struct device *device, const struct tensor_desc *desc, const void *memory,
                          struct tensor *to, struct error *err);

struct weight_store *weight_store_create(const struct plan_spec *spec, struct error *err);
/** One more reference. Returns the store. */
struct weight_store *weight_store_retain(struct weight_store *store);
/** One reference less; the last one frees the memory through the device, any of those that share. Takes NULL. */
void weight_store_release(struct weight_store *store, struct device *device);
/** The memory of a parameter in that layout, prepared now where no plan has asked for it before. NULL on error. */
void *weight_store_get(struct weight_store *store, struct device *device, int parameter, const struct tensor_desc *desc,
                       struct error *err);
