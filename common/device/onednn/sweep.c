#include "common/device/onednn/sweep.h"

#include "common/device/onednn/team.h"

#include <string.h>

enum {
    CHUNK_BYTES = 8 << 10, /* at a time: what the leaf loops look at twice stays in the first-level cache, and float sums stay short */
    MOST_TILES = 8,        /* in a group */
};

/* Tiles whose rows lie side by side: together they use whole cache lines. */
static int64_t group_tiles(const struct channel_view *view) {
    bool side_by_side = view->tile_stride < view->row_stride;
    return !side_by_side ? 1 : view->tiles < MOST_TILES ? view->tiles : MOST_TILES;
}

/* Tiles of the groups that threads take whole; each has as many of them. */
static int64_t whole_tiles(const struct channel_view *view, int threads) {
    int64_t group = group_tiles(view), whole = view->tiles / group;
    return whole / threads * threads * group;
}

bool sweep_streams(const struct channel_view *view, size_t element_bytes, const void *to) {
    enum { WORTH_BYTES = 4 << 20 };
    int64_t bytes = view->images * view->image_stride * (int64_t)element_bytes;
    return bytes >= WORTH_BYTES && (uintptr_t)to % (LANES * element_bytes) == 0 && view->row_stride % LANES == 0 &&
           view->tile_stride % LANES == 0 && view->image_stride % LANES == 0;
}

size_t sweep_scratch_bytes(const struct onednn_device *device, const struct channel_view *view) {
    int64_t leftover = view->tiles - whole_tiles(view, device->threads);
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

/* Points every tensor at a row of a tile of an image. */
static void point_to(const struct sweep *sweep, int64_t image, int64_t tile, int64_t row, struct norm_rows *out) {
    const struct channel_view *v = &sweep->view;
    const struct norm_rows *base = &sweep->base;
    int64_t at = image * v->image_stride + tile * v->tile_stride + row * v->row_stride;
    int64_t mask_at = (image * v->tiles + tile) * v->rows + row;
    out->src = moved(sweep, base->src, at);
    out->residual = moved(sweep, base->residual, at);
    out->diff_dst = moved(sweep, base->diff_dst, at);
    out->dst = moved_out(sweep, base->dst, at);
    out->diff_src = moved_out(sweep, base->diff_src, at);
    out->diff_residual = moved_out(sweep, base->diff_residual, at);
    out->mask = base->mask ? base->mask + mask_at : NULL;
    out->mask_out = base->mask_out ? base->mask_out + mask_at : NULL;
}

/*
 * The rows from `row` on that can be gone through at once, for each tile of the group in turn. Returns the row after them.
 */
static int64_t each_tile(const struct sweep *sweep, int64_t image, struct group *group, int64_t row, bool gather) {
    const struct channel_view *v = &sweep->view;
    int64_t most = CHUNK_BYTES / (group->count * LANES * (int64_t)sweep->loops->element_bytes);
    int64_t full_rows = v->rows - (v->planar && v->last_lanes < LANES), left = row < full_rows ? full_rows - row : 1;
    struct norm_rows rows = sweep->base;
    rows.stride = v->row_stride;
    rows.rows = left < most ? left : most;
    for (int64_t i = 0; i < group->count; i++) {
        int64_t tile = group->first + i;
        rows.lanes = (v->planar ? row >= full_rows : tile + 1 == v->tiles) ? v->last_lanes : v->lanes;
        rows.numbers = &group->numbers[i];
        point_to(sweep, image, tile, row, &rows);
        if (gather)
            sweep->gather(&rows, &group->sums[i]);
        else
            sweep->apply(&rows);
    }
    return row + rows.rows;
}

static void gather_image(const struct sweep *sweep, int64_t image, struct group *group) {
    memset(group->sums, 0, (size_t)group->count * sizeof *group->sums);
    for (int64_t row = 0; row < sweep->view.rows;)
        row = each_tile(sweep, image, group, row, true);
}

static void apply_image(const struct sweep *sweep, int64_t image, struct group *group) {
    for (int64_t row = 0; row < sweep->view.rows;)
        row = each_tile(sweep, image, group, row, false);
}

/*
 * The group that begins with a tile, ready to be gathered: what that needs to know beforehand (backward: the mean) is what
 * finishing makes of no sums at all.
 */
static void begin_group(const struct sweep *sweep, int64_t first, struct group *group) {
    const struct lane_sums none = {0};
    int64_t left = sweep->view.tiles - first, most = group_tiles(&sweep->view);
    group->first = first;
    group->count = left < most ? left : most;
    memset(group->numbers, 0, sizeof group->numbers);
    for (int64_t i = 0; i < group->count; i++)
        sweep->finish(sweep, first + i, &none, false, &group->numbers[i]);
}

static void run_whole_groups(void *context, int part, int parts) {
    const struct sweep *sweep = context;
    int64_t tiles = group_tiles(&sweep->view), begin, end;
    struct group group;
    team_share(whole_tiles(&sweep->view, sweep->device->threads) / tiles, part, parts, &begin, &end);
    for (int64_t first = begin * tiles; first < end * tiles; first += tiles) {
        struct lane_sums totals[MOST_TILES] = {0};
        begin_group(sweep, first, &group);
        for (int64_t image = 0; sweep->gather && image < sweep->view.images; image++) {
            gather_image(sweep, image, &group);
            for (int64_t i = 0; i < group.count; i++)
                sweep->merge(&totals[i], &group.sums[i]);
        }
        for (int64_t i = 0; i < group.count; i++)
            sweep->finish(sweep, first + i, &totals[i], true, &group.numbers[i]);
        for (int64_t image = 0; image < sweep->view.images; image++)
            apply_image(sweep, image, &group);
    }
}

/* One item of what is left over is one image of one group: all images of the first group come first. */
struct items {
    int64_t first_tile, tiles, begin, end;
};

static struct items items_of(const struct sweep *sweep, int part, int parts) {
    struct items items = {.tiles = group_tiles(&sweep->view),
                          .first_tile = whole_tiles(&sweep->view, sweep->device->threads)};
    int64_t groups = (sweep->view.tiles - items.first_tile + items.tiles - 1) / items.tiles;
    team_share(groups * sweep->view.images, part, parts, &items.begin, &items.end);
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
            begin_group(sweep, items.first_tile + item / images * items.tiles, &group);
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
            begin_group(sweep, items.first_tile + item / images * items.tiles, &group);
            finish_leftover(sweep, &items, item % images == 0, &group);
        }
        apply_image(sweep, item % images, &group);
    }
}

void sweep_run(const struct sweep *sweep) {
    int threads = sweep->device->threads;
    int64_t whole = whole_tiles(&sweep->view, threads);
    if (whole > 0)
        team_run(threads, run_whole_groups, (void *)sweep);
    if (whole == sweep->view.tiles)
        return;
    if (sweep->gather)
        team_run(threads, gather_leftover, (void *)sweep);
    team_run(threads, apply_leftover, (void *)sweep);
}
