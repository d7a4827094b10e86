#include "inferd/inferctl/bench_pacer.h"
#include <math.h>
#include <string.h>

static const double SECOND_NS = 1e9;

/** Uniform in [0, 1) with 53 bits: 24 would cut the tail of the exponential distribution. */
static double unit(struct rng *rng) {
    uint64_t high = rng_u32(rng), low = rng_u32(rng);
    return (double)((high << 32 | low) >> 11) / 9007199254740992.0;
}

static void draw_next(struct bench_pacer *pacer) {
    pacer->next_ns -= log1p(-unit(&pacer->rng)) / pacer->spec.rate * SECOND_NS;
}

void bench_pacer_start(struct bench_pacer *pacer, const struct bench_pacer_spec *spec, int64_t now_ns) {
    memset(pacer, 0, sizeof *pacer);
    pacer->spec = *spec;
    pacer->start_ns = now_ns;
    rng_init(&pacer->rng, spec->seed, RNG_LOAD, 0, 0);
    if (spec->rate > 0) {
        draw_next(pacer);
    }
}

static int64_t next_ns(const struct bench_pacer *pacer) {
    return pacer->start_ns + (int64_t)pacer->next_ns;
}

bool bench_pacer_done(const struct bench_pacer *pacer, int64_t now_ns) {
    const struct bench_pacer_spec *spec = &pacer->spec;
    if (pacer->stopped || (spec->requests && pacer->begun >= spec->requests)) {
        return true;
    }
    int64_t next = spec->rate > 0 ? next_ns(pacer) : now_ns;
    return spec->duration_ns && next >= pacer->start_ns + spec->duration_ns;
}

bool bench_pacer_take(struct bench_pacer *pacer, int64_t now_ns, int outstanding, int64_t *intended_ns) {
    bool open = pacer->spec.rate > 0;
    if (bench_pacer_done(pacer, now_ns) || (open && next_ns(pacer) > now_ns)) {
        return false;
    }
    if (outstanding >= pacer->spec.outstanding) {
        pacer->held += open && !pacer->holding;
        pacer->holding = open;
        return false;
    }
    *intended_ns = open ? next_ns(pacer) : now_ns;
    pacer->holding = false;
    pacer->begun++;
    if (open) {
        draw_next(pacer);
    }
    return true;
}

int64_t bench_pacer_due_ns(const struct bench_pacer *pacer) {
    bool waits = pacer->spec.rate > 0 && !pacer->holding && !bench_pacer_done(pacer, pacer->start_ns);
    return waits ? next_ns(pacer) : INT64_MAX;
}

void bench_pacer_stop(struct bench_pacer *pacer) {
    pacer->stopped = true;
}
