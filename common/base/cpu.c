#include "common/base/cpu.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool cpu_available(struct cpu_set *out, struct error *err) {
    cpu_set_t mask;
    out->count = 0;
    if (sched_getaffinity(0, sizeof mask, &mask) != 0)
        return error_set_errno(err, "sched_getaffinity");
    for (int i = 0; i < CPU_SETSIZE && out->count < 1024; i++) {
        if (CPU_ISSET(i, &mask))
            out->ids[out->count++] = i;
    }
    return true;
}

void cpu_share(const struct cpu_set *set, int part, int parts, struct cpu_set *out) {
    out->count = 0;
    if (set->count < parts) {
        out->ids[out->count++] = set->ids[part % set->count];
        return;
    }
    int first = (int)((long)set->count * part / parts), last = (int)((long)set->count * (part + 1) / parts);
    for (int i = first; i < last; i++)
        out->ids[out->count++] = set->ids[i];
}

bool cpu_pin(const struct cpu_set *set, struct error *err) {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    for (int i = 0; i < set->count; i++)
        CPU_SET(set->ids[i], &mask);
    return sched_setaffinity(0, sizeof mask, &mask) == 0 || error_set_errno(err, "sched_setaffinity");
}

const char *cpu_instruction_set(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        return __builtin_cpu_supports("avx512vnni") ? "avx512_vnni" : "avx512";
    return __builtin_cpu_supports("avx2") ? "avx2" : "sse";
#else
    return "generic";
#endif
}

bool cpu_environment(char *const argv[], const char *const pairs[][2], struct error *err) {
    bool missing = false;
    for (int i = 0; pairs[i][0]; i++) {
        if (getenv(pairs[i][0]))
            continue;
        missing = true;
        setenv(pairs[i][0], pairs[i][1], 0);
    }
    if (!missing)
        return true;
    execv("/proc/self/exe", argv);
    return error_set_errno(err, "/proc/self/exe: exec");
}
