#include "common/device/onednn/layout.h"

#include "common/device/onednn/kernel.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct layouts {
    pthread_mutex_t mutex; /* guards all below */
    int references;
    struct layout *first;
};

static bool is_row_major(const struct blocking *b) {
    int64_t stride = 1;
    if (b->inner_count)
        return false;
    for (int i = b->rank; i-- > 0; stride *= b->dims[i])
        if (b->padded_dims[i] != b->dims[i] || (b->dims[i] != 1 && b->strides[i] != stride))
            return false;
    return true;
}

/* What stands behind the elements: sums over 8-bit weights, by which oneDNN makes up for what it adds to a source of s8. */
static size_t appendix_bytes(const struct md *md, const struct blocking *b) {
    size_t bytes = dnnl_data_type_size(md_type(md));
    for (int i = 0; i < b->rank; i++)
        bytes *= (size_t)b->padded_dims[i];
    return md_bytes(md) > bytes ? md_bytes(md) - bytes : 0;
}

static struct layout *layout_create(const struct md *md, struct error *err) {
    struct layout *layout = calloc(1, sizeof *layout);
    if (!layout || !md_copy(&layout->md, md, err)) {
        free(layout);
        if (!layout)
            error_set(err, ERROR_MEMORY, "out of memory for a layout");
        return NULL;
    }
    layout->blocked = md_blocking(md, &layout->blocking);
    return layout;
}

/* Locked. NULL on error. */
static const struct layout *find_or_add(struct layouts *layouts, const struct md *md, struct error *err) {
    for (const struct layout *known = layouts->first; known; known = known->next)
        if (md_equal(&known->md, md))
            return known;
    struct layout *layout = layout_create(md, err);
    if (layout) {
        layout->next = layouts->first;
        layouts->first = layout;
    }
    return layout;
}

bool layout_intern(struct onednn_device *device, const struct md *md, const struct layout **out, struct error *err) {
    struct blocking blocking;
    *out = NULL;
    if (!md->present || (md_blocking(md, &blocking) && is_row_major(&blocking) && appendix_bytes(md, &blocking) == 0))
        return true;
    pthread_mutex_lock(&device->layouts->mutex);
    *out = find_or_add(device->layouts, md, err);
    pthread_mutex_unlock(&device->layouts->mutex);
    return *out != NULL;
}

bool layout_describe(const struct tensor_desc *desc, const struct shape *shape, struct md *out, struct error *err) {
    if (desc->layout == LAYOUT_ANY)
        return md_tagged(out, desc->dtype, shape, dnnl_format_tag_any, err);
    if (desc->layout)
        return md_copy(out, &desc->layout->md, err);
    return md_dense(out, desc->dtype, shape, err);
}

bool layout_check(const struct tensor_desc *desc, struct error *err) {
    if (!desc->layout || desc->layout == LAYOUT_ANY || md_type(&desc->layout->md) == compat_dtype(desc->dtype))
        return true;
    return error_set(err, ERROR_INVALID, "a %s tensor with a layout of another dtype", dtype_name(desc->dtype));
}

bool layout_alike(struct onednn_device *device, const struct tensor_desc *desc, enum dtype dtype, const struct layout **out,
                  struct error *err) {
    struct md md = {0};
    *out = NULL;
    if (desc->shape.rank != 4)
        return true;
    bool good = md_tagged(&md, dtype, &desc->shape, layout_tag(desc), err) && layout_intern(device, &md, out, err);
    md_fini(&md);
    return good;
}

struct layouts *layouts_create(void) {
    struct layouts *layouts = calloc(1, sizeof *layouts);
    if (layouts) {
        pthread_mutex_init(&layouts->mutex, NULL);
        layouts->references = 1;
    }
    return layouts;
}

struct layouts *layouts_retain(struct layouts *layouts) {
    pthread_mutex_lock(&layouts->mutex);
    layouts->references++;
    pthread_mutex_unlock(&layouts->mutex);
    return layouts;
}

void layouts_release(struct layouts *layouts) {
    if (!layouts)
        return;
    pthread_mutex_lock(&layouts->mutex);
    bool last = --layouts->references == 0;
    pthread_mutex_unlock(&layouts->mutex);
    if (!last)
        return;
    while (layouts->first) {
        struct layout *layout = layouts->first;
        layouts->first = layout->next;
        md_fini(&layout->md);
        free(layout);
    }
    pthread_mutex_destroy(&layouts->mutex);
    free(layouts);
}

/* The order of a blocked layout as oneDNN's format tags spell it: outer dimensions by falling stride (upper
 * case where an inner block splits them), then the inner blocks. */
static void tag_text(const struct blocking *b, char *out, size_t size) {
    bool used[SHAPE_MAX_RANK] = {0}, split[SHAPE_MAX_RANK] = {0};
    size_t length = 0;
    for (int i = 0; i < b->inner_count; i++)
        split[b->inner_dims[i]] = true;
    for (int i = 0; i < b->rank && length + 1 < size; i++) {
        int widest = -1;
        for (int j = 0; j < b->rank; j++)
            if (!used[j] && (widest < 0 || b->strides[j] > b->strides[widest]))
                widest = j;
        used[widest] = true;
        out[length++] = (char)((split[widest] ? 'A' : 'a') + widest);
    }
    out[length] = '\0';
    for (int i = 0; i < b->inner_count && length + 1 < size; i++) {
        int wrote = snprintf(out + length, size - length, "%lld%c", (long long)b->inner_blocks[i], 'a' + b->inner_dims[i]);
        length += wrote > 0 ? (size_t)wrote : 0;
    }
}

const char *layout_text(struct device *device, const struct tensor_desc *desc, char *out, size_t size) {
    char shape[SHAPE_TEXT_SIZE], tag[64];
    (void)device;
    shape_text(&desc->shape, shape);
    if (desc->layout == LAYOUT_ANY) {
        snprintf(out, size, "%s %s any", dtype_name(desc->dtype), shape);
    } else if (!desc->layout || !desc->layout->blocked) {
        snprintf(out, size, "%s %s %s", dtype_name(desc->dtype), shape, desc->layout ? "opaque" : "dense");
    } else {
        tag_text(&desc->layout->blocking, tag, sizeof tag);
        size_t more = appendix_bytes(&desc->layout->md, &desc->layout->blocking);
        int used = snprintf(out, size, "%s %s %s", dtype_name(desc->dtype), shape, tag);
        if (more && used >= 0 && (size_t)used < size)
            snprintf(out + used, size - (size_t)used, " +%zu bytes", more);
    }
    return out;
}

static void view_planar(struct channel_view *v) {
    v->planar = true;
    v->tiles = v->channels;
    v->tile_stride = v->pixels;
    v->image_stride = v->channels * v->pixels;
    v->rows = (v->pixels + LANES - 1) / LANES;
    v->row_stride = v->lanes = LANES;
    v->last_lanes = (int)(v->pixels - (v->rows - 1) * LANES);
}

static void view_last(struct channel_view *v) {
    v->tiles = (v->channels + LANES - 1) / LANES;
    v->tile_stride = v->lanes = LANES;
    v->rows = v->pixels;
    v->row_stride = v->channels;
    v->image_stride = v->channels * v->pixels;
    v->last_lanes = (int)(v->channels - (v->tiles - 1) * LANES);
}

/* Padding channels are part of the rows: with zero parameters they stay zero. */
static void view_blocked(struct channel_view *v, int block) {
    v->tiles = (v->channels + block - 1) / block;
    v->lanes = v->last_lanes = block;
    v->row_stride = block;
    v->rows = v->pixels;
    v->tile_stride = v->pixels * block;
    v->image_stride = v->tiles * v->tile_stride;
}

static bool strides_are(const struct blocking *b, const int64_t expected[4]) {
    for (int i = 0; i < 4; i++)
        if (b->padded_dims[i] > 1 && b->strides[i] != expected[i])
            return false;
    return true;
}

bool channel_view_init(struct channel_view *view, const struct tensor_desc *desc) {
    const int64_t *dims = desc->shape.dims;
    if (desc->shape.rank != 4 || desc->layout == LAYOUT_ANY)
        return false;
    *view = (struct channel_view){.images = dims[0], .channels = dims[1], .pixels = dims[2] * dims[3]};
    if (!desc->layout) {
        view_planar(view);
        return true;
    }
    const struct blocking *b = &desc->layout->blocking;
    if (!desc->layout->blocked || b->padded_dims[0] != dims[0] || b->padded_dims[2] != dims[2] || b->padded_dims[3] != dims[3])
        return false;
    if (b->inner_count == 0 && b->padded_dims[1] == dims[1]) {
        view_last(view);
        return strides_are(b, (const int64_t[]){view->image_stride, 1, dims[3] * dims[1], dims[1]});
    }
    int64_t block = b->inner_blocks[0];
    if (b->inner_count != 1 || b->inner_dims[0] != 1 || (block != 8 && block != LANES))
        return false;
    view_blocked(view, (int)block);
    /* The outer part of the channels counts blocks: a single one may have any stride. */
    int64_t tile_stride = view->tiles == 1 ? b->strides[1] : view->tile_stride;
    return strides_are(b, (const int64_t[]){view->image_stride, tile_stride, dims[3] * block, block});
}

dnnl_format_tag_t layout_tag(const struct tensor_desc *desc) {
    struct channel_view view;
    if (!channel_view_init(&view, desc) || view.planar)
        return dnnl_abcd;
    if (desc->layout->blocking.inner_count == 0)
        return dnnl_acdb;
    return view.lanes == LANES ? dnnl_aBcd16b : dnnl_aBcd8b;
}
