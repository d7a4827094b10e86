#include "tests/unit/process_size.h"
#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

struct process_size process_size_of(int process) {
    struct process_size size = {0};
    char path[64];
    long pages = 0;
    int id = process ? process : (int)getpid();
    snprintf(path, sizeof path, "/proc/%d/statm", id);
    FILE *file = fopen(path, "re");
    if (file) {
        if (fscanf(file, "%*d %ld", &pages) != 1) {
            pages = 0;
        }
        fclose(file);
    }
    size.resident_bytes = pages * sysconf(_SC_PAGESIZE);
    snprintf(path, sizeof path, "/proc/%d/fd", id);
    DIR *folder = opendir(path);
    while (folder && readdir(folder)) {
        size.descriptors++;
    }
    if (folder) {
        closedir(folder);
    }
    return size;
}
