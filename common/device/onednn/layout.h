#pragma once
#include "common/device/device.h"
#include "common/device/onednn/compat.h"
#include "common/device/onednn/loops.h"

struct onednn_device;

/**
 * How oneDNN keeps a tensor of one shape and dtype. Interned by the devices that share, so that equal ones are the same
 * pointer; canonical ones are NULL. Immutable.
 */
struct layout {
    struct layout *next;
    struct md md; /**< with a dtype: that of the tensors that may have this layout */
    bool blocked; /**< blocking is filled in */
    struct blocking blocking;
};

/** The layouts of devices that share, counted by them. Any thread; its mutex is a leaf lock. */
struct layouts;
/** None yet, with one reference: its maker's. NULL where memory ends. */
struct layouts *layouts_create(void);
/** One more reference. Returns the layouts. */
struct layouts *layouts_retain(struct layouts *layouts);
/** One reference less; the last one frees them all. Takes NULL. */
void layouts_release(struct layouts *layouts);

/** The layout of a description, owned by the device's layouts; *out is NULL where it is row-major. Any thread. */
bool layout_intern(struct onednn_device *device, const struct md *md, const struct layout **out, struct error *err);

/**
 * The description of a tensor, owned by the caller: "any" for LAYOUT_ANY. `shape` stands in for the desc's own where oneDNN
 * sees other dimensions in the same elements (groups); a layout has them already.
 */
bool layout_describe(const struct tensor_desc *desc, const struct shape *shape, struct md *out, struct error *err);

/** ERROR_INVALID where a description's layout is one of tensors of another dtype: it would lie about the bytes. */
bool layout_check(const struct tensor_desc *desc, struct error *err);

/**
 * The layout in which tensors of another dtype are kept like this one, where that is NHWC or blocked by channels; else
 * row-major.
 */
bool layout_alike(struct onednn_device *device, const struct tensor_desc *desc, enum dtype dtype, const struct layout **out,
                  struct error *err);

/** As device_ops.layout_text, e.g. "f32:64x(3*16)x56x56:aBcd16b". */
const char *layout_text(struct device *device, const struct tensor_desc *desc, char *out, size_t size);

/**
 * A tensor of four dimensions as loops over channels see it, whatever its layout: for every image and every tile of up to
 * LANES channels, rows of `lanes` floats that lie `row_stride` apart. Planar layouts (NCHW) have one channel to a tile, whose
 * pixels are cut into rows; the last may be shorter.
 */
struct channel_view {
    int64_t images, channels, pixels, tiles;
    int64_t image_stride, tile_stride, row_stride; /**< in elements */
    int64_t rows;                                  /**< of one tile of one image */
    int lanes, last_lanes; /**< of all rows; planar: of the last row, else: of the last tile */
    bool planar;
};

/** False where the layout is none of NCHW, NHWC and NCHW blocked by 8 or 16 channels. */
bool channel_view_init(struct channel_view *view, const struct tensor_desc *desc);

/** Its format tag, which describes tensors of other shapes that are kept alike; dnnl_abcd where there is no view of it. */
dnnl_format_tag_t layout_tag(const struct tensor_desc *desc);
