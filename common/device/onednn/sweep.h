#pragma once
#include "common/device/onednn/kernel.h"

/**
 * Two sweeps over a tensor, channel by channel: gather sums, then apply what follows from them. One thread
 * takes a group of tiles through both sweeps, so that the second finds in its cache what the first brought
 * in; groups that are left over when all threads have had as many share their images out instead. A group is one
 * tile, or several where their channels lie side by side in memory (NHWC). Sums are kept per image and merged in
 * the images' order, so the result is the same bits for any number of threads.
 */

struct sweep {
    struct onednn_device *device;
    struct channel_view view;
    const struct row_loops *loops; /**< for the tensors' element type */
    struct norm_rows base;         /**< pointers to the first element of every tensor; the sweep moves them */
    struct lane_sums *leftover;    /**< sweep_scratch_bytes of ARG_SCRATCH */
    const void *context;

    /** Adds what these rows hold to the sums of each tile. NULL: nothing is gathered, `finish` gets zeros. */
    void (*gather)(const struct norm_rows *rows, struct lane_sums *sums);
    void (*merge)(struct lane_sums *into, const struct lane_sums *from);
    /** From the sums of a tile to its numbers; where `publish` is set also to the results that are kept. */
    void (*finish)(const struct sweep *sweep, int64_t tile, const struct lane_sums *sums, bool publish,
                   struct norm_lanes *numbers);
    /** NULL: the sums were all that was asked for. */
    void (*apply)(const struct norm_rows *rows);
};

/**
 * True where writing such a tensor past the cache pays: it is more than a core's cache keeps for the next
 * kernel, so that the lines would be read from memory only to be overwritten; and all whole rows start on
 * cache lines.
 */
bool sweep_streams(const struct channel_view *view, size_t element_bytes, const void *to);

size_t sweep_scratch_bytes(const struct onednn_device *device, const struct channel_view *view);
void sweep_run(const struct sweep *sweep);

/** Bytes of the masks: one bit per lane of every row. */
size_t sweep_mask_bytes(const struct channel_view *view);

/** The channel of a lane of a tile; -1 where it is padding. */
int64_t sweep_channel(const struct channel_view *view, int64_t tile, int lane);

/** Sums merge by adding; moments as Chan, Golub & LeVeque, "Updating formulae", 1979. */
void sweep_merge_sums(struct lane_sums *into, const struct lane_sums *from);
void sweep_merge_moments(struct lane_sums *into, const struct lane_sums *from);

/** In planar layouts all lanes are of one channel: folds them, with the sweep's merge, into each. */
void sweep_fold(const struct sweep *sweep, struct lane_sums *sums);
