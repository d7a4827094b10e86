#include "inferd/inferctl/options.h"
#include "common/base/text.h"
#include "inferd/inferctl/commands.h"
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { TIMEOUT_MS = 30000, TIMEOUT_MAX_MS = 86400000 };

bool key_options_add(struct key_options *keys, const char *server_key, struct error *err) {
    if (keys->server_key_count == OPTIONS_MAX_ENDPOINTS) {
        return error_set(err, ERROR_INVALID, "more than %d --server-key", OPTIONS_MAX_ENDPOINTS);
    }
    keys->server_keys[keys->server_key_count++] = server_key;
    return true;
}

void key_options_finish(struct key_options *keys) {
    const char *key = getenv("THORAX_KEY"), *server_key = getenv("THORAX_SERVER_KEY");
    keys->key = keys->key ? keys->key : key && *key ? key : NULL;
    if (keys->server_key_count == 0 && server_key && *server_key) {
        keys->server_keys[keys->server_key_count++] = server_key;
    }
}

struct client_keys_spec key_options_spec(const struct key_options *keys) {
    return (struct client_keys_spec){keys->key, keys->server_keys, keys->server_key_count};
}

struct client *options_connect(const struct options *options, struct client_keys *keys, struct error *err) {
    struct client_keys_spec spec = key_options_spec(&options->keys);
    if (!client_keys_load(keys, &spec, err)) {
        return NULL;
    }
    int last = keys->server_count > 0 ? keys->server_count - 1 : 0; /* NULL where there is none */
    return client_open(&(struct client_spec){.endpoint = options->endpoint,
                                             .security = keys->security,
                                             .server_key = keys->servers[last]},
                       err);
}

static bool parse_view(const char *text, Thorax__V1__View *out, struct error *err) {
    static const char *const names[] = {"", "PA", "AP", "LATERAL", "OTHER"};
    for (int i = THORAX__V1__VIEW__VIEW_PA; i <= THORAX__V1__VIEW__VIEW_OTHER; i++) {
        if (strcasecmp(text, names[i]) == 0) {
            *out = (Thorax__V1__View)i;
            return true;
        }
    }
    return error_set(err, ERROR_INVALID, "--view %s: expected PA, AP, LATERAL or OTHER", text);
}

static bool parse_age(const char *text, struct options *out, struct error *err) {
    double years;
    if (!text_to_double(text, &years, err)) {
        return error_prefix(err, "--age");
    }
    out->age_years = (float)years;
    return out->has_age = true;
}

static bool parse_count(const char *flag, const char *text, int64_t high, int64_t *out, struct error *err) {
    return text_to_int(text, 1, high, out, err) || error_prefix(err, "%s", flag);
}

static bool take_endpoint(struct options *out, struct error *err) {
    if (out->endpoint_count == OPTIONS_MAX_ENDPOINTS) {
        return error_set(err, ERROR_INVALID, "more than %d --endpoint", OPTIONS_MAX_ENDPOINTS);
    }
    out->endpoint = out->endpoints[out->endpoint_count++] = optarg;
    return true;
}

static bool take(int option, struct options *out, struct error *err) {
    switch (option) {
    case 'e':
        return take_endpoint(out, err);
    case 'k':
        out->keys.key = optarg;
        return true;
    case 's':
        return key_options_add(&out->keys, optarg, err);
    case 'o':
        out->operating_point = optarg;
        return true;
    case 'j':
        return out->json = true;
    case 'u':
        return out->stat = true;
    case 't':
        return parse_count("--timeout-ms", optarg, TIMEOUT_MAX_MS, &out->timeout_ms, err);
    case 'a':
        return parse_age(optarg, out, err);
    case 'v':
        return parse_view(optarg, &out->view, err);
    default:
        return error_set(err, ERROR_INVALID, "unknown option, or its value is missing");
    }
}

bool options_parse(int argc, char **argv, struct options *out, struct error *err) {
    static const struct option options[] = {
        {"endpoint", required_argument, NULL, 'e'},
        {"key", required_argument, NULL, 'k'},
        {"server-key", required_argument, NULL, 's'},
        {"operating-point", required_argument, NULL, 'o'},
        {"json", no_argument, NULL, 'j'},
        {"stat", no_argument, NULL, 'u'},
        {"timeout-ms", required_argument, NULL, 't'},
        {"age", required_argument, NULL, 'a'},
        {"view", required_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    int option;
    *out = (struct options){.endpoint = INFERCTL_DEFAULT_ENDPOINT, .timeout_ms = TIMEOUT_MS};
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (!take(option, out, err)) {
            return false;
        }
    }
    if (out->endpoint_count == 0) {
        out->endpoints[out->endpoint_count++] = out->endpoint;
    }
    key_options_finish(&out->keys);
    out->files = argv + optind;
    out->file_count = argc - optind;
    return true;
}

int options_fail(const struct error *err, int code) {
    fprintf(stderr, "inferctl: %s%s%s\n", err->message, *err->hint ? "; " : "", err->hint);
    return code;
}
