#include "common/device/onednn/kernel.h"
#include "common/device/onednn/team.h"

/* dst (N, C) = mean of src (N, C, H, W) over H and W; backward, each pixel gets its share. dst is always canonical. */
struct average_kernel {
    struct onednn_kernel base;
    struct channel_view view;
    const struct row_loops *loops; /* for src; dst is f32 */
};

struct average_job {
    const struct average_kernel *kernel;
    const char *src;
    const float *diff_dst;
    char *diff_src;
    float *dst;
};

static struct norm_rows rows_of(const struct channel_view *v, int64_t tile) {
    bool last = !v->planar && tile + 1 == v->tiles;
    return (struct norm_rows){.rows = v->rows, .stride = v->row_stride, .lanes = last ? v->last_lanes : v->lanes};
}

static void average_tile(const struct average_job *job, int64_t image, int64_t tile, int64_t at) {
    const struct channel_view *v = &job->kernel->view;
    const struct row_loops *loops = job->kernel->loops;
    int64_t row_bytes = LANES * (int64_t)loops->element_bytes;
    float *dst = job->dst + image * v->channels, sum[LANES], rest[LANES];
    struct norm_rows rows = rows_of(v, tile);
    bool short_row = v->planar && v->last_lanes < LANES;
    rows.src = job->src + at * (int64_t)loops->element_bytes;
    rows.rows -= short_row;
    loops->sum(&rows, sum);
    if (v->planar) {
        double total = 0;
        rows.src = (const char *)rows.src + rows.rows * row_bytes;
        rows.rows = short_row;
        rows.lanes = v->last_lanes;
        loops->sum(&rows, rest);
        for (int lane = 0; lane < LANES; lane++)
            total += (double)sum[lane] + (double)rest[lane];
        dst[tile] = (float)(total / (double)v->pixels);
        return;
    }
    for (int lane = 0; lane < rows.lanes && tile * v->lanes + lane < v->channels; lane++)
        dst[tile * v->lanes + lane] = sum[lane] / (float)v->pixels;
}

static void spread_tile(const struct average_job *job, int64_t image, int64_t tile, int64_t at) {
    const struct channel_view *v = &job->kernel->view;
    const struct row_loops *loops = job->kernel->loops;
    int64_t row_bytes = LANES * (int64_t)loops->element_bytes;
    const float *diff_dst = job->diff_dst + image * v->channels;
    struct norm_lanes numbers = {.mean = {0}};
    struct norm_rows rows = rows_of(v, tile);
    for (int lane = 0; lane < LANES; lane++) {
        int64_t channel = v->planar ? tile : tile * v->lanes + lane;
        numbers.shift[lane] = channel < v->channels ? diff_dst[channel] / (float)v->pixels : 0;
    }
    rows.numbers = &numbers;
    rows.dst = job->diff_src + at * (int64_t)loops->element_bytes;
    if (v->planar && v->last_lanes < LANES) {
        rows.rows--;
        loops->fill(&rows);
        rows.dst = (char *)rows.dst + rows.rows * row_bytes;
        rows.rows = 1;
        rows.lanes = v->last_lanes;
    }
    loops->fill(&rows);
}

static void average_part(void *context, int part, int parts) {
    const struct average_job *job = context;
    const struct channel_view *v = &job->kernel->view;
    int64_t begin, end;
    team_share(v->images * v->tiles, part, parts, &begin, &end);
    for (int64_t item = begin; item < end; item++) {
        int64_t image = item / v->tiles, tile = item % v->tiles;
        int64_t at = image * v->image_stride + tile * v->tile_stride;
        if (job->src)
            average_tile(job, image, tile, at);
        else
            spread_tile(job, image, tile, at);
    }
}

static bool average_run(struct onednn_kernel *base, void *const buffers[ARG_COUNT], struct error *err) {
    bool backward = base->base.pass == PASS_BACKWARD_DATA;
    struct average_job job = {.kernel = (struct average_kernel *)base};
    (void)err;
    if (backward) {
        job.diff_dst = buffers[ARG_DIFF_DST];
        job.diff_src = buffers[ARG_DIFF_SRC];
    } else {
        job.src = buffers[ARG_SRC];
        job.dst = buffers[ARG_DST];
    }
    team_run(base->device->threads, average_part, &job);
    return true;
}

static struct onednn_kernel *average_prepare(struct onednn_device *device, const struct kernel_request *request,
                                             struct error *err) {
    enum arg src = request->pass == PASS_BACKWARD_DATA ? ARG_DIFF_SRC : ARG_SRC;
    const struct layout *layout = request->args.desc[src].layout;
    struct average_kernel *kernel = kernel_create(device, request, sizeof *kernel, device->loops->name, err);
    if (!kernel)
        return NULL;
    kernel->loops = loops_of(device->loops, request->args.desc[src].dtype);
    kernel_set_layout(&kernel->base, ARG_DST, NULL);
    kernel_set_layout(&kernel->base, ARG_DIFF_DST, NULL);
    kernel_set_layout(&kernel->base, src, layout == LAYOUT_ANY ? NULL : layout);
    if (!channel_view_init(&kernel->view, &kernel->base.base.args.desc[src])) {
        kernel_set_layout(&kernel->base, src, NULL);
        (void)channel_view_init(&kernel->view, &kernel->base.base.args.desc[src]);
    }
    kernel->base.run = average_run;
    return &kernel->base;
}

const struct onednn_kind onednn_average_pool = {.supports = kernel_precision_fits, .prepare = average_prepare};
