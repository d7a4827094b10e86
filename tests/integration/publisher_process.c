#include "tests/integration/publisher_process.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

extern char **environ;

enum { LOOK_MS = 2 };

/** The folder's counters, shared between the test and its publishers; NULL: no. */
static struct publisher_counters *map_counters(const char *folder) {
    char path[128];
    snprintf(path, sizeof path, "%s/counters", folder);
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    void *memory = MAP_FAILED;
    if (file >= 0 && ftruncate(file, sizeof(struct publisher_counters)) == 0)
        memory = mmap(NULL, sizeof(struct publisher_counters), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file >= 0)
        close(file);
    return memory == MAP_FAILED ? NULL : memory;
}

/** In the publisher's process: publishes until it is killed. */
static int publish_until_killed(const char *folder, enum publisher_activate activate) {
    struct pool pool;
    struct publisher_counters *counters = map_counters(folder);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!counters || !digest_start(NULL))
        return 1;
    pool_name(&pool, folder);
    start_publisher(&pool, activate);
    atomic_store(&counters->sent_bytes, 0);
    atomic_fetch_add(&counters->starts, 1);
    for (struct publisher_status status; publisher_status(pool.publisher, &status, NULL); clock_sleep_ms(LOOK_MS))
        atomic_store(&counters->sent_bytes, status.sent_bytes);
    return 1;
}

bool publisher_process_main(int argc, char **argv, int *code) {
    if (argc != 4 || strcmp(argv[1], "--publisher") != 0)
        return false;
    log_init("publisher", LOG_ERROR, LOG_TEXT);
    *code = publish_until_killed(argv[2], strcmp(argv[3], "auto") == 0 ? PUBLISHER_ACTIVATE_AUTO : PUBLISHER_ACTIVATE_MANUAL);
    return true;
}

void publisher_process_start(struct publisher_process *process, struct pool *pool, enum publisher_activate activate) {
    char *const arguments[] = {"publisher", "--publisher", pool->folder,
                               activate == PUBLISHER_ACTIVATE_AUTO ? "auto" : "manual", NULL};
    if (!process->counters)
        process->counters = map_counters(pool->folder);
    assert_non_null(process->counters);
    int before = atomic_load(&process->counters->starts);
    assert_int_equal(posix_spawn(&process->pid, "/proc/self/exe", NULL, NULL, arguments, environ), 0);
    for (int64_t deadline_ms = clock_now_ms() + WAIT_MS; atomic_load(&process->counters->starts) == before; clock_sleep_ms(1)) {
        assert_true(clock_now_ms() < deadline_ms);
        assert_int_equal(waitpid(process->pid, NULL, WNOHANG), 0); /* it says why it ends */
    }
}

void publisher_process_kill(struct publisher_process *process) {
    if (!process->pid)
        return;
    kill(process->pid, SIGKILL);
    waitpid(process->pid, NULL, 0);
    process->pid = 0;
}

void publisher_process_fini(struct publisher_process *process) {
    publisher_process_kill(process);
    if (process->counters)
        munmap(process->counters, sizeof *process->counters);
    *process = (struct publisher_process){0};
}
