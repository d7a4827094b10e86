#include "tests/emulation/runtime/state.h"

#include <stdio.h>
#include <string.h>

/* The log of calls, and handles; each list has a lock of its own, taken last and held for a moment. */

enum { MOST_NAMES = 512 };

static struct {
    pthread_mutex_t lock;
    struct {
        const char *name;
        enum emulation_call kind;
        int64_t count;
    } rows[MOST_NAMES];
    int count;
} calls = {.lock = PTHREAD_MUTEX_INITIALIZER};

void emulation_note(enum emulation_call kind, const char *name) {
    int i = 0;
    pthread_mutex_lock(&calls.lock);
    while (i < calls.count && strcmp(calls.rows[i].name, name) != 0)
        i++;
    if (i == calls.count && i < MOST_NAMES) {
        calls.rows[i].name = name;
        calls.rows[i].kind = kind;
        calls.count++;
    }
    if (i < MOST_NAMES)
        calls.rows[i].count++;
    pthread_mutex_unlock(&calls.lock);
}

int64_t emulation_calls(enum emulation_call kind) {
    int64_t sum = 0;
    pthread_mutex_lock(&calls.lock);
    for (int i = 0; i < calls.count; i++)
        sum += calls.rows[i].kind == kind ? calls.rows[i].count : 0;
    pthread_mutex_unlock(&calls.lock);
    return sum;
}

int64_t emulation_calls_named(const char *name) {
    int64_t sum = 0;
    pthread_mutex_lock(&calls.lock);
    for (int i = 0; i < calls.count; i++)
        sum += strcmp(calls.rows[i].name, name) == 0 ? calls.rows[i].count : 0;
    pthread_mutex_unlock(&calls.lock);
    return sum;
}

void emulation_clear_calls(void) {
    pthread_mutex_lock(&calls.lock);
    for (int i = 0; i < calls.count; i++)
        calls.rows[i].count = 0;
    pthread_mutex_unlock(&calls.lock);
}

void calls_print(void) {
    pthread_mutex_lock(&calls.lock);
    for (int i = 0; i < calls.count; i++)
        fprintf(stderr, "emulation: %10lld %s\n", (long long)calls.rows[i].count, calls.rows[i].name);
    pthread_mutex_unlock(&calls.lock);
}

/* --- handles --- */

struct handle {
    const char *kind;
    const void *handle;
};

enum { MOST_HANDLES = 1 << 16 };

static struct {
    pthread_mutex_t lock;
    struct handle rows[MOST_HANDLES];
    int count;
    const void *destroyed[MOST_HANDLES]; /* never freed, so that none is given out again; here no tool takes them for lost */
    int destroyed_count;
} handles = {.lock = PTHREAD_MUTEX_INITIALIZER};

/** Its place, or -1. With the lock of the handles. */
static int handle_at(const char *kind, const void *handle) {
    for (int i = handles.count - 1; i >= 0; i--)
        if (handles.rows[i].handle == handle && strcmp(handles.rows[i].kind, kind) == 0)
            return i;
    return -1;
}

void emulation_handle_add(const char *kind, const void *handle) {
    pthread_mutex_lock(&handles.lock);
    if (handles.count < MOST_HANDLES)
        handles.rows[handles.count++] = (struct handle){kind, handle};
    pthread_mutex_unlock(&handles.lock);
}

bool emulation_handle_check(const char *kind, const void *handle, const char *who) {
    pthread_mutex_lock(&handles.lock);
    bool live = handle_at(kind, handle) >= 0;
    pthread_mutex_unlock(&handles.lock);
    if (!live)
        emulation_finding("%s: %p is no %s, or it was destroyed", who, handle, kind);
    return live;
}

bool emulation_handle_remove(const char *kind, const void *handle, const char *who) {
    pthread_mutex_lock(&handles.lock);
    int at = handle_at(kind, handle);
    if (at >= 0)
        handles.rows[at] = handles.rows[--handles.count];
    if (at >= 0 && handles.destroyed_count < MOST_HANDLES)
        handles.destroyed[handles.destroyed_count++] = handle;
    pthread_mutex_unlock(&handles.lock);
    if (at < 0)
        emulation_finding("%s: %p is no %s, or it was destroyed before", who, handle, kind);
    return at >= 0;
}

void handles_report_leaks(void) {
    pthread_mutex_lock(&handles.lock);
    for (int i = 0; i < handles.count; i++)
        emulation_finding("a %s (%p) was never destroyed", handles.rows[i].kind, handles.rows[i].handle);
    pthread_mutex_unlock(&handles.lock);
}
