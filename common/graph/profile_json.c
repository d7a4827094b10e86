#include "common/graph/profile.h"

#include "common/base/file.h"
#include "common/graph/profile_internal.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { LAYOUT_TEXT_SIZE = 160, JSON_STYLE = JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(12) };

/** Takes the object; false where memory ends, as a NULL from jansson says. */
static bool dump(json_t *object, FILE *out, struct error *err) {
    bool ok = object && json_dumpf(object, out, JSON_STYLE) == 0;
    json_decref(object);
    return ok || error_set(err, ERROR_MEMORY, "out of memory for JSON, or it cannot be written");
}

/* --- the table --- */

static double per_second(double amount, double ms) {
    return ms > 0 ? amount * 1e3 / ms : 0;
}

static json_t *implementations_json(const struct profile_row *row) {
    json_t *out = json_object();
    for (int i = 0; i < row->implementation_count; i++)
        json_object_set_new(out, row->implementations[i].name, json_integer(row->implementations[i].steps));
    return out;
}

static json_t *row_json(const struct profile_row *row) {
    return json_pack("{s:s, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:i, s:s*}", "kind", row->kind, "pass", row->pass,
                     "steps", row->steps, "ms", row->ms, "share", row->share, "flops", row->flops, "bytes", row->bytes,
                     "flops_per_second", per_second(row->flops, row->ms), "bytes_per_second", per_second(row->bytes, row->ms),
                     "implementations", implementations_json(row), "reference_fallback", row->fallbacks,
                     "first_reference_fallback", row->first_fallback);
}

static json_t *memory_json(const struct profile *profile) {
    struct plan_memory memory;
    plan_memory(profile->plan, &memory);
    return json_pack("{s:I, s:I, s:I, s:I}", "arena_bytes", (json_int_t)memory.arena_bytes, "arena_live_bytes",
                     (json_int_t)memory.arena_live_bytes, "arena_sum_bytes", (json_int_t)memory.arena_sum_bytes,
                     "parameter_bytes", (json_int_t)memory.parameter_bytes);
}

bool profile_print_json(const struct profile *profile, FILE *out, struct error *err) {
    json_t *rows = json_array();
    for (int i = 0; i < profile->row_count; i++)
        json_array_append_new(rows, row_json(&profile->rows[i]));
    double images = (double)profile->batch * profile->parts;
    json_t *object = json_pack("{s:s, s:s, s:s, s:s, s:I, s:i, s:i}", "network", profile->network, "mode",
                               profile_mode_name(profile), "precision", precision_name(profile->precision), "device",
                               profile->device.name, "batch", (json_int_t)profile->batch, "parts", profile->parts, "runs",
                               profile->runs);
    json_t *times = json_pack("{s:f, s:f, s:f, s:f, s:o, s:o}", "whole_ms", profile->whole_ms, "timed_ms", profile->timed_ms,
                              "steps_ms", profile->steps_ms, "images_per_second", per_second(images, profile->whole_ms), "memory",
                              memory_json(profile), "rows", rows);
    json_object_update(object, times);
    json_decref(times);
    return dump(object, out, err);
}

/* --- the trace --- */

static void add_tensor(json_t *args, const struct profile_step *step, enum arg arg) {
    const struct kernel *kernel = step->kernel;
    const struct tensor_desc *desc = &kernel->args.desc[arg];
    char shape[SHAPE_TEXT_SIZE], layout[LAYOUT_TEXT_SIZE];
    if (kernel->args.direction[arg] == ARG_ABSENT)
        return;
    json_object_set_new(args, arg_name(arg),
                        json_sprintf("%s %s, %s", dtype_name(desc->dtype), shape_text(&desc->shape, shape),
                                     kernel->device->ops->layout_text(kernel->device, desc, layout, sizeof layout)));
}

static json_t *step_args(const struct profile_step *step) {
    static const enum arg shown[] = {ARG_SRC, ARG_SRC2, ARG_WEIGHT, ARG_DST, ARG_DIFF_DST, ARG_DIFF_SRC, ARG_DIFF_WEIGHT};
    char op[LAYOUT_TEXT_SIZE];
    json_t *args = json_pack("{s:s, s:s, s:s, s:f, s:f, s:b}", "operation", op_text(&step->kernel->op, op, sizeof op), "pass",
                             step->pass, "implementation", step->kernel->implementation, "flops", step->flops, "bytes",
                             step->bytes, "reference_fallback", step->fallbacks > 0);
    for (size_t i = 0; args && i < sizeof shown / sizeof *shown; i++)
        add_tensor(args, step, shown[i]);
    return args;
}

/** A complete event. Takes args. */
static json_t *complete_event(const char *name, const char *category, int process, const struct profile_event *when,
                              json_t *args) {
    return json_pack("{s:s, s:s, s:s, s:i, s:i, s:f, s:f, s:o}", "ph", "X", "name", name, "cat", category, "pid", process, "tid",
                     1, "ts", (double)when->start_ns * 1e-3, "dur", (double)when->duration_ns * 1e-3, "args", args);
}

static bool write_title(const struct profile *profile, int process, FILE *out, struct error *err) {
    json_t *title = json_sprintf("%s, %s, %s, batch %lld", profile->network, profile_mode_name(profile),
                                 precision_name(profile->precision), (long long)profile->batch);
    return dump(json_pack("{s:s, s:s, s:i, s:{s:o}}", "ph", "M", "name", "process_name", "pid", process, "args", "name", title),
                out, err);
}

/** From the first step's begin to the last one's end. */
static bool write_run(const struct profile *profile, int run, int process, FILE *out, struct error *err) {
    const struct profile_event *events = &profile->events[(size_t)run * (size_t)profile->events_per_run];
    const struct profile_event *last = &events[profile->events_per_run - 1];
    struct profile_event all = {.start_ns = events->start_ns,
                                .duration_ns = last->start_ns + last->duration_ns - events->start_ns};
    char name[32];
    snprintf(name, sizeof name, "run %d", run + 1);
    fputs(",\n", out);
    if (!dump(complete_event(name, "run", process, &all, json_object()), out, err))
        return false;
    for (int i = 0; i < profile->events_per_run; i++) {
        const struct profile_step *step = &profile->steps[events[i].step];
        fputs(",\n", out);
        if (!dump(complete_event(step->name, step->kind, process, &events[i], step_args(step)), out, err))
            return false;
    }
    return true;
}

static bool write_events(struct profile *const *profiles, int count, FILE *out, struct error *err) {
    fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[", out);
    for (int i = 0; i < count; i++) {
        fputs(i ? ",\n" : "\n", out);
        if (!write_title(profiles[i], i + 1, out, err))
            return false;
        for (int run = 0; run < profiles[i]->runs; run++) {
            if (!write_run(profiles[i], run, i + 1, out, err))
                return false;
        }
    }
    fputs("\n]}\n", out);
    return true;
}

bool profile_write_trace(struct profile *const *profiles, int count, const char *path, struct error *err) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return error_set(err, ERROR_MEMORY, "out of memory for a trace");
    bool ok = write_events(profiles, count, out, err);
    bool complete = fclose(out) == 0;
    if (ok && !complete)
        ok = error_set(err, ERROR_MEMORY, "out of memory for a trace");
    ok = ok && file_write_atomic(path, text, size, err);
    free(text);
    return ok;
}
