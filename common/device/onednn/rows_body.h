/*
 * The loops over activations, struct row_loops, for one element type: loops_body.h includes this with ELEMENT and
 * TYPED(name), the name for that type. Arithmetic is f32. Bodies are inlined with a constant number of lanes where it
 * matters: full rows of 16 and of 8.
 */

LOOPS_INLINE lanes_f32 TYPED(row)(const struct norm_rows *r, const void *tensor, struct place at) {
    return TYPED(lanes_load)((const ELEMENT *)tensor + offset_of(r, at), lanes_of_part(at.lanes, at.part));
}

LOOPS_INLINE void TYPED(set_row)(const struct norm_rows *r, void *tensor, struct place at, lanes_f32 v) {
    TYPED(lanes_store)((ELEMENT *)tensor + offset_of(r, at), v, lanes_of_part(at.lanes, at.part));
}

/* Past the cache, if so; of a full row then. */
LOOPS_INLINE void TYPED(put_row)(const struct norm_rows *r, void *tensor, struct place at, lanes_f32 v, bool stream) {
    if (stream)
        TYPED(lanes_stream)((ELEMENT *)tensor + offset_of(r, at), v);
    else
        TYPED(set_row)(r, tensor, at, v);
}

/* --- one tile of some rows --- */

LOOPS_INLINE const void *TYPED(moved)(const void *tensor, int64_t at) {
    return tensor ? (const ELEMENT *)tensor + at : NULL;
}

LOOPS_INLINE void *TYPED(moved_out)(void *tensor, int64_t at) {
    return tensor ? (ELEMENT *)tensor + at : NULL;
}

/* Up to `count` rows from `first` on, of one tile. As a local copy, which no store can reach, it stays in registers. */
LOOPS_INLINE struct norm_rows TYPED(rows_of_tile)(const struct norm_rows *r, int tile, int64_t first, int64_t count) {
    int64_t at = first * r->stride + tile * LANES, mask_at = first * r->mask_stride + tile, left = r->rows - first;
    struct norm_rows rows = *r;
    rows.rows = left < count ? left : count;
    rows.numbers = r->numbers ? r->numbers + tile : NULL;
    rows.src = TYPED(moved)(r->src, at);
    rows.residual = TYPED(moved)(r->residual, at);
    rows.diff_dst = TYPED(moved)(r->diff_dst, at);
    rows.dst = TYPED(moved_out)(r->dst, at);
    rows.diff_src = TYPED(moved_out)(r->diff_src, at);
    rows.diff_residual = TYPED(moved_out)(r->diff_residual, at);
    rows.mask = r->mask ? r->mask + mask_at : NULL;
    rows.mask_out = r->mask_out ? r->mask_out + mask_at : NULL;
    return rows;
}

/*
 * Fetches as much as BLOCK_ROWS rows of one tile are, one part of what comes `ahead` after the other: the processor's own
 * prefetching follows one stream in a page, not several rows at once.
 */
LOOPS_INLINE void TYPED(fetch)(const struct norm_rows *r, const void *tensor, int64_t first, int tile) {
    const char *from = (const char *)((const ELEMENT *)tensor + first * r->stride + r->ahead + tile * BLOCK_ROWS * LANES);
    for (int i = 0; tensor && r->ahead && i < BLOCK_ROWS * LANES * (int)sizeof(ELEMENT); i += LINE_BYTES)
        __builtin_prefetch(from + i);
}

/* --- batch norm: sums --- */

LOOPS_INLINE lanes_f32 TYPED(masked)(const struct norm_rows *r, struct place at) {
    lanes_f32 g = TYPED(row)(r, r->diff_dst, at);
    return r->mask ? lanes_keep((uint16_t)(r->mask[at.row * r->mask_stride] >> at.part * WIDTH), g) : g;
}

/* Adds g and g d of a row, where d = src - centre and g is diff_dst behind the mask; of moments, g is d. */
LOOPS_INLINE void TYPED(add_row)(const struct norm_rows *r, int64_t i, const struct what *what, struct lanes_pair *into) {
    for (int part = 0; part < parts_of(what->lanes); part++) {
        const struct place at = {i, part, what->lanes};
        lanes_f32 d = TYPED(row)(r, r->src, at) - what->centre[part];
        lanes_f32 g = what->moments ? d : TYPED(masked)(r, at);
        into->first[part] += g;
        into->second[part] += g * d;
    }
}

LOOPS_INLINE void TYPED(add_rows)(const struct norm_rows *r, const struct what *what, struct lanes_pair *into) {
    struct lanes_pair more[UNROLL] = {0};
    int64_t i = 0;
    for (; i + UNROLL <= r->rows; i += UNROLL) {
        for (int u = 0; u < UNROLL; u++)
            TYPED(add_row)(r, i + u, what, &more[u]);
    }
    for (; i < r->rows; i++)
        TYPED(add_row)(r, i, what, &more[0]);
    for (int part = 0; part < PARTS; part++)
        for (int u = 0; u < UNROLL; u++) {
            into->first[part] += more[u].first[part];
            into->second[part] += more[u].second[part];
        }
}

/*
 * Something near the mean, so that sums of squares do not cancel: the mean of the rows before these, else of the first of them.
 * Rows whose mean is D away from it lose digits of D^2, but then the tile's squares are of the order of D^2 too.
 */
LOOPS_INLINE void TYPED(pivot)(const struct norm_rows *r, const struct lane_sums *sums, int lanes, lanes_f32 to[PARTS]) {
    int64_t count = r->rows < FIRST_ROWS ? r->rows : FIRST_ROWS;
    bool before = sums->count[0] > 0;
    for (int part = 0; part < PARTS; part++) {
        lanes_f32 sum = {0};
        for (int lane = 0; before && lane < WIDTH; lane++)
            sum[lane] = (float)sums->first[part * WIDTH + lane];
        for (int64_t i = 0; !before && part < parts_of(lanes) && i < count; i++)
            sum += TYPED(row)(r, r->src, (struct place){i, part, lanes});
        to[part] = before ? sum : sum / (float)count;
    }
}

LOOPS_INLINE void TYPED(gather_tile)(const struct norm_rows *r, int lanes, bool moments, struct lane_sums *sums) {
    struct what what = {.lanes = lanes, .moments = moments};
    struct lanes_pair pair = {0};
    if (moments)
        TYPED(pivot)(r, sums, lanes, what.centre);
    else
        load_parts(r->numbers->mean, what.centre);
    TYPED(add_rows)(r, &what, &pair);
    flush(sums, &pair, &what, r->rows);
}

/* Tile by tile within a few rows, so that memory is gone through in its own order. */
LOOPS_INLINE void TYPED(gather_tiles)(const struct norm_rows *r, bool moments, struct lane_sums *sums) {
    struct lanes_pair pairs[MOST_TILES];
    struct what whats[MOST_TILES];
    for (int tile = 0; tile < r->tiles; tile++) {
        const struct norm_rows rows = TYPED(rows_of_tile)(r, tile, 0, r->rows);
        pairs[tile] = (struct lanes_pair){0};
        whats[tile] = (struct what){.lanes = LANES, .moments = moments};
        if (moments)
            TYPED(pivot)(&rows, &sums[tile], LANES, whats[tile].centre);
        else
            load_parts(rows.numbers->mean, whats[tile].centre);
    }
    for (int64_t first = 0; first < r->rows; first += BLOCK_ROWS)
        for (int tile = 0; tile < r->tiles; tile++) {
            const struct norm_rows rows = TYPED(rows_of_tile)(r, tile, first, BLOCK_ROWS);
            struct what what = {.lanes = LANES, .moments = moments};
            memcpy(what.centre, whats[tile].centre, sizeof what.centre);
            struct lanes_pair pair = pairs[tile];
            TYPED(fetch)(r, r->src, first, tile);
            TYPED(fetch)(r, moments ? NULL : r->diff_dst, first, tile);
            for (int64_t i = 0; i < rows.rows; i++)
                TYPED(add_row)(&rows, i, &what, &pair);
            pairs[tile] = pair;
        }
    for (int tile = 0; tile < r->tiles; tile++)
        flush(&sums[tile], &pairs[tile], &whats[tile], r->rows);
}

LOOPS_INLINE void TYPED(gather)(const struct norm_rows *r, bool moments, struct lane_sums *sums) {
    if (r->tiles > 1)
        TYPED(gather_tiles)(r, moments, sums);
    else if (r->lanes == LANES)
        TYPED(gather_tile)(r, LANES, moments, sums);
    else if (r->lanes == 8)
        TYPED(gather_tile)(r, 8, moments, sums);
    else
        TYPED(gather_tile)(r, r->lanes, moments, sums);
}

static void TYPED(moments)(const struct norm_rows *r, struct lane_sums *sums) {
    TYPED(gather)(r, true, sums);
}

static void TYPED(gradient_sums)(const struct norm_rows *r, struct lane_sums *sums) {
    TYPED(gather)(r, false, sums);
}

/* --- batch norm, forward --- */

LOOPS_INLINE void TYPED(normalise_tile)(const struct norm_rows *r, int lanes, enum activation activation, bool stream) {
    lanes_f32 mean[PARTS], gain[PARTS], shift[PARTS];
    load_parts(r->numbers->mean, mean);
    load_parts(r->numbers->gain, gain);
    load_parts(r->numbers->shift, shift);
    for (int64_t i = 0; i < r->rows; i++) {
        unsigned passes = 0;
        for (int part = 0; part < parts_of(lanes); part++) {
            const struct place at = {i, part, lanes};
            lanes_f32 y = (TYPED(row)(r, r->src, at) - mean[part]) * gain[part] + shift[part];
            if (r->residual)
                y += TYPED(row)(r, r->residual, at);
            if (activation != ACTIVATION_NONE)
                passes |= (unsigned)lanes_passes(y, activation) << part * WIDTH;
            TYPED(put_row)(r, r->dst, at, lanes_activate(y, activation), stream);
        }
        if (activation != ACTIVATION_NONE && r->mask_out)
            r->mask_out[i * r->mask_stride] = (uint16_t)passes;
    }
}

LOOPS_INLINE void TYPED(normalise_body)(const struct norm_rows *r, int lanes, enum activation activation, bool stream) {
    int64_t block = r->tiles > 1 ? BLOCK_ROWS : r->rows;
    for (int64_t first = 0; first < r->rows; first += block)
        for (int tile = 0; tile < r->tiles; tile++) {
            const struct norm_rows rows = TYPED(rows_of_tile)(r, tile, first, block);
            TYPED(fetch)(r, r->src, first, tile);
            TYPED(fetch)(r, r->residual, first, tile);
            TYPED(normalise_tile)(&rows, lanes, activation, stream);
        }
    if (stream)
        lanes_fence();
}

static void TYPED(normalise)(const struct norm_rows *r) {
    if (r->lanes != LANES)
        TYPED(normalise_body)(r, r->lanes, r->activation, false);
    else if (r->stream && r->activation == ACTIVATION_RELU)
        TYPED(normalise_body)(r, LANES, ACTIVATION_RELU, true);
    else if (r->stream)
        TYPED(normalise_body)(r, LANES, r->activation, true);
    else if (r->activation == ACTIVATION_RELU)
        TYPED(normalise_body)(r, LANES, ACTIVATION_RELU, false);
    else
        TYPED(normalise_body)(r, LANES, r->activation, false);
}

/* --- batch norm, backward --- */

LOOPS_INLINE void TYPED(gradient_tile)(const struct norm_rows *r, int lanes, bool stream) {
    lanes_f32 mean[PARTS], gain[PARTS], slope[PARTS], offset[PARTS];
    load_parts(r->numbers->mean, mean);
    load_parts(r->numbers->gain, gain);
    load_parts(r->numbers->slope, slope);
    load_parts(r->numbers->offset, offset);
    for (int64_t i = 0; i < r->rows; i++)
        for (int part = 0; part < parts_of(lanes); part++) {
            const struct place at = {i, part, lanes};
            lanes_f32 g = TYPED(masked)(r, at), x = TYPED(row)(r, r->src, at);
            TYPED(put_row)(r, r->diff_src, at, gain[part] * g - slope[part] * (x - mean[part]) - offset[part], stream);
            if (r->diff_residual)
                TYPED(set_row)(r, r->diff_residual, at, g);
        }
}

LOOPS_INLINE void TYPED(gradient_body)(const struct norm_rows *r, int lanes, bool stream) {
    int64_t block = r->tiles > 1 ? BLOCK_ROWS : r->rows;
    for (int64_t first = 0; first < r->rows; first += block)
        for (int tile = 0; tile < r->tiles; tile++) {
            const struct norm_rows rows = TYPED(rows_of_tile)(r, tile, first, block);
            TYPED(fetch)(r, r->src, first, tile);
            TYPED(fetch)(r, r->diff_dst, first, tile);
            TYPED(gradient_tile)(&rows, lanes, stream);
        }
    if (stream)
        lanes_fence();
}

static void TYPED(gradient)(const struct norm_rows *r) {
    if (r->lanes != LANES)
        TYPED(gradient_body)(r, r->lanes, false);
    else if (r->stream)
        TYPED(gradient_body)(r, LANES, true);
    else
        TYPED(gradient_body)(r, LANES, false);
}

/* --- averages --- */

LOOPS_INLINE void TYPED(sum_body)(const struct norm_rows *r, int lanes, float sum[LANES]) {
    lanes_f32 s[PARTS] = {0};
    for (int64_t i = 0; i < r->rows; i++)
        for (int part = 0; part < parts_of(lanes); part++)
            s[part] += TYPED(row)(r, r->src, (struct place){i, part, lanes});
    store_parts(s, sum);
}

static void TYPED(sum_rows)(const struct norm_rows *r, float sum[LANES]) {
    if (r->lanes == LANES)
        TYPED(sum_body)(r, LANES, sum);
    else
        TYPED(sum_body)(r, r->lanes, sum);
}

static void TYPED(fill_rows)(const struct norm_rows *r) {
    lanes_f32 value[PARTS];
    load_parts(r->numbers->shift, value);
    for (int64_t i = 0; i < r->rows; i++)
        for (int part = 0; part < parts_of(r->lanes); part++)
            TYPED(set_row)(r, r->dst, (struct place){i, part, r->lanes}, value[part]);
}

/* --- elementwise --- */

LOOPS_INLINE void TYPED(activate_part)(ELEMENT *dst, const ELEMENT *a, const ELEMENT *b, int lanes,
                                       enum activation activation) {
    lanes_f32 v = TYPED(lanes_load)(a, lanes);
    if (b)
        v += TYPED(lanes_load)(b, lanes);
    TYPED(lanes_store)(dst, lanes_activate(v, activation), lanes);
}

LOOPS_INLINE void TYPED(activate_body)(ELEMENT *dst, const ELEMENT *a, const ELEMENT *b, int64_t count,
                                       enum activation activation) {
    int64_t i = 0;
    for (; i + WIDTH <= count; i += WIDTH)
        TYPED(activate_part)(dst + i, a + i, b ? b + i : NULL, WIDTH, activation);
    if (i < count)
        TYPED(activate_part)(dst + i, a + i, b ? b + i : NULL, (int)(count - i), activation);
}

static void TYPED(activate)(void *dst, const void *a, const void *b, int64_t count, enum activation activation) {
    if (activation == ACTIVATION_NONE)
        TYPED(activate_body)(dst, a, b, count, ACTIVATION_NONE);
    else if (activation == ACTIVATION_RELU)
        TYPED(activate_body)(dst, a, b, count, ACTIVATION_RELU);
    else
        TYPED(activate_body)(dst, a, b, count, ACTIVATION_RELU6);
}

LOOPS_INLINE void TYPED(activate_gradient_part)(ELEMENT *diff_src, const ELEMENT *diff_dst, const ELEMENT *dst, int lanes,
                                                enum activation activation) {
    uint16_t passes = lanes_passes(TYPED(lanes_load)(dst, lanes), activation);
    TYPED(lanes_store)(diff_src, lanes_keep(passes, TYPED(lanes_load)(diff_dst, lanes)), lanes);
}

LOOPS_INLINE void TYPED(activate_gradient_body)(ELEMENT *diff_src, const ELEMENT *diff_dst, const ELEMENT *dst,
                                                int64_t count, enum activation activation) {
    int64_t i = 0;
    for (; i + WIDTH <= count; i += WIDTH)
        TYPED(activate_gradient_part)(diff_src + i, diff_dst + i, dst + i, WIDTH, activation);
    if (i < count)
        TYPED(activate_gradient_part)(diff_src + i, diff_dst + i, dst + i, (int)(count - i), activation);
}

static void TYPED(activate_gradient)(void *diff_src, const void *diff_dst, const void *dst, int64_t count,
                                     enum activation activation) {
    if (activation == ACTIVATION_RELU)
        TYPED(activate_gradient_body)(diff_src, diff_dst, dst, count, ACTIVATION_RELU);
    else
        TYPED(activate_gradient_body)(diff_src, diff_dst, dst, count, ACTIVATION_RELU6);
}

static const struct row_loops TYPED(rows) = {
    .element_bytes = sizeof(ELEMENT),
    .moments = TYPED(moments),
    .normalise = TYPED(normalise),
    .gradient_sums = TYPED(gradient_sums),
    .gradient = TYPED(gradient),
    .sum = TYPED(sum_rows),
    .fill = TYPED(fill_rows),
    .activate = TYPED(activate),
    .activate_gradient = TYPED(activate_gradient),
};
