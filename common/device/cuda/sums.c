#include "common/device/cuda/internal.h"

/*
 * Sums over channels: cut into slices, whose partial sums are folded to FOLD_ROWS rows in a second launch; who uses them adds
 * up the rows. All numbers follow from the shape alone, so that results do too.
 */

/* Slices until about so many threads have work, but each with some pixels, and not so many that their sums are a burden. */
enum { SUM_THREADS = 1 << 17, LEAST_RUNS = 32, MOST_SLICES = 2048, FOLD_ROWS = 16 };

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

struct sliced cuda_sliced(const struct channels *shape) {
    struct sliced cut = {*shape, 1, cuda_channel_width(shape)};
    int64_t side_by_side = shape->last ? shape->count / cut.width : shape->count;
    int64_t runs = run_count(&cut, cut.width);
    int64_t slices = smaller(smaller(SUM_THREADS / side_by_side, runs / LEAST_RUNS), MOST_SLICES);
    cut.slices = slices < 1 ? 1 : slices;
    return cut;
}

static bool is_folded(const struct sliced *cut) {
    return cut->slices > FOLD_ROWS;
}

size_t cuda_sums_bytes(const struct sliced *cut) {
    int64_t rows = cut->slices + (is_folded(cut) ? FOLD_ROWS : 0);
    return (size_t)(rows * cut->shape.count) * sizeof(struct pair);
}

bool cuda_fold(const struct cuda_call *call, const struct sliced *cut, struct pair *sums, struct channel_pairs *out,
               struct error *err) {
    int64_t channels = cut->shape.count;
    struct fold_pairs k = {.from = sums,
                           .to = sums + cut->slices * channels,
                           .from_count = cut->slices * channels,
                           .to_count = FOLD_ROWS * channels};
    *out = (struct channel_pairs){sums, cut->slices, channels};
    if (!is_folded(cut))
        return true;
    *out = (struct channel_pairs){k.to, FOLD_ROWS, channels};
    return cuda_launched(call, launch_fold_pairs(&k, k.to_count, call->stream), err);
}

bool cuda_channel_sum(const struct cuda_call *call, const struct channels *shape, enum dtype dtype, const void *src,
                      struct pair *scratch, float *sum, struct error *err) {
    struct channel_moments k = {.cut = cuda_sliced(shape), .src = src, .sums = scratch, .dtype = dtype};
    struct finish_channel_sum finish = {.sum = sum};
    int64_t elements = k.cut.slices * (shape->last ? shape->count / k.cut.width : shape->count);
    return cuda_launched(call, launch_channel_moments(&k, elements, call->stream), err) &&
           cuda_fold(call, &k.cut, scratch, &finish.sums, err) &&
           cuda_launched(call, launch_finish_channel_sum(&finish, shape->count, call->stream), err);
}
