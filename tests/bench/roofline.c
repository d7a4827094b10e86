#include "common/base/clock.h"
#include "tests/bench/bandwidth.h"
#include "tests/bench/subject.h"

#include <stdio.h>
#include <stdlib.h>

/*
 * How far a training step, or an inference run, is from what the machine allows:
 *   limit = sum of the convolution and linear primitives, each timed alone
 *         + passes x bytes of the other operations of the network / memory bandwidth   (training only)
 * Reorders are none of the network's operations: they count in the step, and nothing in the limit.
 * All of it is measured in one run, in interleaved rounds; the ratio is the median of the rounds' ratios.
 */

enum { MAX_ROUNDS = SUBJECT_MAX_ROUNDS, MAX_ROWS = 64 };

/* SGD with momentum and the average: reads gradient, weight, momentum and average, writes the latter three.
 */
enum { OPTIMIZER_PASSES = 7 };

/** A kind of operation in one pass, over all its steps. */
struct row {
    enum op_kind kind;
    enum pass pass;
    int steps, fallbacks;
    double norm_passes;    /**< batch norm: how often it must go over its tensor; else 0 */
    double tensor_bytes;   /**< of what it works on, over all its steps */
    double bytes;          /**< that it must move, over all its steps; 0 for primitives and reorders */
    double ms[MAX_ROUNDS]; /**< sum of its steps, each alone */
};

struct bench {
    struct subject subject;
    struct bandwidth bandwidth;
    struct row rows[MAX_ROWS];
    int row_count, *step_row;
    double optimizer_bytes;
    double step_ms[MAX_ROUNDS], update_ms[MAX_ROUNDS], bytes_per_s[MAX_ROUNDS], limit_ms[MAX_ROUNDS],
        ratio[MAX_ROUNDS];
};

static bool is_primitive(enum op_kind kind) {
    return kind == OP_CONV2D || kind == OP_LINEAR;
}

/* Once over everything that it takes and gives is the least for the other operations. */
static double norm_passes_of(const struct kernel *kernel) {
    bool backward = kernel->pass == PASS_BACKWARD_DATA;
    if (kernel->op.kind != OP_BATCH_NORM)
        return 0;
    return (backward ? 5 : 3) + (kernel->op.batch_norm.residual ? 1 : 0);
}

static struct row *find_row(struct bench *bench, const struct kernel *kernel) {
    double passes = norm_passes_of(kernel);
    for (int i = 0; i < bench->row_count; i++) {
        struct row *row = &bench->rows[i];
        if (row->kind == kernel->op.kind && row->pass == kernel->pass && row->norm_passes == passes)
            return row;
    }
    struct row *row = &bench->rows[bench->row_count++];
    *row = (struct row){.kind = kernel->op.kind, .pass = kernel->pass, .norm_passes = passes};
    return row;
}

/* Bytes of the largest tensor that a kernel works on: what its passes are counted over. */
static double largest_tensor(const struct op_args *args) {
    double largest = 0;
    for (int arg = 0; arg < ARG_COUNT; arg++) {
        const struct tensor_desc *desc = &args->desc[arg];
        if (args->direction[arg] == ARG_ABSENT || arg == ARG_SCRATCH || arg == ARG_WORKSPACE)
            continue;
        double bytes = (double)shape_count(&desc->shape) * (double)dtype_size(desc->dtype);
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

static void count_step(struct bench *bench, int index, const struct plan_step *step, struct row *row) {
    double tensor = largest_tensor(&step->kernel->args);
    bench->step_row[index] = (int)(row - bench->rows);
    row->steps++;
    row->fallbacks += step->kernel->reference_fallback;
    row->tensor_bytes += tensor;
    if (!is_primitive(row->kind) && row->kind != OP_REORDER)
        row->bytes += row->norm_passes > 0 ? row->norm_passes * tensor : (double)step->bytes;
}

static bool make_rows(struct bench *bench, struct error *err) {
    const struct subject *subject = &bench->subject;
    int count = plan_step_count(subject->plan);
    bench->step_row = malloc((size_t)count * sizeof *bench->step_row);
    if (!bench->step_row)
        return error_set(err, ERROR_MEMORY, "out of memory for %d steps", count);
    for (int i = 0; i < count; i++) {
        struct plan_step step;
        plan_describe_step(subject->plan, i, &step);
        if (bench->row_count == MAX_ROWS)
            return error_set(err, ERROR_TOO_LARGE, "more than %d kinds of steps", MAX_ROWS);
        count_step(bench, i, &step, find_row(bench, step.kernel));
    }
    for (int i = 0; i < subject->graph->parameter_count; i++)
        if (subject->graph->parameters[i].role.diff != ARG_NONE)
            bench->optimizer_bytes +=
                OPTIMIZER_PASSES * (double)tensor_bytes(&subject->parameters->tensors[i]);
    return true;
}

/* --- measuring --- */

static bool run_whole(struct bench *bench, int round, struct error *err) {
    int64_t start = clock_now_ns();
    if (!subject_run(&bench->subject, &bench->update_ms[round], err))
        return false;
    bench->step_ms[round] = subject_elapsed_ms(start);
    return true;
}

/* The better of two runs in a row, so that the second finds its code and weights where the whole would leave
 * them. */
static bool time_step(struct subject *subject, int step, double *ms, struct error *err) {
    *ms = 1e30;
    for (int i = 0; i < 2; i++) {
        int64_t start = clock_now_ns();
        if (!plan_run_step(subject->plan, step, err) ||
            !subject->device->ops->synchronise(subject->device, NULL, err))
            return false;
        double once = subject_elapsed_ms(start);
        *ms = once < *ms ? once : *ms;
    }
    return true;
}

static void conclude(struct bench *bench, int round) {
    double bytes = bench->subject.options.infer ? 0 : bench->optimizer_bytes, primitives = 0;
    for (int i = 0; i < bench->row_count; i++) {
        primitives += is_primitive(bench->rows[i].kind) ? bench->rows[i].ms[round] : 0;
        bytes += bench->subject.options.infer ? 0 : bench->rows[i].bytes;
    }
    bench->limit_ms[round] = primitives + bytes / bench->bytes_per_s[round] * 1e3;
    bench->ratio[round] = bench->step_ms[round] / bench->limit_ms[round];
}

static bool run_round(struct bench *bench, int round, struct error *err) {
    for (int i = 0; i < bench->row_count; i++)
        bench->rows[i].ms[round] = 0;
    bench->bytes_per_s[round] = bandwidth_measure(&bench->bandwidth);
    if (!run_whole(bench, round, err))
        return false;
    for (int step = 0; step < plan_step_count(bench->subject.plan); step++) {
        double ms;
        if (!time_step(&bench->subject, step, &ms, err))
            return false;
        bench->rows[bench->step_row[step]].ms[round] += ms;
    }
    /* Once more, for the whole to stand on both sides of its parts; the better of the two counts. */
    double before = bench->step_ms[round], update = bench->update_ms[round];
    if (!run_whole(bench, round, err))
        return false;
    if (before < bench->step_ms[round]) {
        bench->step_ms[round] = before;
        bench->update_ms[round] = update;
    }
    conclude(bench, round);
    return true;
}

static bool measure(struct bench *bench, struct error *err) {
    if (!bandwidth_init(&bench->bandwidth, bench->subject.options.threads, err) || !make_rows(bench, err) ||
        !run_whole(bench, 0, err))
        return false;
    for (int round = 0; round < bench->subject.options.rounds; round++)
        if (!run_round(bench, round, err))
            return false;
    return true;
}

/* --- reporting --- */

static double median_of(const struct bench *bench, const double *values) {
    return subject_median(values, bench->subject.options.rounds);
}

static double passes_of(const struct row *row) {
    return row->tensor_bytes > 0 ? row->bytes / row->tensor_bytes : 0;
}

static void print_row(const struct bench *bench, const struct row *row, double bytes_per_s) {
    double ms = median_of(bench, row->ms), limit = row->bytes / bytes_per_s * 1e3;
    if (bench->subject.options.infer)
        limit = 0;
    if (is_primitive(row->kind))
        limit = ms;
    printf("%-22s %-16s %5d %7.3g %10.2f %10.2f%s\n", op_kind_name(row->kind), pass_name(row->pass),
           row->steps, passes_of(row), ms, limit, row->fallbacks ? "   REFERENCE KERNELS" : "");
}

static void print_table(const struct bench *bench) {
    const struct subject_options *o = &bench->subject.options;
    double bytes_per_s = median_of(bench, bench->bytes_per_s);
    printf("%-22s %-16s %5s %7s %10s %10s\n", "operation", "pass", "steps", "passes", "alone ms", "limit ms");
    for (int i = 0; i < bench->row_count; i++)
        print_row(bench, &bench->rows[i], bytes_per_s);
    if (!o->infer)
        printf("%-22s %-16s %5d %7d %10.2f %10.2f\n", "optimiser + average", "", 1, OPTIMIZER_PASSES,
               median_of(bench, bench->update_ms), bench->optimizer_bytes / bytes_per_s * 1e3);
    printf("bandwidth %.1f GB/s, limit %.1f ms, measured %.1f ms (%.1f images/s), ratio %.3f\n",
           bytes_per_s * 1e-9, median_of(bench, bench->limit_ms), median_of(bench, bench->step_ms),
           1e3 * o->batch / median_of(bench, bench->step_ms), median_of(bench, bench->ratio));
}

static void print_json_row(const struct bench *bench, const struct row *row, const char *separator) {
    printf("%s\n  {\"kind\": \"%s\", \"pass\": \"%s\", \"steps\": %d, \"passes\": %.3g, \"bytes\": %.0f, "
           "\"alone_ms\": %.3f, \"reference_kernels\": %d}",
           separator, op_kind_name(row->kind), pass_name(row->pass), row->steps, passes_of(row), row->bytes,
           median_of(bench, row->ms), row->fallbacks);
}

static void print_json(const struct bench *bench) {
    const struct subject_options *o = &bench->subject.options;
    struct device_info info;
    bench->subject.device->ops->info(bench->subject.device, &info);
    printf("{\"architecture\": \"%s\", \"mode\": \"%s\", \"precision\": \"%s\", \"device\": \"%s\", \"size\": %d, "
           "\"batch\": %d, \"rounds\": %d,\n",
           o->architecture, o->infer ? "infer" : "train", precision_name(o->precision), info.name, o->size, o->batch, o->rounds);
    printf(" \"bytes_per_s\": %.4g, \"limit_ms\": %.3f, \"measured_ms\": %.3f, \"ratio\": %.4f,\n "
           "\"operations\": [",
           median_of(bench, bench->bytes_per_s), median_of(bench, bench->limit_ms),
           median_of(bench, bench->step_ms), median_of(bench, bench->ratio));
    for (int i = 0; i < bench->row_count; i++)
        print_json_row(bench, &bench->rows[i], i ? "," : "");
    printf("]}\n");
}

static const char usage[] =
    "Usage: roofline [--architecture NAME] [--infer] [--size N] [--channels N] [--batch N] [--threads N] "
    "[--rounds N]\n"
    "                [--precision f32|bf16] [--weights FILE.safetensors] [--device NAME] [--json]\n"
    "Compares a training step (or inference) with the sum of its primitives and the memory's bandwidth.\n";

static int parse_options(int argc, char **argv, struct subject_options *options) {
    static const struct option rows[] = {
        SUBJECT_OPTION_ROWS, {"infer", no_argument, 0, 'I'}, {"help", no_argument, 0, 'h'}, {0}};
    for (int c; (c = getopt_long(argc, argv, "h", rows, NULL)) >= 0;) {
        if (c == 'h') {
            fputs(usage, stdout);
            return 0;
        }
        if (c == 'I') {
            options->infer = true;
        } else if (!subject_take_option(options, c, optarg)) {
            fputs(usage, stderr);
            return 2;
        }
    }
    return optind == argc ? -1 : 2;
}

int main(int argc, char **argv) {
    static struct bench bench;
    struct error err = {0};
    bench.subject.options = subject_options_default();
    int code = parse_options(argc, argv, &bench.subject.options);
    if (code >= 0)
        return code;
    bool good =
        subject_open(&bench.subject, &err) && subject_fill(&bench.subject, &err) && measure(&bench, &err);
    if (!good)
        fprintf(stderr, "roofline: %s\n", err.message);
    else if (bench.subject.options.json)
        print_json(&bench);
    else
        print_table(&bench);
    subject_close(&bench.subject);
    bandwidth_fini(&bench.bandwidth);
    free(bench.step_row);
    return good ? 0 : 1;
}
