#include "inferd/inferctl/bench_options.h"
#include "common/base/text.h"
#include "inferd/inferctl/commands.h"
#include <getopt.h>
#include <math.h>

enum {
    TIMEOUT_MS = 30000,
    TIMEOUT_MAX_MS = 86400000,
    CLIENTS_MAX = 4096,
    OUTSTANDING = 4096,
    STEP_SECONDS = 3, /* of --saturation, unless --seconds says otherwise */
};

static bool take_int(const char *flag, int64_t high, int *out, struct error *err) {
    int64_t value;
    if (!text_to_int(optarg, 1, high, &value, err)) {
        return error_prefix(err, "%s", flag);
    }
    *out = (int)value;
    return true;
}

static bool take_int64(const char *flag, int64_t low, int64_t high, int64_t *out, struct error *err) {
    return text_to_int(optarg, low, high, out, err) || error_prefix(err, "%s", flag);
}

static bool take_rate(double *out, struct error *err) {
    if (!text_to_double(optarg, out, err)) {
        return error_prefix(err, "--open");
    }
    return (*out > 0 && *out <= 1e6) ||
           error_set(err, ERROR_INVALID, "--open: expected requests a second, up to 1000000");
}

static bool take(int option, struct bench_options *out, struct error *err) {
    switch (option) {
    case 'e':
        if (out->endpoint_count == BENCH_MAX_ENDPOINTS) {
            return error_set(err, ERROR_INVALID, "more than %d --endpoint", BENCH_MAX_ENDPOINTS);
        }
        out->endpoints[out->endpoint_count++] = optarg;
        return true;
    case 'k':
        out->keys.key = optarg;
        return true;
    case 'y':
        return key_options_add(&out->keys, optarg, err);
    case 'p':
        out->operating_point = optarg;
        return true;
    case 'j':
        return out->json = true;
    case 'u':
        return out->stat = true;
    case 'a':
        return out->saturation = true;
    case 't':
        return take_int64("--timeout-ms", 1, TIMEOUT_MAX_MS, &out->timeout_ms, err);
    case 'c':
        return take_int("--closed", CLIENTS_MAX, &out->closed, err);
    case 'o':
        return take_rate(&out->open, err);
    case 'l':
        return take_int("--outstanding", BENCH_MAX_OUTSTANDING, &out->outstanding, err);
    case 's':
        return take_int64("--seconds", 1, 86400, &out->seconds, err);
    case 'r':
        return take_int64("--requests", 1, INT64_C(1000000000), &out->requests, err);
    case 'd':
        return take_int64("--seed", 0, INT64_MAX, &out->seed, err);
    default:
        return error_set(err, ERROR_INVALID, "unknown option, or its value is missing");
    }
}

static bool check(struct bench_options *out, struct error *err) {
    if ((out->closed > 0) + (out->open > 0) + out->saturation != 1) {
        return error_set(err, ERROR_INVALID,
                         "bench: expected one of --closed N, --open RATE and --saturation, or --engine MODEL");
    }
    if (out->saturation) {
        out->seconds = out->seconds ? out->seconds : STEP_SECONDS;
        if (out->requests) {
            return error_set(err, ERROR_INVALID, "bench: --saturation goes by --seconds, of each step");
        }
    } else if ((out->seconds == 0) == (out->requests == 0)) {
        return error_set(err, ERROR_INVALID, "bench: expected --seconds S or --requests N");
    }
    if (out->file_count < 2) {
        error_set(err, ERROR_INVALID, "bench: expected at least two image files, asked about in turn");
        return error_hint(
            err, "one picture over and over is not what a member meets, and a mixed-up reply would not show");
    }
    return true;
}

bool bench_options_parse(int argc, char **argv, struct bench_options *out, struct error *err) {
    static const struct option options[] = {
        {"endpoint", required_argument, NULL, 'e'},
        {"key", required_argument, NULL, 'k'},
        {"server-key", required_argument, NULL, 'y'},
        {"operating-point", required_argument, NULL, 'p'},
        {"json", no_argument, NULL, 'j'},
        {"stat", no_argument, NULL, 'u'},
        {"timeout-ms", required_argument, NULL, 't'},
        {"closed", required_argument, NULL, 'c'},
        {"open", required_argument, NULL, 'o'},
        {"saturation", no_argument, NULL, 'a'},
        {"outstanding", required_argument, NULL, 'l'},
        {"seconds", required_argument, NULL, 's'},
        {"requests", required_argument, NULL, 'r'},
        {"seed", required_argument, NULL, 'd'},
        {NULL, 0, NULL, 0},
    };
    int option;
    *out = (struct bench_options){.timeout_ms = TIMEOUT_MS, .outstanding = OUTSTANDING, .seed = 1};
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (!take(option, out, err)) {
            return false;
        }
    }
    if (out->endpoint_count == 0) {
        out->endpoints[out->endpoint_count++] = INFERCTL_DEFAULT_ENDPOINT;
    }
    key_options_finish(&out->keys);
    out->files = argv + optind;
    out->file_count = argc - optind;
    return check(out, err);
}
