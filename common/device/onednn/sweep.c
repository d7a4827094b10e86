#include "common/device/onednn/sweep.h"

#include "common/device/onednn/team.h"

/* Rows at a time: what the leaf loops look at twice stays in the first-level cache, and float sums stay
 * short. */
enum { CHUNK_ROWS = 128 };

static int64_t whole_tiles(const struct sweep *sweep) {
    return sweep->view.tiles / sweep->device->threads * sweep->device->threads;
}

bool sweep_streams(const struct channel_view *view, const float *to) {
    enum { WORTH_BYTES = 4 << 20 };
    int64_t bytes = view->images * view->image_stride * (int64_t)sizeof(float);
    return bytes >= WORTH_BYTES && (uintptr_t)to % (LANES * sizeof(float)) == 0 &&
           view->row_stride % LANES == 0 && view->tile_stride % LANES == 0 && view->image_stride % LANES == 0;
}

size_t sweep_scratch_bytes(const struct onednn_device *device, const struct channel_view *view) {
    int64_t leftover = view->tiles % device->threads;
    return (size_t)(leftover * view->images) * sizeof(struct sweep_sums);
}

size_t sweep_mask_bytes(const struct channel_view *view) {
    return (size_t)(view->images * view->tiles * view->rows) * sizeof(uint16_t);
}

int64_t sweep_channel(const struct channel_view *view, int64_t tile, int lane) {
    int64_t channel = view->planar ? tile : tile * view->lanes + lane;
    return channel < view->channels && lane < view->lanes ? channel : -1;
}

void sweep_merge_sums(struct sweep_sums *into, const struct sweep_sums *from) {
    for (int i = 0; i < LANES; i++) {
        into->count[i] += from->count[i];
        into->first[i] += from->first[i];
        into->second[i] += from->second[i];
    }
}

void sweep_merge_moments(struct sweep_sums *into, const struct sweep_sums *from) {
    for (int i = 0; i < LANES; i++) {
        double count = into->count[i] + from->count[i], apart = from->first[i] - into->first[i];
        if (from->count[i] == 0)
            continue;
        into->first[i] += apart * from->count[i] / count;
        into->second[i] += from->second[i] + apart * apart * into->count[i] * from->count[i] / count;
        into->count[i] = count;
    }
}

static void take_lane(struct sweep_sums *to, int to_lane, const struct sweep_sums *from, int from_lane) {
    to->count[to_lane] = from->count[from_lane];
    to->first[to_lane] = from->first[from_lane];
    to->second[to_lane] = from->second[from_lane];
}

void sweep_fold(const struct sweep *sweep, struct sweep_sums *sums) {
    struct sweep_sums total = {0}, one;
    if (!sweep->view.planar)
        return;
    for (int lane = 0; lane < LANES; lane++) {
        one = (struct sweep_sums){0};
        take_lane(&one, 0, sums, lane);
        sweep->merge(&total, &one);
    }
    for (int lane = 0; lane < LANES; lane++)
        take_lane(sums, lane, &total, 0);
}

/* The rows from `row` on of a tile of an image that can be gone through at once; returns the row after them.
 */
static int64_t rows_at(const struct sweep *sweep, int64_t image, int64_t tile, int64_t row,
                       struct norm_rows *out) {
    const struct channel_view *v = &sweep->view;
    int64_t at = image * v->image_stride + tile * v->tile_stride + row * v->row_stride;
    int64_t mask_at = (image * v->tiles + tile) * v->rows + row;
    bool short_row = v->planar && v->last_lanes < LANES;
    int64_t full_rows = v->rows - short_row;
    int64_t left = row < full_rows ? full_rows - row : 1;
    *out = sweep->base;
    out->stride = v->row_stride;
    out->rows = left < CHUNK_ROWS ? left : CHUNK_ROWS;
    out->lanes = (v->planar ? row >= full_rows : tile + 1 == v->tiles) ? v->last_lanes : v->lanes;
    out->src = out->src ? out->src + at : NULL;
    out->residual = out->residual ? out->residual + at : NULL;
    out->diff_dst = out->diff_dst ? out->diff_dst + at : NULL;
    out->dst = out->dst ? out->dst + at : NULL;
    out->diff_src = out->diff_src ? out->diff_src + at : NULL;
    out->diff_residual = out->diff_residual ? out->diff_residual + at : NULL;
    out->mask = out->mask ? out->mask + mask_at : NULL;
    out->mask_out = out->mask_out ? out->mask_out + mask_at : NULL;
    return row + out->rows;
}

static void gather_image(const struct sweep *sweep, int64_t image, int64_t tile,
                         const struct norm_lanes *numbers, struct sweep_sums *sums) {
    struct norm_rows rows;
    *sums = (struct sweep_sums){0};
    for (int64_t row = 0; row < sweep->view.rows;) {
        row = rows_at(sweep, image, tile, row, &rows);
        rows.numbers = numbers;
        sweep->gather(sweep, &rows, sums);
    }
}

static void apply_image(const struct sweep *sweep, int64_t image, int64_t tile,
                        const struct norm_lanes *numbers) {
    struct norm_rows rows;
    for (int64_t row = 0; row < sweep->view.rows;) {
        row = rows_at(sweep, image, tile, row, &rows);
        rows.numbers = numbers;
        sweep->apply(&rows);
    }
}

/* What gathering needs to know beforehand (backward: the mean) is what finishing makes of no sums at all. */
static void prepare_tile(const struct sweep *sweep, int64_t tile, struct norm_lanes *numbers) {
    const struct sweep_sums none = {0};
    *numbers = (struct norm_lanes){0};
    sweep->finish(sweep, tile, &none, false, numbers);
}

static void run_whole_tiles(void *context, int part, int parts) {
    const struct sweep *sweep = context;
    int64_t begin, end;
    team_share(whole_tiles(sweep), part, parts, &begin, &end);
    for (int64_t tile = begin; tile < end; tile++) {
        struct sweep_sums total = {0}, sums;
        struct norm_lanes numbers;
        prepare_tile(sweep, tile, &numbers);
        for (int64_t image = 0; sweep->gather && image < sweep->view.images; image++) {
            gather_image(sweep, image, tile, &numbers, &sums);
            sweep->merge(&total, &sums);
        }
        sweep->finish(sweep, tile, &total, true, &numbers);
        for (int64_t image = 0; image < sweep->view.images; image++)
            apply_image(sweep, image, tile, &numbers);
    }
}

/* Items of the leftover tiles: all images of the first tile, then all of the next. */
static void gather_leftover(void *context, int part, int parts) {
    const struct sweep *sweep = context;
    int64_t first = whole_tiles(sweep), images = sweep->view.images, begin, end;
    struct norm_lanes numbers;
    team_share((sweep->view.tiles - first) * images, part, parts, &begin, &end);
    for (int64_t item = begin; item < end; item++) {
        if (item == begin || item % images == 0)
            prepare_tile(sweep, first + item / images, &numbers);
        gather_image(sweep, item % images, first + item / images, &numbers, &sweep->leftover[item]);
    }
}

static void apply_leftover(void *context, int part, int parts) {
    const struct sweep *sweep = context;
    int64_t first = whole_tiles(sweep), images = sweep->view.images, begin, end;
    struct norm_lanes numbers;
    team_share((sweep->view.tiles - first) * images, part, parts, &begin, &end);
    for (int64_t item = begin; item < end; item++) {
        int64_t tile = item / images;
        if (item == begin || item % images == 0) {
            struct sweep_sums total = {0};
            for (int64_t image = 0; sweep->gather && image < images; image++)
                sweep->merge(&total, &sweep->leftover[tile * images + image]);
            numbers = (struct norm_lanes){0};
            sweep->finish(sweep, first + tile, &total, item % images == 0, &numbers);
        }
        apply_image(sweep, item % images, first + tile, &numbers);
    }
}

void sweep_run(const struct sweep *sweep) {
    int threads = sweep->device->threads;
    int64_t whole = whole_tiles(sweep);
    if (whole > 0)
        team_run(threads, run_whole_tiles, (void *)sweep);
    if (whole == sweep->view.tiles)
        return;
    if (sweep->gather)
        team_run(threads, gather_leftover, (void *)sweep);
    team_run(threads, apply_leftover, (void *)sweep);
}
