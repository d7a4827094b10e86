#include "common/base/file.h"
#include "common/metrics/plot.h"
#include "common/metrics/report.h"
#include "trainerd/export.h"
#include "trainerd/trainctl/commands.h"
#include "trainerd/trainctl/session.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: trainctl evaluate MODEL.safetensors --config FILE [--part test|validation|train] [--out DIR]\n"
    "                         [--set KEY=VALUE]... [--json]\n"
    "\n"
    "Answers a part of the configuration's data set with the model and prints the report; --out also writes\n"
    "report.txt, report.json, confusion.png and roc.png. Research and integration; not a medical device.\n";

struct evaluate_options {
    const char *model, *out;
    struct session_spec session;
    enum dataset_part part;
    bool json;
};

/** Everything that an evaluation holds. */
struct evaluator {
    struct session session;
    struct model_file file;
    struct model_network network;
    struct evaluation evaluation;
    double *probabilities;
    char title[256]; /* the model and the data that it answered */
    struct report report;
};

static bool parse(int argc, char **argv, struct evaluate_options *out) {
    static const struct option options[] = {{"config", required_argument, NULL, 'c'}, {"part", required_argument, NULL, 'p'},
                                            {"out", required_argument, NULL, 'o'},    {"set", required_argument, NULL, 's'},
                                            {"json", no_argument, NULL, 'j'},         {NULL, 0, NULL, 0}};
    int option;
    optind = 0;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'c')
            out->session.config = optarg;
        else if (option == 'o')
            out->out = optarg;
        else if (option == 'j')
            out->json = true;
        else if (option == 's' && out->session.setting_count < SESSION_SETTINGS_MAX)
            out->session.settings[out->session.setting_count++] = optarg;
        else if (option != 'p' || !session_parse_part(optarg, &out->part))
            return false;
    }
    out->model = optind + 1 == argc ? argv[optind] : NULL;
    return out->model && out->session.config;
}

static void evaluator_fini(struct evaluator *evaluator) {
    report_fini(&evaluator->report);
    free(evaluator->probabilities);
    evaluation_fini(&evaluator->evaluation);
    model_network_close(&evaluator->network);
    session_close(&evaluator->session);
    model_file_close(&evaluator->file);
}

static bool measure(struct evaluator *evaluator, enum dataset_part part, struct error *err) {
    const struct evaluation *evaluation = &evaluator->evaluation;
    const char *const *names = (const char *const *)evaluator->session.job.dataset.class_names;
    evaluator->probabilities = malloc((size_t)evaluation->count * (size_t)evaluation->classes * sizeof(double));
    if (!evaluator->probabilities)
        return error_set(err, ERROR_MEMORY, "out of memory");
    int positive = export_class(names, evaluation->classes, "PNEUMONIA"),
        negative = export_class(names, evaluation->classes, "NORMAL");
    bool pair = positive >= 0 && negative >= 0;
    snprintf(evaluator->title, sizeof evaluator->title, "%.100s (data: %.100s)", evaluator->file.manifest.name,
             session_data_name(&evaluator->session));
    struct report_spec spec = {
        .title = evaluator->title, .part = dataset_part_name(part), .class_names = names,
        .predictions = evaluation_predictions(evaluation, evaluator->file.manifest.temperature, evaluator->probabilities),
        .positive_class = pair ? positive : -1, .negative_class = pair ? negative : -1,
        .bootstrap_rounds = evaluator->session.config.report.bootstrap_samples,
        .seed = (uint64_t)evaluator->session.config.run.seed};
    return report_init(&evaluator->report, &spec, err);
}

static bool write_text(const char *folder, const char *name, const char *text, struct error *err) {
    char path[4096];
    return file_join(path, sizeof path, folder, name, err) && file_write_atomic(path, text, strlen(text), err);
}

static bool write_plots(const struct evaluator *evaluator, const char *folder, struct error *err) {
    char confusion[4096], curve[4096];
    return file_join(confusion, sizeof confusion, folder, "confusion.png", err) &&
           file_join(curve, sizeof curve, folder, "roc.png", err) &&
           plot_confusion(&evaluator->report, confusion, err) && plot_roc(&evaluator->report, curve, err);
}

static bool write_report(const struct evaluator *evaluator, const struct evaluate_options *options, struct error *err) {
    char *text = report_text(&evaluator->report, err), *json = text ? report_json(&evaluator->report, err) : NULL;
    bool ok = json;
    if (ok)
        fputs(options->json ? json : text, stdout);
    if (ok && options->out)
        ok = file_make_folders(options->out, err) && write_text(options->out, "report.txt", text, err) &&
             write_text(options->out, "report.json", json, err) &&
             (!evaluator->session.config.report.images || write_plots(evaluator, options->out, err));
    free(text);
    free(json);
    return ok;
}

int command_evaluate(int argc, char **argv) {
    struct evaluate_options options = {.part = DATASET_TEST};
    struct evaluator evaluator = {0};
    struct error err = {0};
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    if (!parse(argc, argv, &options)) {
        fputs(usage, stderr);
        return 2;
    }
    bool ok = model_file_open(options.model, &evaluator.file, &err) &&
              session_open(&evaluator.session, &options.session, &evaluator.file.manifest, &err) &&
              model_network_open(&evaluator.file, &evaluator.network, &err) &&
              session_answer(&evaluator.session, &evaluator.network, options.part, &evaluator.evaluation, &err) &&
              measure(&evaluator, options.part, &err) && write_report(&evaluator, &options, &err);
    if (!ok)
        fprintf(stderr, "trainctl evaluate: %s\n", err.message);
    evaluator_fini(&evaluator);
    return ok ? 0 : 1;
}
