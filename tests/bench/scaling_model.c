#include "tests/bench/scaling_model.h"

#include <math.h>

double ring_ms(const struct ring *ring, int ranks, double bytes) {
    double messages = 2.0 * (ranks - 1);
    return messages * ring->alpha_ms + messages / ranks * bytes / ring->bytes_per_ms;
}

/* Divided by the measured time, t = alpha x + y / beta reads 1 = alpha x / t + (1 / beta) y / t: two normal equations. */
bool ring_fit(int ranks, const double *bytes, const double *ms, int count, struct ring *out) {
    double messages = 2.0 * (ranks - 1), xx = 0, xy = 0, yy = 0, x1 = 0, y1 = 0;
    for (int i = 0; i < count; i++) {
        double x = messages / ms[i], y = messages / ranks * bytes[i] / ms[i];
        xx += x * x;
        xy += x * y;
        yy += y * y;
        x1 += x;
        y1 += y;
    }
    double determinant = xx * yy - xy * xy;
    if (!(determinant > 1e-12 * xx * yy))
        return false;
    double alpha = (x1 * yy - y1 * xy) / determinant, inverse = (y1 * xx - x1 * xy) / determinant;
    if (alpha < 0) {
        alpha = 0;
        inverse = y1 / yy;
    }
    *out = (struct ring){alpha, 1 / inverse};
    return inverse > 0;
}

/* A moment of a step that is under way. */
struct moment {
    double now_ms;
    double computed_ms; /* of compute, as it takes without a sum beside it */
};

/* A sum from here to its end, beside compute for as long as there is any. Returns how long it went on with nothing beside it. */
static double pass_sum(struct moment *moment, double sum_ms, double compute_ms, const struct scaling_slowdown *slowdown) {
    double beside_ms = sum_ms * slowdown->sum, left_ms = (compute_ms - moment->computed_ms) * slowdown->compute;
    if (beside_ms <= left_ms) {
        moment->now_ms += beside_ms;
        moment->computed_ms += beside_ms / slowdown->compute;
        return 0;
    }
    double alone_ms = sum_ms - left_ms / slowdown->sum;
    moment->now_ms += left_ms + alone_ms;
    moment->computed_ms = compute_ms;
    return alone_ms;
}

struct scaling_prediction scaling_predict(const struct scaling_step *step, const struct ring *ring, int ranks,
                                          const struct scaling_slowdown *slowdown) {
    struct scaling_prediction out = {0};
    struct moment moment = {0};
    for (int i = 0; i < step->count; i++) {
        double sum_ms = ring_ms(ring, ranks, step->buckets[i].bytes);
        double idle_ms = fmax(0, step->buckets[i].ready_ms - moment.computed_ms);
        moment.now_ms += idle_ms;
        moment.computed_ms += idle_ms;
        out.sum_ms += sum_ms;
        out.exposed_ms += pass_sum(&moment, sum_ms, step->compute_ms, slowdown);
    }
    out.step_ms = moment.now_ms + step->compute_ms - moment.computed_ms + step->update_ms;
    return out;
}
