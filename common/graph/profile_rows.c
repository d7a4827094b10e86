#include "common/graph/profile_internal.h"

#include <stdlib.h>
#include <string.h>

const char *profile_mode_name(const struct profile *profile) {
    return profile->mode == PLAN_TRAIN ? "training" : "inference";
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double profile_median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, compare);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/** A step's time in a run is the sum over the parts; the median over the runs is what disturbances leave alone. */
static bool take_times(struct profile *profile, struct error *err) {
    size_t runs = (size_t)profile->runs, steps = (size_t)profile->step_count;
    double *ms = calloc(steps * runs + 1, sizeof *ms); /* (steps, runs) */
    if (!ms)
        return error_set(err, ERROR_MEMORY, "out of memory for the times of %d steps", profile->step_count);
    for (int run = 0; run < profile->runs; run++) {
        const struct profile_event *events = &profile->events[(size_t)run * (size_t)profile->events_per_run];
        for (int i = 0; i < profile->events_per_run; i++)
            ms[(size_t)events[i].step * runs + (size_t)run] += (double)events[i].duration_ns * 1e-6;
    }
    for (size_t i = 0; i < steps; i++)
        profile->steps[i].ms = profile_median(ms + i * runs, profile->runs);
    free(ms);
    return true;
}

/** From a run's first begin to its last end. */
static bool take_runs(struct profile *profile, struct error *err) {
    double *ms = calloc((size_t)profile->runs, sizeof *ms);
    if (!ms)
        return error_set(err, ERROR_MEMORY, "out of memory for the times of %d runs", profile->runs);
    for (int run = 0; run < profile->runs; run++) {
        const struct profile_event *first = &profile->events[(size_t)run * (size_t)profile->events_per_run];
        const struct profile_event *last = first + profile->events_per_run - 1;
        ms[run] = (double)(last->start_ns + last->duration_ns - first->start_ns) * 1e-6;
    }
    profile->timed_ms = profile_median(ms, profile->runs);
    free(ms);
    return true;
}

static struct profile_row *find_row(struct profile *profile, const struct profile_step *step) {
    for (int i = 0; i < profile->row_count; i++) {
        struct profile_row *row = &profile->rows[i];
        if (strcmp(row->kind, step->kind) == 0 && strcmp(row->pass, step->pass) == 0)
            return row;
    }
    struct profile_row *row = &profile->rows[profile->row_count++];
    *row = (struct profile_row){.kind = step->kind, .pass = step->pass};
    return row;
}

static void count_implementation(struct profile_row *row, const char *name) {
    int i = 0;
    while (i < row->implementation_count && strcmp(row->implementations[i].name, name) != 0)
        i++;
    if (i == PROFILE_MAX_IMPLEMENTATIONS)
        row->implementations[--i].name = "others";
    if (i == row->implementation_count)
        row->implementations[row->implementation_count++].name = name;
    row->implementations[i].steps++;
}

static void add_to_row(struct profile_row *row, const struct profile_step *step) {
    row->steps++;
    row->ms += step->ms;
    row->flops += step->flops;
    row->bytes += step->bytes;
    row->fallbacks += step->fallbacks > 0;
    if (step->fallbacks > 0 && !row->first_fallback)
        row->first_fallback = step->name;
    count_implementation(row, step->kernel->implementation);
}

static int slower_first(const void *a, const void *b) {
    const struct profile_row *x = a, *y = b;
    return (x->ms < y->ms) - (x->ms > y->ms);
}

bool profile_make_rows(struct profile *profile, struct error *err) {
    if (!take_times(profile, err) || !take_runs(profile, err))
        return false;
    for (int i = 0; i < profile->step_count; i++)
        add_to_row(find_row(profile, &profile->steps[i]), &profile->steps[i]);
    qsort(profile->rows, (size_t)profile->row_count, sizeof *profile->rows, slower_first);
    for (int i = 0; i < profile->row_count; i++)
        profile->steps_ms += profile->rows[i].ms;
    for (int i = 0; i < profile->row_count; i++)
        profile->rows[i].share = profile->steps_ms > 0 ? profile->rows[i].ms / profile->steps_ms : 1.0 / profile->row_count;
    for (int i = 0; i < profile->step_count; i++)
        profile->steps[i].row = (int)(find_row(profile, &profile->steps[i]) - profile->rows);
    return true;
}
