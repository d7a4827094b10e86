#include "common/graph/profile_internal.h"

static void print_title(const struct profile *profile, FILE *out) {
    fprintf(out, "%s, %s, %s, batch %lld", profile->network, profile_mode_name(profile),
            precision_name(profile->precision), (long long)profile->batch);
    if (profile->parts > 1)
        fprintf(out, " x %d parts", profile->parts);
    fprintf(out, ", on %s: medians of %d runs\n", profile->device.name, profile->runs);
}

/** "-" where there is nothing to divide, as for kinds that do no arithmetic to speak of. */
static void print_rate(double amount, double ms, FILE *out) {
    if (amount > 0 && ms > 0)
        fprintf(out, " %9.1f", amount * 1e-6 / ms);
    else
        fprintf(out, " %9s", "-");
}

static void print_implementations(const struct profile_row *row, FILE *out) {
    for (int i = 0; i < row->implementation_count; i++) {
        fprintf(out, "%s%s", i ? ", " : "  ", row->implementations[i].name);
        if (row->implementation_count > 1)
            fprintf(out, " x%d", row->implementations[i].steps);
    }
    fputc('\n', out);
}

static void print_row(const struct profile_row *row, FILE *out) {
    fprintf(out, "%-22s %-16s %5d %9.3f %6.1f%%", row->kind, row->pass, row->steps, row->ms, row->share * 100);
    print_rate(row->flops, row->ms, out);
    print_rate(row->bytes, row->ms, out);
    print_implementations(row, out);
}

static void print_total(const struct profile *profile, FILE *out) {
    double images = (double)profile->batch * profile->parts;
    double more = profile->whole_ms > 0 ? profile->timed_ms / profile->whole_ms - 1 : 0;
    fprintf(out, "%-22s %-16s %5d %9.3f %6.1f%%\n", "all", "", profile->step_count, profile->steps_ms, 100.0);
    fprintf(out, "%s as a whole: %.3f ms, %.1f images/s; with a clock behind each step: %.3f ms (%+.1f%%)\n",
            profile->mode == PLAN_TRAIN ? "a training step" : "a run", profile->whole_ms,
            profile->whole_ms > 0 ? images * 1e3 / profile->whole_ms : 0, profile->timed_ms, more * 100);
}

static void print_memory(const struct profile *profile, FILE *out) {
    const double mib = 1024 * 1024;
    struct plan_memory memory;
    plan_memory(profile->plan, &memory);
    fprintf(out, "memory: %.1f MiB for what steps hand on (%.1f alive at once, %.1f side by side), %.1f MiB for parameters\n",
            (double)memory.arena_bytes / mib, (double)memory.arena_live_bytes / mib, (double)memory.arena_sum_bytes / mib,
            (double)memory.parameter_bytes / mib);
}

static void print_fallbacks(const struct profile *profile, FILE *out) {
    for (int i = 0; i < profile->row_count; i++) {
        const struct profile_row *row = &profile->rows[i];
        if (row->fallbacks > 0)
            fprintf(out, "SLOW: %d of %d steps of %s, %s, have no fast kernel here, a reference implementation runs; first: %s\n",
                    row->fallbacks, row->steps, row->kind, row->pass, row->first_fallback);
    }
}

void profile_print(const struct profile *profile, FILE *out) {
    print_title(profile, out);
    fprintf(out, "%-22s %-16s %5s %9s %7s %9s %9s  %s\n", "kind", "pass", "steps", "ms", "share", "GFLOP/s", "GB/s",
            "implementation");
    for (int i = 0; i < profile->row_count; i++)
        print_row(&profile->rows[i], out);
    print_total(profile, out);
    print_memory(profile, out);
    print_fallbacks(profile, out);
}
