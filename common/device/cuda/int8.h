#pragma once
#include "common/device/cuda/internal.h"

/**
 * What the kinds on 8-bit integers share. Convolutions that are not in groups keep their weights packed, for cuBLAS: rows of s8,
 * then what a source of u8 lacks (kernels_int8_body.h); a layout that a reorder from the canonical one makes. Images are NHWC
 * wherever the choice is theirs.
 */
/** Of packed weights: rows and bytes of each, both as cuBLAS wants them, and where the sums are. */
struct packing {
    int64_t rows, depth;
    size_t sums_at, bytes;
};
struct packing cuda_packing_of(const struct shape *weight);
/** The packed description of weights. */
struct tensor_desc cuda_packed_desc(const struct shape *weight);

/** OP_REORDER: packs canonical weights, or changes the order of 8-bit images. */
extern const struct cuda_row cuda_packing, cuda_int8_reorder;

/** The kinds whose form for integers has a row of its own. */
extern const struct cuda_row cuda_int8_conv2d, cuda_int8_max_pool, cuda_int8_average_pool, cuda_rescale;
