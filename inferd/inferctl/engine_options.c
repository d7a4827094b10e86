#include "inferd/inferctl/engine_options.h"
#include "common/base/text.h"
#include "common/graph/profile.h"
#include <getopt.h>
#include <string.h>

enum { RUNS = 10, THREADS_MAX = 1024, BATCH_MAX = 4096, NUMBER_SIZE = 16 };

bool engine_options_meant(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--engine") == 0 || strncmp(argv[i], "--engine=", 9) == 0) {
            return true;
        }
    }
    return false;
}

static bool take_int(const char *flag, const char *text, int64_t high, int *out, struct error *err) {
    int64_t value;
    if (!text_to_int(text, 1, high, &value, err)) {
        return error_prefix(err, "%s", flag);
    }
    *out = (int)value;
    return true;
}

/** Numbers with commas between them. */
static bool take_batches(const char *text, struct engine_options *out, struct error *err) {
    out->batch_count = 0;
    for (const char *end; text; text = *end ? end + 1 : NULL) {
        char number[NUMBER_SIZE];
        end = strchrnul(text, ',');
        size_t length = (size_t)(end - text);
        if (out->batch_count == ENGINE_MAX_BATCHES) {
            return error_set(err, ERROR_INVALID, "--batch: more than %d sizes", ENGINE_MAX_BATCHES);
        }
        if (length >= sizeof number) {
            return error_set(err, ERROR_INVALID, "--batch: expected sizes such as 1,8, found \"%.40s\"", text);
        }
        memcpy(number, text, length);
        number[length] = '\0';
        if (!take_int("--batch", number, BATCH_MAX, &out->batches[out->batch_count], err)) {
            return false;
        }
        out->batch_count++;
    }
    return true;
}

static bool take_precision(const char *text, enum precision *out, struct error *err) {
    *out = precision_parse(text);
    return *out != PRECISION_COUNT ||
           error_set(err, ERROR_INVALID, "--precision: expected f32, bf16, f16 or int8, found \"%.40s\"", text);
}

static bool take(int option, struct engine_options *out, struct error *err) {
    switch (option) {
    case 'e':
        out->model = optarg;
        return true;
    case 'd':
        out->device = optarg;
        return true;
    case 'o':
        out->trace = optarg;
        return true;
    case 'j':
        return out->json = true;
    case 't':
        return take_int("--threads", optarg, THREADS_MAX, &out->threads, err);
    case 'r':
        return take_int("--runs", optarg, PROFILE_MAX_RUNS, &out->runs, err);
    case 'b':
        return take_batches(optarg, out, err);
    case 'p':
        return take_precision(optarg, &out->precision, err);
    default:
        return error_set(err, ERROR_INVALID, "bench --engine: unknown option, or its value is missing");
    }
}

bool engine_options_parse(int argc, char **argv, struct engine_options *out, struct error *err) {
    static const struct option options[] = {
        {"engine", required_argument, NULL, 'e'},
        {"device", required_argument, NULL, 'd'},
        {"trace", required_argument, NULL, 'o'},
        {"json", no_argument, NULL, 'j'},
        {"threads", required_argument, NULL, 't'},
        {"runs", required_argument, NULL, 'r'},
        {"batch", required_argument, NULL, 'b'},
        {"precision", required_argument, NULL, 'p'},
        {NULL, 0, NULL, 0},
    };
    int option;
    *out = (struct engine_options){
        .device = "auto", .runs = RUNS, .precision = PRECISION_F32, .batches = {1, 8}, .batch_count = 2};
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (!take(option, out, err)) {
            return false;
        }
    }
    return optind == argc || error_set(err, ERROR_INVALID, "bench --engine: what is \"%.80s\"?", argv[optind]);
}
