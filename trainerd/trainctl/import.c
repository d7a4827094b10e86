#include "common/weights/import.h"

#include "common/base/file.h"
#include "trainerd/trainctl/commands.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static const char usage[] =
    "usage: trainctl import FILE --architecture NAME --out FILE [--classes N] [--input-channels 1|3] [--size PIXELS]\n"
    "\n"
    "Takes ImageNet weights (torchvision's ResNets, EfficientNet-Lite0; safetensors, deploy/python/pth_to_safetensors.py makes\n"
    "them from .pth) into the names and shapes of this program, to start training from (model.init). The head is kept\n"
    "where the number of classes agrees, and fresh otherwise.\n";

struct import_options {
    const char *file, *out;
    struct model_spec model;
};

static bool parse(int argc, char **argv, struct import_options *out) {
    static const struct option options[] = {
        {"architecture", required_argument, NULL, 'a'}, {"out", required_argument, NULL, 'o'},
        {"classes", required_argument, NULL, 'k'},      {"input-channels", required_argument, NULL, 'c'},
        {"size", required_argument, NULL, 's'},         {NULL, 0, NULL, 0}};
    int option;
    optind = 0;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'a': out->model.architecture = optarg; break;
        case 'o': out->out = optarg; break;
        case 'k': out->model.classes = (int)strtol(optarg, NULL, 10); break; /* ranges: model_build checks */
        case 'c': out->model.input_channels = (int)strtol(optarg, NULL, 10); break;
        case 's': out->model.size = (int)strtol(optarg, NULL, 10); break;
        default: return false;
        }
    }
    out->file = optind + 1 == argc ? argv[optind] : NULL;
    return out->file && out->out && out->model.architecture;
}

/** Writes the parameters under their names. */
static bool write_parameters(const char *path, const struct graph *graph, const struct parameters *parameters,
                             struct error *err) {
    struct safetensors_tensor *tensors = calloc((size_t)parameters->count + 1, sizeof *tensors);
    if (!tensors)
        return error_set(err, ERROR_MEMORY, "out of memory");
    for (int i = 0; i < parameters->count; i++)
        tensors[i] = (struct safetensors_tensor){.name = graph->parameters[i].name, .dtype = DTYPE_F32,
                                                 .shape = parameters->tensors[i].shape, .data = parameters->tensors[i].data};
    struct safetensors_content content = {.tensors = tensors, .count = parameters->count};
    bool ok = safetensors_write(path, &content, err);
    free(tensors);
    return ok;
}

static bool import_file(const struct import_options *options, struct import_report *report, struct error *err) {
    const struct model_architecture *architecture = model_find(options->model.architecture, err);
    struct graph *graph = architecture ? model_build(&options->model, err) : NULL;
    struct parameters *parameters = graph ? parameters_create(graph, err) : NULL;
    bool ok = parameters;
    if (ok) {
        parameters_initialise(graph, parameters, 0);
        ok = import_weights_file(options->file, graph, architecture, parameters, report, err) &&
             write_parameters(options->out, graph, parameters, err);
    }
    parameters_destroy(parameters);
    graph_destroy(graph);
    return ok;
}

int command_import(int argc, char **argv) {
    struct import_options options = {.model = {.input_channels = 1, .size = 224, .classes = 3}};
    struct import_report report = {0};
    struct error err = {0};
    if (argc == 2 && argv[1][0] == '-' && argv[1][1] == '-' && argv[1][2] == 'h') {
        fputs(usage, stdout);
        return 0;
    }
    if (!parse(argc, argv, &options)) {
        fputs(usage, stderr);
        return 2;
    }
    if (!import_file(&options, &report, &err)) {
        fprintf(stderr, "trainctl import: %s\n", err.message);
        return 1;
    }
    printf("%s: %d tensors taken%s%s\n", options.out, report.taken, report.fresh_head ? ", a fresh head" : "",
           report.summed_channels ? ", first convolution summed over its input channels" : "");
    return 0;
}
