#include "trainerd/schedule.h"

#include <math.h>
#include <string.h>

/** Each decay maps progress after the warm-up, 0 to 1, to how much of the way from final to base is left, 1
 * to 0. */
static double constant(double progress) {
    (void)progress;
    return 1;
}

static double cosine(double progress) {
    static const double pi = 3.14159265358979323846;
    return 0.5 * (1 + cos(pi * progress));
}

static double linear(double progress) {
    return 1 - progress;
}

static const struct decay {
    const char *name;
    double (*left)(double progress);
} decays[] = {
    [SCHEDULE_CONSTANT] = {"constant", constant},
    [SCHEDULE_COSINE] = {"cosine", cosine},
    [SCHEDULE_LINEAR] = {"linear", linear},
};
enum { DECAY_COUNT = sizeof decays / sizeof *decays };

bool schedule_check(const struct schedule_spec *spec, struct error *err) {
    if ((unsigned)spec->kind >= DECAY_COUNT)
        return error_set(err, ERROR_INVALID, "schedule: unknown kind %d", (int)spec->kind);
    if (!(spec->base_rate > 0) || !isfinite(spec->base_rate))
        return error_set(err, ERROR_INVALID, "schedule: the learning rate is %g, expected a positive number",
                         spec->base_rate);
    if (spec->total_steps <= 0 || spec->warmup_steps < 0 || spec->warmup_steps > spec->total_steps)
        return error_set(err, ERROR_INVALID, "schedule: a warm-up of %lld steps in a run of %lld",
                         (long long)spec->warmup_steps, (long long)spec->total_steps);
    if (!(spec->final_fraction >= 0 && spec->final_fraction <= 1))
        return error_set(err, ERROR_INVALID, "schedule: final fraction %g is outside 0 to 1",
                         spec->final_fraction);
    return true;
}

double schedule_rate(const struct schedule_spec *spec, int64_t step) {
    if (step < spec->warmup_steps)
        return spec->base_rate * (double)(step + 1) / (double)spec->warmup_steps;
    int64_t decay_steps = spec->total_steps - spec->warmup_steps;
    double progress = decay_steps > 0 ? (double)(step - spec->warmup_steps) / (double)decay_steps : 1;
    double left = decays[spec->kind].left(progress > 1 ? 1 : progress);
    double final_rate = spec->base_rate * spec->final_fraction;
    return final_rate + (spec->base_rate - final_rate) * left;
}

bool schedule_parse(const char *name, enum schedule_kind *out, struct error *err) {
    for (int i = 0; i < DECAY_COUNT; i++) {
        if (strcmp(decays[i].name, name) == 0) {
            *out = (enum schedule_kind)i;
            return true;
        }
    }
    return error_set(err, ERROR_NOT_FOUND,
                     "no schedule is called \"%s\": there are constant, cosine and linear", name);
}
