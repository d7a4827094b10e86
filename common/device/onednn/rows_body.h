/*
 * The loops over activations, struct row_loops, for one element type: loops_body.h includes this with ELEMENT and
 * TYPED(name), the name for that type. Arithmetic is f32. Bodies are inlined with a constant number of lanes where it
 * matters: full rows of 16 and of 8.
 */

LOOPS_INLINE lanes_f32 TYPED(row)(const struct norm_rows *r, const void *tensor, int64_t i, int lanes) {
    return TYPED(lanes_load)((const ELEMENT *)tensor + i * r->stride, lanes);
}

LOOPS_INLINE void TYPED(set_row)(const struct norm_rows *r, void *tensor, int64_t i, lanes_f32 v, int lanes) {
    TYPED(lanes_store)((ELEMENT *)tensor + i * r->stride, v, lanes);
}

/* --- moments --- */

LOOPS_INLINE void TYPED(moments_body)(const struct norm_rows *r, struct lane_sums *sums, int lanes) {
    lanes_f32 sum[UNROLL] = {{0}}, square[UNROLL] = {{0}};
    int64_t whole = r->rows / UNROLL * UNROLL;
    for (int64_t i = 0; i < whole; i += UNROLL)
        for (int u = 0; u < UNROLL; u++)
            sum[u] += TYPED(row)(r, r->src, i + u, lanes);
    for (int64_t i = whole; i < r->rows; i++)
        sum[0] += TYPED(row)(r, r->src, i, lanes);
    lanes_f32 centre = (sum[0] + sum[1] + sum[2] + sum[3]) / (float)r->rows;
    for (int64_t i = 0; i < whole; i += UNROLL)
        for (int u = 0; u < UNROLL; u++) {
            lanes_f32 d = TYPED(row)(r, r->src, i + u, lanes) - centre;
            square[u] += d * d;
        }
    for (int64_t i = whole; i < r->rows; i++) {
        lanes_f32 d = TYPED(row)(r, r->src, i, lanes) - centre;
        square[0] += d * d;
    }
    merge_moments(sums, (double)r->rows, lanes, centre, square[0] + square[1] + square[2] + square[3]);
}

static void TYPED(moments)(const struct norm_rows *r, struct lane_sums *sums) {
    if (r->lanes == LANES)
        TYPED(moments_body)(r, sums, LANES);
    else if (r->lanes == 8)
        TYPED(moments_body)(r, sums, 8);
    else
        TYPED(moments_body)(r, sums, r->lanes);
}

/* --- batch norm, forward --- */

LOOPS_INLINE void TYPED(normalise_body)(const struct norm_rows *r, int lanes, enum activation activation,
                                        bool stream) {
    const lanes_f32 mean = lanes_load_f32(r->numbers->mean, LANES), gain = lanes_load_f32(r->numbers->gain, LANES);
    const lanes_f32 shift = lanes_load_f32(r->numbers->shift, LANES);
    for (int64_t i = 0; i < r->rows; i++) {
        lanes_f32 y = (TYPED(row)(r, r->src, i, lanes) - mean) * gain + shift;
        if (r->residual)
            y += TYPED(row)(r, r->residual, i, lanes);
        if (activation != ACTIVATION_NONE && r->mask_out)
            r->mask_out[i] = lanes_pack(lanes_passes(y, activation));
        if (stream)
            TYPED(lanes_stream)((ELEMENT *)r->dst + i * r->stride, lanes_activate(y, activation));
        else
            TYPED(set_row)(r, r->dst, i, lanes_activate(y, activation), lanes);
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

LOOPS_INLINE lanes_f32 TYPED(masked)(const struct norm_rows *r, int64_t i, int lanes) {
    lanes_f32 g = TYPED(row)(r, r->diff_dst, i, lanes);
    return r->mask ? lanes_where(lanes_unpack(r->mask[i]), g) : g;
}

LOOPS_INLINE void TYPED(gradient_sums_body)(const struct norm_rows *r, struct lane_sums *sums, int lanes) {
    const lanes_f32 mean = lanes_load_f32(r->numbers->mean, LANES);
    lanes_f32 s[2] = {{0}}, p[2] = {{0}};
    int64_t i = 0;
    for (; i + 1 < r->rows; i += 2)
        for (int u = 0; u < 2; u++) {
            lanes_f32 g = TYPED(masked)(r, i + u, lanes);
            s[u] += g;
            p[u] += g * (TYPED(row)(r, r->src, i + u, lanes) - mean);
        }
    for (; i < r->rows; i++) {
        lanes_f32 g = TYPED(masked)(r, i, lanes);
        s[0] += g;
        p[0] += g * (TYPED(row)(r, r->src, i, lanes) - mean);
    }
    add_lanes(sums->first, s[0] + s[1]);
    add_lanes(sums->second, p[0] + p[1]);
}

static void TYPED(gradient_sums)(const struct norm_rows *r, struct lane_sums *sums) {
    if (r->lanes == LANES)
        TYPED(gradient_sums_body)(r, sums, LANES);
    else
        TYPED(gradient_sums_body)(r, sums, r->lanes);
}

LOOPS_INLINE void TYPED(gradient_body)(const struct norm_rows *r, int lanes) {
    const lanes_f32 mean = lanes_load_f32(r->numbers->mean, LANES), gain = lanes_load_f32(r->numbers->gain, LANES);
    const lanes_f32 slope = lanes_load_f32(r->numbers->slope, LANES);
    const lanes_f32 offset = lanes_load_f32(r->numbers->offset, LANES);
    for (int64_t i = 0; i < r->rows; i++) {
        lanes_f32 g = TYPED(masked)(r, i, lanes), x = TYPED(row)(r, r->src, i, lanes);
        TYPED(set_row)(r, r->diff_src, i, gain * g - slope * (x - mean) - offset, lanes);
        if (r->diff_residual)
            TYPED(set_row)(r, r->diff_residual, i, g, lanes);
    }
}

static void TYPED(gradient)(const struct norm_rows *r) {
    if (r->lanes == LANES)
        TYPED(gradient_body)(r, LANES);
    else
        TYPED(gradient_body)(r, r->lanes);
}

/* --- averages --- */

static void TYPED(sum_rows)(const struct norm_rows *r, float sum[LANES]) {
    lanes_f32 s = {0};
    if (r->lanes == LANES)
        for (int64_t i = 0; i < r->rows; i++)
            s += TYPED(row)(r, r->src, i, LANES);
    else
        for (int64_t i = 0; i < r->rows; i++)
            s += TYPED(row)(r, r->src, i, r->lanes);
    lanes_store_f32(sum, s, LANES);
}

static void TYPED(fill_rows)(const struct norm_rows *r) {
    const lanes_f32 value = lanes_load_f32(r->numbers->shift, LANES);
    for (int64_t i = 0; i < r->rows; i++)
        TYPED(set_row)(r, r->dst, i, value, r->lanes);
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
    for (; i + LANES <= count; i += LANES)
        TYPED(activate_part)(dst + i, a + i, b ? b + i : NULL, LANES, activation);
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
    lanes_s32 passes = lanes_passes(TYPED(lanes_load)(dst, lanes), activation);
    TYPED(lanes_store)(diff_src, lanes_where(passes, TYPED(lanes_load)(diff_dst, lanes)), lanes);
}

LOOPS_INLINE void TYPED(activate_gradient_body)(ELEMENT *diff_src, const ELEMENT *diff_dst, const ELEMENT *dst,
                                                int64_t count, enum activation activation) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        TYPED(activate_gradient_part)(diff_src + i, diff_dst + i, dst + i, LANES, activation);
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
