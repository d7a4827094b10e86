#include "common/base/clock.h"
#include "common/base/text.h"
#include "common/device/device.h"
#include "common/graph/plan.h"
#include "common/models/registry.h"
#include "tests/bench/bandwidth.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * How far a training step, or an inference run, is from what the machine allows:
 *   limit = sum of the convolution and linear primitives, each timed alone
 *         + bytes that the other operations must move / memory bandwidth   (training only)
 * All of it is measured in one run, in interleaved rounds; the ratio is the median of the rounds' ratios.
 */

struct options {
    const char *architecture, *device;
    int size, channels, batch, threads, rounds;
    bool infer, json;
};

enum { MAX_ROUNDS = 64, MAX_ROWS = 64 };

/** A kind of operation in one pass, over all its steps. */
struct row {
    enum op_kind kind;
    enum pass pass;
    int steps, fallbacks;
    double passes;          /**< over the tensor, for one step of it; 0 for primitives */
    double bytes;           /**< that it must move; 0 for primitives */
    double ms[MAX_ROUNDS];  /**< sum of its steps, each alone */
};

struct bench {
    struct options options;
    struct device *device;
    struct graph *graph;
    struct parameters *parameters;
    struct plan *plan;
    struct bandwidth bandwidth;
    struct row rows[MAX_ROWS];
    int row_count, *step_row;
    double optimizer_bytes;
    double step_ms[MAX_ROUNDS], update_ms[MAX_ROUNDS], bytes_per_s[MAX_ROUNDS], limit_ms[MAX_ROUNDS], ratio[MAX_ROUNDS];
};

static double elapsed_ms(int64_t start_ns) {
    return (double)(clock_now_ns() - start_ns) * 1e-6;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, int count) {
    double sorted[MAX_ROUNDS];
    memcpy(sorted, values, (size_t)count * sizeof *values);
    qsort(sorted, (size_t)count, sizeof *sorted, compare);
    return count % 2 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
}

/* --- setting up --- */

static bool fill_targets(struct bench *bench, struct error *err) {
    const struct options *o = &bench->options;
    size_t count = (size_t)o->batch * (size_t)o->channels * (size_t)o->size * (size_t)o->size;
    float *images = malloc(count * sizeof *images);
    int32_t *labels = malloc((size_t)o->batch * sizeof *labels);
    const int64_t seed[3] = {1, 0, 0};
    bool good = (images && labels) || error_set(err, ERROR_MEMORY, "out of memory for a batch");
    for (size_t i = 0; good && i < count; i++)
        images[i] = (float)(i * 2654435761u % 2001) / 1000 - 1;
    for (int i = 0; good && i < o->batch; i++)
        labels[i] = i % 3;
    good = good && plan_set_images(bench->plan, images, err) &&
           (o->infer || plan_set_targets(bench->plan, labels, seed, err));
    free(images);
    free(labels);
    return good;
}

static bool make_plan(struct bench *bench, struct error *err) {
    const struct options *o = &bench->options;
    struct model_spec model = {
        .architecture = o->architecture, .input_channels = o->channels, .size = o->size, .classes = 3};
    struct device_spec device = {.name = o->device, .threads = o->threads};
    bench->graph = model_build(&model, err);
    bench->device = bench->graph ? device_open(&device, err) : NULL;
    bench->parameters = bench->device ? parameters_create(bench->graph, err) : NULL;
    if (!bench->parameters)
        return false;
    parameters_initialise(bench->graph, bench->parameters, 1);
    struct plan_spec plan = {.graph = bench->graph,
                             .parameters = bench->parameters,
                             .device = bench->device,
                             .mode = o->infer ? PLAN_INFER : PLAN_TRAIN,
                             .batch = o->batch,
                             .optimizer = OP_SGD,
                             .ema = true};
    bench->plan = plan_create(&plan, err);
    return bench->plan && fill_targets(bench, err);
}

static bool is_primitive(enum op_kind kind) {
    return kind == OP_CONV2D || kind == OP_LINEAR;
}

/* How often the operation must go over its tensor; 0: what it takes and gives, once each. */
static double passes_of(const struct kernel *kernel) {
    bool backward = kernel->pass == PASS_BACKWARD_DATA;
    if (kernel->op.kind != OP_BATCH_NORM)
        return 0;
    return (backward ? 5 : 3) + (kernel->op.batch_norm.residual ? 1 : 0);
}

static struct row *find_row(struct bench *bench, const struct kernel *kernel) {
    double passes = passes_of(kernel);
    for (int i = 0; i < bench->row_count; i++) {
        struct row *row = &bench->rows[i];
        if (row->kind == kernel->op.kind && row->pass == kernel->pass && row->passes == passes)
            return row;
    }
    struct row *row = &bench->rows[bench->row_count++];
    *row = (struct row){.kind = kernel->op.kind, .pass = kernel->pass, .passes = passes};
    return row;
}

static bool make_rows(struct bench *bench, struct error *err) {
    int count = plan_step_count(bench->plan);
    bench->step_row = malloc((size_t)count * sizeof *bench->step_row);
    if (!bench->step_row)
        return error_set(err, ERROR_MEMORY, "out of memory for %d steps", count);
    for (int i = 0; i < count; i++) {
        struct plan_step step;
        plan_describe_step(bench->plan, i, &step);
        if (bench->row_count == MAX_ROWS)
            return error_set(err, ERROR_TOO_LARGE, "more than %d kinds of steps", MAX_ROWS);
        struct row *row = find_row(bench, step.kernel);
        double tensor = (double)shape_count(&step.kernel->args.desc[ARG_SRC].shape) * sizeof(float);
        bench->step_row[i] = (int)(row - bench->rows);
        row->steps++;
        row->fallbacks += step.kernel->reference_fallback;
        if (!is_primitive(row->kind))
            row->bytes += row->passes > 0 ? row->passes * tensor : (double)step.bytes;
    }
    for (int i = 0; i < bench->graph->parameter_count; i++)
        if (bench->graph->parameters[i].role.diff != ARG_NONE)
            bench->optimizer_bytes += 7 * (double)tensor_bytes(&bench->parameters->tensors[i]);
    return true;
}

/* --- measuring --- */

static bool run_whole(struct bench *bench, int round, struct error *err) {
    static const float hyper[HYPER_COUNT] = {[HYPER_LEARNING_RATE] = 1e-4f, [HYPER_WEIGHT_DECAY] = 1e-4f,
                                             [HYPER_MOMENTUM] = .9f,        [HYPER_EMA_DECAY] = .999f,
                                             [HYPER_GRADIENT_SCALE] = 1,    [HYPER_CLIP_NORM] = 1};
    int64_t start = clock_now_ns();
    if (!plan_run(bench->plan, err))
        return false;
    double run_ms = elapsed_ms(start);
    if (!bench->options.infer && !plan_update(bench->plan, hyper, err))
        return false;
    if (!bench->device->ops->synchronise(bench->device, NULL, err))
        return false;
    bench->step_ms[round] = elapsed_ms(start);
    bench->update_ms[round] = bench->step_ms[round] - run_ms;
    return true;
}

/* The better of two runs in a row, so that the second finds its code and weights where the whole would leave them. */
static bool time_step(struct bench *bench, int step, double *ms, struct error *err) {
    *ms = 1e30;
    for (int i = 0; i < 2; i++) {
        int64_t start = clock_now_ns();
        if (!plan_run_step(bench->plan, step, err) || !bench->device->ops->synchronise(bench->device, NULL, err))
            return false;
        double once = elapsed_ms(start);
        *ms = once < *ms ? once : *ms;
    }
    return true;
}

static void conclude(struct bench *bench, int round) {
    double bytes = bench->options.infer ? 0 : bench->optimizer_bytes, primitives = 0;
    for (int i = 0; i < bench->row_count; i++) {
        primitives += is_primitive(bench->rows[i].kind) ? bench->rows[i].ms[round] : 0;
        bytes += bench->options.infer ? 0 : bench->rows[i].bytes;
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
    for (int step = 0; step < plan_step_count(bench->plan); step++) {
        double ms;
        if (!time_step(bench, step, &ms, err))
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
    if (!bandwidth_init(&bench->bandwidth, bench->options.threads, err) || !make_rows(bench, err) ||
        !run_whole(bench, 0, err))
        return false;
    for (int round = 0; round < bench->options.rounds; round++)
        if (!run_round(bench, round, err))
            return false;
    return true;
}

/* --- reporting --- */

static double median_of(const struct bench *bench, const double *values) {
    return median(values, bench->options.rounds);
}

static void print_table(const struct bench *bench) {
    const struct options *o = &bench->options;
    double bytes_per_s = median_of(bench, bench->bytes_per_s);
    printf("%-22s %-16s %5s %7s %10s %10s\n", "operation", "pass", "steps", "passes", "alone ms", "limit ms");
    for (int i = 0; i < bench->row_count; i++) {
        const struct row *row = &bench->rows[i];
        double ms = median_of(bench, row->ms);
        double limit = is_primitive(row->kind) ? ms : o->infer ? 0 : row->bytes / bytes_per_s * 1e3;
        printf("%-22s %-16s %5d %7.3g %10.2f %10.2f%s\n", op_kind_name(row->kind), pass_name(row->pass), row->steps, row->passes,
               ms, limit, row->fallbacks ? "   REFERENCE KERNELS" : "");
    }
    if (!o->infer)
        printf("%-22s %-16s %5d %7d %10.2f %10.2f\n", "optimiser + average", "", 1, 7, median_of(bench, bench->update_ms),
               bench->optimizer_bytes / bytes_per_s * 1e3);
    printf("bandwidth %.1f GB/s, limit %.1f ms, measured %.1f ms (%.1f images/s), ratio %.3f\n", bytes_per_s * 1e-9,
           median_of(bench, bench->limit_ms), median_of(bench, bench->step_ms),
           1e3 * o->batch / median_of(bench, bench->step_ms), median_of(bench, bench->ratio));
}

static void print_json(const struct bench *bench) {
    const struct options *o = &bench->options;
    struct device_info info;
    bench->device->ops->info(bench->device, &info);
    printf("{\"architecture\": \"%s\", \"mode\": \"%s\", \"device\": \"%s\", \"size\": %d, \"batch\": %d, \"rounds\": %d,\n",
           o->architecture, o->infer ? "infer" : "train", info.name, o->size, o->batch, o->rounds);
    printf(" \"bytes_per_s\": %.4g, \"limit_ms\": %.3f, \"measured_ms\": %.3f, \"ratio\": %.4f,\n \"operations\": [",
           median_of(bench, bench->bytes_per_s), median_of(bench, bench->limit_ms), median_of(bench, bench->step_ms),
           median_of(bench, bench->ratio));
    for (int i = 0; i < bench->row_count; i++) {
        const struct row *row = &bench->rows[i];
        printf("%s\n  {\"kind\": \"%s\", \"pass\": \"%s\", \"steps\": %d, \"passes\": %g, \"bytes\": %.0f, \"alone_ms\": %.3f}",
               i ? "," : "", op_kind_name(row->kind), pass_name(row->pass), row->steps, row->passes, row->bytes,
               median_of(bench, row->ms));
    }
    printf("]}\n");
}

static const char usage[] =
    "Usage: roofline [--architecture NAME] [--infer] [--size N] [--channels N] [--batch N] [--threads N] [--rounds N]\n"
    "                [--device NAME] [--json]\n"
    "Compares a training step (or inference) with the sum of its primitives and the memory's bandwidth.\n";

static bool parse_number(const char *text, int most, int *out) {
    struct error err = {0};
    int64_t value;
    if (!text_to_int(text, 1, most, &value, &err)) {
        fprintf(stderr, "roofline: %s\n", err.message);
        return false;
    }
    *out = (int)value;
    return true;
}

static int parse_options(int argc, char **argv, struct options *o) {
    static const struct option rows[] = {
        {"architecture", required_argument, 0, 'a'}, {"infer", no_argument, 0, 'i'},
        {"size", required_argument, 0, 's'},         {"channels", required_argument, 0, 'c'},
        {"batch", required_argument, 0, 'b'},        {"threads", required_argument, 0, 't'},
        {"rounds", required_argument, 0, 'r'},       {"device", required_argument, 0, 'd'},
        {"json", no_argument, 0, 'j'},               {"help", no_argument, 0, 'h'},
        {0}};
    bool good = true;
    for (int c; (c = getopt_long(argc, argv, "h", rows, NULL)) >= 0;) {
        switch (c) {
        case 'a': o->architecture = optarg; break;
        case 'd': o->device = optarg; break;
        case 'i': o->infer = true; break;
        case 'j': o->json = true; break;
        case 's': good = good && parse_number(optarg, 512, &o->size); break;
        case 'c': good = good && parse_number(optarg, 3, &o->channels); break;
        case 'b': good = good && parse_number(optarg, 1024, &o->batch); break;
        case 't': good = good && parse_number(optarg, 1024, &o->threads); break;
        case 'r': good = good && parse_number(optarg, MAX_ROUNDS, &o->rounds); break;
        case 'h': fputs(usage, stdout); return 0;
        default: fputs(usage, stderr); return 2;
        }
    }
    return good && optind == argc ? -1 : 2;
}

int main(int argc, char **argv) {
    static struct bench bench = {.options = {.architecture = "resnet50",
                                             .device = "onednn",
                                             .size = 224,
                                             .channels = 3,
                                             .batch = 16,
                                             .threads = 2,
                                             .rounds = 5}};
    struct error err = {0};
    int code = parse_options(argc, argv, &bench.options);
    if (code >= 0)
        return code;
    bool good = make_plan(&bench, &err) && measure(&bench, &err);
    if (!good)
        fprintf(stderr, "roofline: %s\n", err.message);
    else if (bench.options.json)
        print_json(&bench);
    else
        print_table(&bench);
    plan_destroy(bench.plan);
    device_close(bench.device);
    parameters_destroy(bench.parameters);
    graph_destroy(bench.graph);
    bandwidth_fini(&bench.bandwidth);
    free(bench.step_row);
    return good ? 0 : 1;
}
