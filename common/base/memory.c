#include "common/base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/** The limit of one control group; INT64_MAX: none ("max"), or it cannot be read. */
static int64_t read_limit(const char *path) {
    int64_t limit = INT64_MAX;
    FILE *file = fopen(path, "re");
    if (file) {
        if (fscanf(file, "%" SCNd64, &limit) != 1)
            limit = INT64_MAX;
        fclose(file);
    }
    return limit;
}

/** The least limit of our control group and those above it. */
static int64_t group_limit(void) {
    char line[1024], path[1200];
    int64_t least = INT64_MAX;
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (!file)
        return least;
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, "0::", 3) != 0)
            continue;
        line[strcspn(line, "\n")] = '\0';
        for (char *group = line + 3, *slash; *group; *slash = '\0') {
            snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
            int64_t limit = read_limit(path);
            least = limit < least ? limit : least;
            if (!(slash = strrchr(group, '/')))
                break;
        }
    }
    fclose(file);
    return least;
}

int64_t memory_limit_bytes(void) {
    int64_t pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    int64_t machine = pages > 0 && page > 0 ? pages * page : INT64_MAX, group = group_limit();
    return group < machine ? group : machine;
}
