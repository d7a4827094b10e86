#include "common/base/memory.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 2048 };

/** The number behind a word at the start of a line, in the file's own unit; "": the first line's. -1: there
 * is none
 * ("max"), or it cannot be read. */
static int64_t read_number(const char *path, const char *word) {
    char line[256];
    int64_t value = -1;
    size_t length = strlen(word);
    FILE *file = fopen(path, "re");
    while (file && value < 0 && fgets(line, sizeof line, file)) {
        if (strncmp(line, word, length) == 0 && sscanf(line + length, "%" SCNd64, &value) != 1)
            value = -1;
    }
    if (file)
        fclose(file);
    return value;
}

/** What one control group allows, or leaves. INT64_MAX: it sets no bound. */
static int64_t group_bytes(const char *root, const char *group, bool left) {
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/sys/fs/cgroup%s/memory.max", root, group);
    int64_t limit = read_number(path, "");
    if (limit < 0)
        return INT64_MAX;
    if (!left)
        return limit;
    snprintf(path, sizeof path, "%s/sys/fs/cgroup%s/memory.current", root, group);
    int64_t used = read_number(path, "");
    if (used < 0)
        return INT64_MAX;
    return limit > used ? limit - used : 0;
}

/** The least of a group and those above it, the outermost that is seen from here too. Takes group apart. */
static int64_t least_of_groups(const char *root, char *group, bool left) {
    int64_t least = INT64_MAX;
    for (;;) {
        int64_t bytes = group_bytes(root, group, left);
        least = bytes < least ? bytes : least;
        char *slash = strrchr(group, '/');
        if (!slash)
            return least;
        *slash = '\0';
    }
}

static int64_t own_groups(const char *root, bool left) {
    char line[1024], path[PATH_BYTES];
    int64_t least = INT64_MAX;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "0::", 3) == 0)
            least = least_of_groups(root, line + 3, left);
    }
    if (file)
        fclose(file);
    return least;
}

int64_t memory_group_limit_at(const char *root) {
    return own_groups(root, false);
}

int64_t memory_available_at(const char *root) {
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    int64_t kilobytes = read_number(path, "MemAvailable:");
    int64_t available = kilobytes < 0 ? INT64_MAX : kilobytes * 1024, left = own_groups(root, true);
    return left < available ? left : available;
}

int64_t memory_limit_bytes(void) {
    int64_t pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    int64_t machine = pages > 0 && page > 0 ? pages * page : INT64_MAX, group = memory_group_limit_at("");
    return group < machine ? group : machine;
}

int64_t memory_available(void) {
    return memory_available_at("");
}
