#include "trainerd/hostlist.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds) {
    if (!holds)
        abort();
}

static void check_host(const char *list) {
    char host[HOSTLIST_HOST_SIZE];
    if (hostlist_first(list, host, NULL))
        must(host[0] && !strpbrk(host, "[], \n") && strlen(host) < sizeof host);
}

static void check_tasks(const char *list) {
    struct hostlist_tasks tasks;
    if (!hostlist_tasks(list, 0, &tasks, NULL))
        return;
    must(tasks.here >= 1 && tasks.here <= tasks.most && tasks.most <= tasks.tasks && tasks.nodes <= tasks.tasks);
    must(!hostlist_tasks(list, tasks.nodes, &tasks, NULL));
}

/** Each list stands in memory of exactly its size, so that a byte read behind its end is seen. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *list = calloc(size + 1, 1);
    must(list != NULL);
    memcpy(list, data, size);
    check_host(list);
    check_tasks(list);
    free(list);
    return 0;
}
