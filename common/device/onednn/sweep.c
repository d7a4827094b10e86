#include "common/device/onednn/sweep.h"

#include "common/device/onednn/team.h"

#include <string.h>

enum {
    CHUNK_ROWS = 256, /* at a time, so that float sums stay short */
    LINE_BYTES = 64,
    AHEAD_BYTES = 8 << 10, /* of wide rows: far enough to be there in time, near enough to stay in the first-level cache */
};

/* Tiles that lie side by side in memory are one group, so that it is gone through in its own order. */
static int64_t group_tiles(const struct channel_view *view) {
    bool side_by_side = !view->planar && view->tile_stride < view->row_stride;
    return !side_by_side ? 1 : view->tiles < MOST_TILES ? view->tiles : MOST_TILES;
}

/* A tile that is not full, among others that are, is a group of its own. */
static int64_t full_tiles(const struct channel_view *view) {
    return group_tiles(view) > 1 && view->last_lanes < LANES ? view->tiles - 1 : view->tiles;
}

static int64_t count_groups(const struct channel_view *view) {
    int64_t full = full_tiles(view), most = group_tiles(view);
    return (full + most - 1) / most + (view->tiles - full);
}

static int64_t first_tile(const struct channel_view *view, int64_t group) {
    int64_t first = group * group_tiles(view), full = full_tiles(view);
    return first < full ? first : group < count_groups(view) ? full : view->tiles;
}

/* Groups that threads take whole; each has as many of them. */
static int64_t whole_groups(const struct channel_view *view, int threads) {
    return count_groups(view) / threads * threads;
}

bool sweep_streams(const struct channel_view *view, size_t element_bytes, const void *to) {
    enum { WORTH_BYTES = 4 << 20 };
    int64_t size = (int64_t)element_bytes, bytes = view->images * view->image_stride * size;
    bool whole_lines = view->row_stride == LANES || view->row_stride * size % LINE_BYTES == 0;
    return bytes >= WORTH_BYTES && (uintptr_t)to % LINE_BYTES == 0 && whole_lines &&
           view->tile_stride % LANES == 0 && view->image_stride % LANES == 0;
}

size_t sweep_scratch_bytes(const struct onednn_device *device, const struct channel_view *view) {
    int64_t leftover = view->tiles - first_tile(view, whole_groups(view, device->threads));
    return (size_t)(leftover * view->images) * sizeof(struct lane_sums);
}

size_t sweep_mask_bytes(const struct channel_view *view) {
    return (size_t)(view->images * view->tiles * view->rows) * sizeof(uint16_t);
}

int64_t sweep_channel(const struct channel_view *view, int64_t tile, int lane) {
    int64_t channel = view->planar ? tile : tile * view->lanes + lane;
    return channel < view->channels && lane < view->lanes ? channel : -1;
}

void sweep_merge_sums(struct lane_sums *into, const struct lane_sums *from) {
    for (int i = 0; i < LANES; i++) {
        into->count[i] += from->count[i];
        into->first[i] += from->first[i];
        into->second[i] += from->second[i];
    }
}

void sweep_merge_moments(struct lane_sums *into, const struct lane_sums *from) {
    for (int i = 0; i < LANES; i++) {
        double count = into->count[i] + from->count[i], apart = from->first[i] - into->first[i];
        if (from->count[i] == 0)
            continue;
        into->first[i] += apart * from->count[i] / count;
        into->second[i] += from->second[i] + apart * apart * into->count[i] * from->count[i] / count;
        into->count[i] = count;
    }
}

static void take_lane(struct lane_sums *to, int to_lane, const struct lane_sums *from, int from_lane) {
    to->count[to_lane] = from->count[from_lane];
    to->first[to_lane] = from->first[from_lane];
    to->second[to_lane] = from->second[from_lane];
}

void sweep_fold(const struct sweep *sweep, struct lane_sums *sums) {
    struct lane_sums total = {0}, one;
    if (!sweep->view.planar)
        return;
    for (int lane = 0; lane < LANES; lane++) {
        one = (struct lane_sums){0};
        take_lane(&one, 0, sums, lane);
        sweep->merge(&total, &one);
    }
    for (int lane = 0; lane < LANES; lane++)
        take_lane(sums, lane, &total, 0);
}

/* A group of tiles, and what is gathered and worked out of each. */
struct group {
    int64_t first, count;
    struct norm_lanes numbers[MOST_TILES];
    struct lane_sums sums[MOST_TILES];
};

static const void *moved(const struct sweep *sweep, const void *base, int64_t at) {
    return base ? (const char *)base + at * (int64_t)sweep->loops->element_bytes : NULL;
}

static void *moved_out(const struct sweep *sweep, void *base, int64_t at) {
    return base ? (char *)base + at * (int64_t)sweep->loops->element_bytes : NULL;
}

/* Points every tensor at a row of a group's first tile of an image. */
static void point_to(const struct sweep *sweep, int64_t image, int64_t tile, int64_t row, struct norm_rows *out) {
    const struct channel_view *v = &sweep->view;
    const struct norm_rows *base = &sweep->base;
    bool wide = group_tiles(v) > 1;
    int64_t at = image * v->image_stride + tile * v->tile_stride + row * v->row_stride;
    int64_t mask_at = image * v->tiles * v->rows + (wide ? row * v->tiles + tile : tile * v->rows + row);
    out->src = moved(sweep, base->src, at);
    out->residual = moved(sweep, base->residual, at);
    out->diff_dst = moved(sweep, base->diff_dst, at);
    out->dst = moved_out(sweep, base->dst, at);
    out->diff_src = moved_out(sweep, base->diff_src, at);
    out->diff_residual = moved_out(sweep, base->diff_residual, at);
    out->mask = base->mask ? base->mask + mask_at : NULL;
    out->mask_out = base->mask_out ? base->mask_out + mask_at : NULL;
    out->mask_stride = wide ? v->tiles : 1;
}

/* The rows of a group from `row` on that can be gone through at once. Returns the row after them. */
static int64_t rows_at(const struct sweep *sweep, int64_t image, const struct group *group, int64_t row, struct norm_rows *out) {
    const struct channel_view *v = &sweep->view;
    int64_t full_rows = v->rows - (v->planar && v->last_lanes < LANES), left = row < full_rows ? full_rows - row : 1;
    bool whole_rows = v->row_stride == group->count * LANES;
    bool last = v->planar ? row >= full_rows : group->first + group->count == v->tiles;
    *out = sweep->base;
    out->stride = v->row_stride;
    out->rows = left < CHUNK_ROWS ? left : CHUNK_ROWS;
    out->lanes = last ? v->last_lanes : v->lanes;
    out->tiles = (int)group->count;
    out->ahead = whole_rows ? AHEAD_BYTES / (int64_t)sweep->loops->element_bytes : 0;
    out->numbers = group->numbers;
    point_to(sweep, image, group->first, row, out);
    return row + out->rows;
}

static void gather_image(const struct sweep *sweep, int64_t image, struct group *group) {
    struct norm_rows rows;
    memset(group->sums, 0, (size_t)group->count * sizeof *group->sums);
    for (int64_t row = 0; row < sweep->view.rows;) {
        row = rows_at(sweep, image, group, row, &rows);
        sweep->gather(&rows, group->sums);
    }
}

static void apply_image(const struct sweep *sweep, int64_t image, const struct group *group) {
    struct norm_rows rows;
    for (int64_t row = 0; sweep->apply && row < sweep->view.rows;) {
        row = rows_at(sweep, image, group, row, &rows);
        sweep->apply(&rows);
    }
}

/*
 * A group, ready to be gathered: what that needs to know beforehand (backward: the mean) is what finishing makes of no sums at
 * all.
 */
static void begin_group(const struct sweep *sweep, int64_t index, struct group *group) {
    const struct lane_sums none = {0};
    group->first = first_tile(&sweep->view, index);
    group->count = first_tile(&sweep->view, index + 1) - group->first;
    memset(group->numbers, 0, (size_t)group->count * sizeof *group->numbers);
    for (int64_t i = 0; i < group->count; i++)
        sweep->finish(sweep, group->first + i, &none, false, &group->numbers[i]);
}

static void run_whole_groups(void *context, int part, int parts) {
    const struct sweep *sweep = context;
    int64_t begin, end, images = sweep->view.images;
    struct lane_sums totals[MOST_TILES];
    struct group group;
    team_share(whole_groups(&sweep->view, sweep->device->threads), part, parts, &begin, &end);
    for (int64_t index = begin; index < end; index++) {
        begin_group(sweep, index, &group);
        memset(totals, 0, (size_t)group.count * sizeof *totals);
        for (int64_t image = 0; sweep->gather && image < images; image++) {
            gather_image(sweep, image, &group);
            for (int64_t i = 0; i < group.count; i++)
                sweep->merge(&totals[i], &group.sums[i]);
        }
        for (int64_t i = 0; i < group.count; i++)
            sweep->finish(sweep, group.first + i, &totals[i], true, &group.numbers[i]);
        for (int64_t image = 0; image < images; image++)
            apply_image(sweep, image, &group);
    }
}

/* One item of what is left over is one image of one group: all images of the first group come first. */
struct items {
    int64_t first_group, first_tile, begin, end;
};

static struct items items_of(const struct sweep *sweep, int part, int parts) {
    int64_t whole = whole_groups(&sweep->view, sweep->device->threads);
    struct items items = {.first_group = whole, .first_tile = first_tile(&sweep->view, whole)};
    team_share((count_groups(&sweep->view) - whole) * sweep->view.images, part, parts, &items.begin, &items.end);
    return items;
}

/* Where the sums of an image of a leftover tile are kept. */
static struct lane_sums *leftover_at(const struct sweep *sweep, const struct items *items, int64_t tile, int64_t image) {
    return &sweep->leftover[(tile - items->first_tile) * sweep->view.images + image];
}

static void gather_leftover(void *context, int part, int parts) {
    const struct sweep *sweep = context;
    struct items items = items_of(sweep, part, parts);
    int64_t images = sweep->view.images;
    struct group group;
    for (int64_t item = items.begin; item < items.end; item++) {
        if (item == items.begin || item % images == 0)
            begin_group(sweep, items.first_group + item / images, &group);
        gather_image(sweep, item % images, &group);
        for (int64_t i = 0; i < group.count; i++)
            *leftover_at(sweep, &items, group.first + i, item % images) = group.sums[i];
    }
}

static void finish_leftover(const struct sweep *sweep, const struct items *items, bool publish, struct group *group) {
    for (int64_t i = 0; i < group->count; i++) {
        struct lane_sums total = {0};
        for (int64_t image = 0; sweep->gather && image < sweep->view.images; image++)
            sweep->merge(&total, leftover_at(sweep, items, group->first + i, image));
        sweep->finish(sweep, group->first + i, &total, publish, &group->numbers[i]);
    }
}

static void apply_leftover(void *context, int part, int parts) {
    const struct sweep *sweep = context;
    struct items items = items_of(sweep, part, parts);
    int64_t images = sweep->view.images;
    struct group group;
    for (int64_t item = items.begin; item < items.end; item++) {
        if (item == items.begin || item % images == 0) {
            begin_group(sweep, items.first_group + item / images, &group);
            finish_leftover(sweep, &items, item % images == 0, &group);
        }
        apply_image(sweep, item % images, &group);
    }
}

void sweep_run(const struct sweep *sweep) {
    int threads = sweep->device->threads;
    int64_t whole = whole_groups(&sweep->view, threads);
    if (whole > 0)
        team_run(threads, run_whole_groups, (void *)sweep);
    if (whole == count_groups(&sweep->view))
        return;
    if (sweep->gather)
        team_run(threads, gather_leftover, (void *)sweep);
    team_run(threads, apply_leftover, (void *)sweep);
}
