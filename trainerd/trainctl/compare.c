#include "trainerd/trainctl/commands.h"
#include "trainerd/trainctl/comparison.h"
#include "trainerd/trainctl/session.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: trainctl compare BEFORE.safetensors AFTER.safetensors --config FILE [--part test|validation|train]\n"
    "                        [--set KEY=VALUE]... [--json]\n"
    "\n"
    "Answers a part of the configuration's data set with both models and says where they differ: figures, decisions at\n"
    "the default operating point, the largest changes. Research and integration; not a medical device.\n";

struct compare_options {
    const char *models[2];
    struct session_spec session;
    enum dataset_part part;
    bool json;
};

static bool parse(int argc, char **argv, struct compare_options *out) {
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"part", required_argument, NULL, 'p'},
                                            {"set", required_argument, NULL, 's'},
                                            {"json", no_argument, NULL, 'j'},
                                            {NULL, 0, NULL, 0}};
    int option;
    optind = 0;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'c')
            out->session.config = optarg;
        else if (option == 'j')
            out->json = true;
        else if (option == 's' && out->session.setting_count < SESSION_SETTINGS_MAX)
            out->session.settings[out->session.setting_count++] = optarg;
        else if (option != 'p' || !session_parse_part(optarg, &out->part))
            return false;
    }
    for (int i = 0; i < 2; i++)
        out->models[i] = optind + 2 == argc ? argv[optind + i] : NULL;
    return out->models[0] && out->session.config;
}

/** One model and what it answered. */
struct answered {
    struct model_file file;
    struct evaluation evaluation;
};

static bool answer(const struct session *session, const char *path, enum dataset_part part, struct answered *out,
                   struct error *err) {
    struct model_network network;
    bool ok = model_network_open(&out->file, &network, err) || error_prefix(err, "%s", path);
    ok = ok && session_answer(session, &network, part, &out->evaluation, err);
    model_network_close(&network);
    return ok;
}

static bool compare(const struct compare_options *options, struct session *session, struct answered answered[2],
                    struct error *err) {
    char part[256];
    for (int i = 0; i < 2; i++) {
        if (!model_file_open(options->models[i], &answered[i].file, err))
            return false;
    }
    if (strcmp(answered[0].file.manifest.preprocessing, answered[1].file.manifest.preprocessing) != 0)
        return error_set(err, ERROR_INVALID, "the models want their pictures prepared in different ways");
    if (!session_open(session, &options->session, &answered[0].file.manifest, err) ||
        !answer(session, options->models[0], options->part, &answered[0], err) ||
        !answer(session, options->models[1], options->part, &answered[1], err))
        return false;
    struct compared models[2] = {{&answered[0].file.manifest, &answered[0].evaluation},
                                 {&answered[1].file.manifest, &answered[1].evaluation}};
    struct comparison comparison;
    snprintf(part, sizeof part, "%.100s, %s part", session_data_name(session), dataset_part_name(options->part));
    return comparison_make(&comparison, models, err) &&
           comparison_print(&comparison, models, part, options->json, stdout, err);
}

int command_compare(int argc, char **argv) {
    struct compare_options options = {.part = DATASET_TEST};
    struct session session = {0};
    struct answered answered[2] = {0};
    struct error err = {0};
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    if (!parse(argc, argv, &options)) {
        fputs(usage, stderr);
        return 2;
    }
    bool ok = compare(&options, &session, answered, &err);
    if (!ok)
        fprintf(stderr, "trainctl compare: %s\n", err.message);
    for (int i = 0; i < 2; i++) {
        evaluation_fini(&answered[i].evaluation);
        model_file_close(&answered[i].file);
    }
    session_close(&session);
    return ok ? 0 : 1;
}
