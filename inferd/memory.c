#include "inferd/memory.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/** The number behind a word, in the file's own unit; -1: there is none. */
static int64_t read_number(const char *path, const char *word) {
    char line[256];
    int64_t value = -1;
    FILE *file = fopen(path, "re");
    while (file && value < 0 && fgets(line, sizeof line, file)) {
        size_t length = strlen(word);
        if (strncmp(line, word, length) == 0 && sscanf(line + length, "%" SCNd64, &value) != 1) {
            value = -1;
        }
    }
    if (file) {
        fclose(file);
    }
    return value;
}

int64_t memory_available(void) {
    int64_t kilobytes = read_number("/proc/meminfo", "MemAvailable:");
    int64_t available = kilobytes < 0 ? INT64_MAX : kilobytes * 1024;
    /* As a container sees its own group; "max", no number, is no limit. */
    int64_t limit = read_number("/sys/fs/cgroup/memory.max", "");
    int64_t used = read_number("/sys/fs/cgroup/memory.current", "");
    if (limit >= 0 && used >= 0) {
        int64_t left = limit > used ? limit - used : 0;
        available = left < available ? left : available;
    }
    return available;
}
