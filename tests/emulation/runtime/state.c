#include "tests/emulation/runtime/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { DEFAULT_DEVICES = 1, DEFAULT_MEMORY_MIB = 8192, DEFAULT_DELAY_US = 200 };

static struct state state = {.lock = PTHREAD_MUTEX_INITIALIZER, .progress = PTHREAD_COND_INITIALIZER};
static pid_t owner; /* 0: nothing was made yet */

static long from_environment(const char *name, long least, long most, long otherwise) {
    const char *text = getenv(name);
    char *end;
    if (!text || !*text)
        return otherwise;
    long value = strtol(text, &end, 10);
    if (*end == '\0' && value >= least && value <= most)
        return value;
    emulation_finding("%s=%s is not a number from %ld to %ld", name, text, least, most);
    return otherwise;
}

static void read_environment(void) {
    state.device_count = (int)from_environment("THORAX_EMULATION_DEVICES", 0, MOST_DEVICES, DEFAULT_DEVICES);
    state.memory_bytes = (size_t)from_environment("THORAX_EMULATION_MEMORY_MIB", 1, 1 << 20, DEFAULT_MEMORY_MIB) << 20;
    state.delay_us = (unsigned)from_environment("THORAX_EMULATION_DELAY_US", 0, 1000000, DEFAULT_DELAY_US);
    state.failures[EMULATION_FAIL_ALLOCATION] = from_environment("THORAX_EMULATION_FAIL_ALLOCATION", 0, LONG_MAX, 0);
    state.failures[EMULATION_FAIL_HOST_ALLOCATION] =
        from_environment("THORAX_EMULATION_FAIL_HOST_ALLOCATION", 0, LONG_MAX, 0);
    state.failures[EMULATION_FAIL_LAUNCH] = from_environment("THORAX_EMULATION_FAIL_LAUNCH", 0, LONG_MAX, 0);
}

struct state *state_lock(void) {
    pthread_mutex_lock(&state.lock);
    if (!owner) {
        owner = getpid();
        read_environment();
    } else if (owner != getpid()) {
        emulation_finding("CUDA was used in process %d and is now used in its fork %d, where none of its streams run",
                          (int)owner, (int)getpid());
        fflush(NULL);
        _exit(EMULATION_EXIT_FINDING);
    }
    return &state;
}

void state_unlock(void) {
    pthread_mutex_unlock(&state.lock);
}

struct state *state_held(void) {
    return &state;
}

void clock_join(struct vector_clock *into, const struct vector_clock *other) {
    for (int i = 0; i < MOST_STREAMS; i++)
        if (into->tick[i] < other->tick[i])
            into->tick[i] = other->tick[i];
}

bool failure_is_due(enum emulation_failure failure) {
    return state.failures[failure] > 0 && --state.failures[failure] == 0;
}

void emulation_fail(enum emulation_failure failure, int64_t n) {
    state_lock()->failures[failure] = n;
    state_unlock();
}

bool emulation_fails(enum emulation_failure failure) {
    state_lock();
    bool due = failure_is_due(failure);
    state_unlock();
    return due;
}

/** After a fault CUDA refuses whatever would give something back. */
static bool any_device_failed(void) {
    for (int i = 0; i < MOST_DEVICES; i++)
        if (state.devices[i].error != cudaSuccess)
            return true;
    return false;
}

/** The last word: what was left behind, and the exit status where anything was found. A fork has nothing to say. */
__attribute__((destructor)) static void finish(void) {
    if (owner && owner != getpid())
        return;
    if (owner && !any_device_failed()) {
        memory_report_leaks();
        handles_report_leaks();
    }
    if (getenv("THORAX_EMULATION_LOG"))
        calls_print();
    if (emulation_findings() > 0) {
        fprintf(stderr, "emulation: %d findings\n", emulation_findings());
        fflush(NULL);
        _exit(EMULATION_EXIT_FINDING);
    }
}
