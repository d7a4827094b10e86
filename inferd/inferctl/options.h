#pragma once
#include "common/base/error.h"
#include "inferd/client/client.h"
#include "inferd/client/keys.h"

enum { OPTIONS_MAX_ENDPOINTS = 64 };

/** What --key and --server-key say. */
struct key_options {
    const char *key;
    const char *server_keys[OPTIONS_MAX_ENDPOINTS];
    int server_key_count;
};
/** Takes one --server-key. */
bool key_options_add(struct key_options *keys, const char *server_key, struct error *err);
/** Where the flags were not given, THORAX_KEY and THORAX_SERVER_KEY count. */
void key_options_finish(struct key_options *keys);
/** For client_keys_load; borrows. */
struct client_keys_spec key_options_spec(const struct key_options *keys);

/** What the commands' flags say; each command uses its part. */
struct options {
    const char *endpoint, *operating_point; /**< endpoint: the one that was given last */
    const char *endpoints[OPTIONS_MAX_ENDPOINTS]; /**< all that were given, or the default */
    int endpoint_count;
    struct key_options keys;
    int64_t timeout_ms;
    bool json, stat, has_age;
    float age_years;
    Thorax__V1__View view;
    int file_count;
    char **files; /**< inside argv */
};

/** Reads the flags of one command; argv[0] is its name and is not looked at. */
bool options_parse(int argc, char **argv, struct options *out, struct error *err);

/** Reads the keys and connects to the endpoint that was given last. keys: filled in, outlives the client, to be finished
 * also on error. */
struct client *options_connect(const struct options *options, struct client_keys *keys, struct error *err);

/** Prints "inferctl: message" and returns the code. */
int options_fail(const struct error *err, int code);
