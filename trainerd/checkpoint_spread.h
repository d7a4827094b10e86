#pragma once
#include "common/base/digest.h"
#include "common/device/device.h"
#include "trainerd/collective/collective.h"

/** A checkpoint on its way from one rank to those whose nodes lack it. Borrows everything. */
struct checkpoint_spread_spec {
    struct collective *collective;
    struct device *device; /**< whose memory the collective works in */
    int root;              /**< who has the file */
    const char *from;      /**< the root's file; elsewhere ignored */
    const char *to;        /**< where this rank writes it; NULL: it only takes part. Not of the root */
    size_t bytes;          /**< of the file, checked by the caller against what can be */
    struct digest digest;
    void (*alive)(void *context); /**< called between pieces, to say that this rank is getting on; may be NULL */
    void *context;
};

/**
 * Sends the file in pieces through the devices' memory; all ranks call it alike. What is received is checked against the digest
 * (ERROR_FORMAT), then written atomically and synced, with the folders above it.
 */
bool checkpoint_spread(const struct checkpoint_spread_spec *spec, struct error *err);
