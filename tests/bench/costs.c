#include "common/graph/passes.h"
#include "common/models/registry.h"
#include "tests/bench/cost_rows.h"
#include "tests/bench/subject.h"

#include <stdio.h>
#include <string.h>

/*
 * What a step or a run must cost, from first principles: nothing is run and nothing measured. Every
 * measurement has these figures to be compared with. The page common/device/cuda/README.md has some of them,
 * as --markdown prints them.
 */

struct request {
    struct subject_options options;
    const char *device_name; /* NULL: all machines */
    bool markdown;
};

static struct graph *prepare(const struct subject_options *o, struct error *err) {
    struct model_spec model = {.architecture = o->architecture,
                               .input_channels = o->channels,
                               .size = o->size,
                               .classes = SUBJECT_CLASSES};
    struct parameters *folded = NULL, *parameters = NULL; /* what the weights are costs nothing: zeros */
    struct graph *graph = model_build(&model, err), *out = NULL;
    if (graph && !o->infer)
        out = graph_fuse_for_training(graph, NULL, o->precision, NORM_STATISTICS_BATCH, err);
    else if (graph && (parameters = parameters_create(graph, err)))
        out = graph_fold_for_inference(graph, parameters, NULL, o->precision, &folded, err);
    parameters_destroy(folded);
    parameters_destroy(parameters);
    graph_destroy(graph);
    return out;
}

static double peak(const struct cost_machine *machine, enum precision precision) {
    return precision == PRECISION_F32 ? machine->flops_f32 : machine->flops_16;
}

static int index_of(const char *name) {
    int i = 0;
    while (i < COST_MACHINES - 1 && strcmp(cost_machines[i].name, name) != 0)
        i++;
    return i;
}

/* A page names what takes a thousandth of the whole, and adds up the rest. */
static struct costs without_small(const struct costs *costs) {
    int h100 = index_of("H100 SXM");
    double least = costs_total(costs).floor_s[h100] / 1000;
    struct costs out = {0};
    struct costs rest = {0};
    for (int i = 0; i < costs->count; i++) {
        struct costs *to = costs->rows[i].floor_s[h100] < least ? &rest : &out;
        to->rows[to->count++] = costs->rows[i];
    }
    if (rest.count > 0) {
        out.rows[out.count] = costs_total(&rest);
        out.rows[out.count++].kind = "the rest";
    }
    return out;
}

static void print_row(const struct cost_row *row, enum precision precision, const char *bar) {
    int h100 = index_of("H100 SXM"), h200 = index_of("H200");
    const struct cost_machine *machine = &cost_machines[h100];
    printf("%s%-24s%s %-15s%s %5d%s %10.3f%s %9.4f%s %10.4f%s %9.4f%s %9.4f%s %9.4f%s\n", bar, row->kind, bar,
           row->pass, bar, row->count, bar, row->flops * 1e-9, bar, row->bytes * 1e-9, bar,
           row->flops / peak(machine, precision) * 1e3, bar, row->bytes / machine->bytes_per_s * 1e3, bar,
           row->floor_s[h100] * 1e3, bar, row->floor_s[h200] * 1e3, bar);
}

static void print_table(const struct request *request, const struct costs *costs) {
    const struct subject_options *o = &request->options;
    const char *bar = request->markdown ? "|" : "";
    struct cost_row total = costs_total(costs);
    total.kind = "all";
    const struct costs shown = request->markdown ? without_small(costs) : *costs;
    if (!request->markdown)
        printf("%s %s, %s, batch %d, %d pixels, %d channels\n", o->infer ? "inference with" : "training",
               o->architecture, precision_name(o->precision), o->batch, o->size, o->channels);
    printf("%s%-24s%s %-15s%s %5s%s %10s%s %9s%s %10s%s %9s%s %9s%s %9s%s\n", bar, "operation", bar, "pass",
           bar, "count", bar, "GFLOP", bar, "GB", bar, "arithmetic", bar, "traffic", bar, "H100 ms", bar,
           "H200 ms", bar);
    if (request->markdown)
        printf("|---|---|--:|--:|--:|--:|--:|--:|--:|\n");
    for (int i = 0; i < shown.count; i++)
        print_row(&shown.rows[i], o->precision, bar);
    print_row(&total, o->precision, bar);
}

static void print_json_row(const struct cost_row *row, const struct cost_machine *only) {
    printf("{\"kind\": \"%s\", \"pass\": \"%s\", \"count\": %d, \"flops\": %.6g, \"bytes\": %.6g, "
           "\"floor_ms\": {",
           row->kind, row->pass, row->count, row->flops, row->bytes);
    const char *separator = "";
    for (int i = 0; i < COST_MACHINES; i++) {
        if (only && only != &cost_machines[i])
            continue;
        printf("%s\"%s\": %.6g", separator, cost_machines[i].name, row->floor_s[i] * 1e3);
        separator = ", ";
    }
    printf("}}");
}

static void print_json(const struct request *request, const struct costs *costs) {
    const struct subject_options *o = &request->options;
    const struct cost_machine *machine = request->device_name ? cost_machine_of(request->device_name) : NULL;
    const char *mode = o->infer ? "infer" : "train";
    struct cost_row total = costs_total(costs);
    printf("{\"mode\": \"%s\", \"architecture\": \"%s\", ", mode, o->architecture);
    printf("\"precision\": \"%s\", ", precision_name(o->precision));
    printf("\"batch\": %d, \"size\": %d, \"channels\": %d,\n", o->batch, o->size, o->channels);
    if (machine)
        printf(
            " \"machine\": \"%s\", \"peak_flops\": %.6g, \"peak_bytes_per_s\": %.6g, \"floor_ms\": %.6g,\n",
            machine->name, peak(machine, o->precision), machine->bytes_per_s,
            total.floor_s[machine - cost_machines] * 1e3);
    printf(" \"flops\": %.6g, \"bytes\": %.6g,\n \"operations\": [\n  ", total.flops, total.bytes);
    for (int i = 0; i < costs->count; i++) {
        printf("%s", i ? ",\n  " : "");
        print_json_row(&costs->rows[i], machine);
    }
    printf("]}\n");
}

static const char usage[] =
    "Usage: costs [--architecture NAME] [--infer] [--size N] [--channels N] [--batch N] [--precision "
    "f32|bf16]\n"
    "             [--device-name TEXT] [--json|--markdown]\n"
    "Counts the operations and bytes of a training step, or of inference, and the least time that they take "
    "on an H100 SXM\n"
    "and an H200: for each operation the longer of arithmetic / peak and bytes / bandwidth. Nothing is run.\n"
    "--device-name: with --json, the machine that this device is, where it is known.\n";

static int parse_options(int argc, char **argv, struct request *request) {
    static const struct option rows[] = {SUBJECT_OPTION_ROWS,
                                         {"infer", no_argument, 0, 'I'},
                                         {"markdown", no_argument, 0, 'M'},
                                         {"device-name", required_argument, 0, 'N'},
                                         {"help", no_argument, 0, 'h'},
                                         {0}};
    for (int c; (c = getopt_long(argc, argv, "h", rows, NULL)) >= 0;) {
        if (c == 'h') {
            fputs(usage, stdout);
            return 0;
        }
        if (c == 'I') {
            request->options.infer = true;
        } else if (c == 'M') {
            request->markdown = true;
        } else if (c == 'N') {
            request->device_name = optarg;
        } else if (!subject_take_option(&request->options, c, optarg)) {
            fputs(usage, stderr);
            return 2;
        }
    }
    return optind == argc ? -1 : 2;
}

int main(int argc, char **argv) {
    struct request request = {.options = subject_options_default()};
    struct costs costs;
    struct error err = {0};
    request.options.precision = PRECISION_BF16;
    int code = parse_options(argc, argv, &request);
    if (code >= 0)
        return code;
    const struct subject_options *o = &request.options;
    struct graph *graph = prepare(o, &err);
    bool good =
        graph && costs_count(graph, &(struct cost_options){o->batch, o->precision, o->infer}, &costs, &err);
    if (!good)
        fprintf(stderr, "costs: %s\n", err.message);
    else
        o->json ? print_json(&request, &costs) : print_table(&request, &costs);
    graph_destroy(graph);
    return good ? 0 : 1;
}
