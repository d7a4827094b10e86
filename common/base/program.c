#include "common/base/program.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char SELF[] = "/proc/self/exe";

/* ld-linux-x86-64.so.2, ld-linux-aarch64.so.1, ld-musl-x86_64.so.1. A program of ours would have to be called
 * so for a variable that somebody left in the environment to mean anything. Without /proc there is nothing
 * else to go by. */
static bool loader_runs_us(void) {
    char path[PATH_MAX];
    ssize_t length = readlink(SELF, path, sizeof path - 1);
    if (length < 0)
        return true;
    path[length] = '\0';
    const char *slash = strrchr(path, '/');
    return slash && strncmp(slash + 1, "ld-", 3) == 0;
}

const char *program_path(void) {
    const char *started = getenv("THORAX_PROGRAM");
    return started && *started == '/' && loader_runs_us() ? started : SELF;
}

bool program_folder(char out[PATH_MAX], struct error *err) {
    const char *path = program_path();
    if (!realpath(path, out))
        return error_set_errno(err, "%s", path);
    char *slash = strrchr(out, '/');
    slash[slash == out] = '\0';
    return true;
}
