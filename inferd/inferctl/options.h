#pragma once
#include "common/base/error.h"
#include "inferd/client/client.h"

enum { OPTIONS_MAX_ENDPOINTS = 64 };

/** What the commands' flags say; each command uses its part. */
struct options {
    const char *endpoint, *operating_point; /**< endpoint: the one that was given last */
    const char *endpoints[OPTIONS_MAX_ENDPOINTS]; /**< all that were given, or the default */
    int endpoint_count;
    int64_t timeout_ms;
    bool json, stat, has_age;
    float age_years;
    Thorax__V1__View view;
    int file_count;
    char **files; /**< inside argv */
};

/** Reads the flags of one command; argv[0] is its name and is not looked at. */
bool options_parse(int argc, char **argv, struct options *out, struct error *err);

/** Prints "inferctl: message" and returns the code. */
int options_fail(const struct error *err, int code);
