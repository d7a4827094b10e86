#pragma once
#include "common/base/error.h"

/** What decides how a global batch is cut. */
struct cluster_batch {
    int images;        /**< of a step, over all ranks and parts */
    int ranks, parts;  /**< as configured: all nodes' ranks, and the parts of each one's share */
    bool keeps_parts;  /**< batch norm's statistics are of all ranks' images: their number in a part decides nothing */
};

/** Whether all ranks can share the batch evenly: else ERROR_INVALID, with the numbers. */
bool cluster_shape_check(const struct cluster_batch *batch, struct error *err);

/**
 * How many of the ranks that are there take part, and in how many parts each computes its share: as many ranks as can share the
 * batch evenly, and where it comes out even the number of images in a part stays as configured, so that batch norm goes on to
 * see as many images and a rank needs no more memory than before. available at least 1. Ranks that are left over wait.
 */
void cluster_shape(const struct cluster_batch *batch, int available, int *ranks, int *parts);
