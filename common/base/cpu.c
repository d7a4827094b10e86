#include "common/base/cpu.h"

#include "common/base/program.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
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

int cpu_online(void) {
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (int)count : 1;
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

#if defined(__x86_64__)
/* What compilers' built-in names lack (Intel's Software Developer's Manual, CPUID leaf 7). */
static bool has_avx512_bf16(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5);
}

static bool has_amx_bf16(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & 1u << 22);
}

static const char *avx512_kind(void) {
    if (has_amx_bf16())
        return "avx512_amx";
    if (has_avx512_bf16())
        return "avx512_bf16";
    return __builtin_cpu_supports("avx512vnni") ? "avx512_vnni" : "avx512";
}

const char *cpu_instruction_set(void) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        return avx512_kind();
    return __builtin_cpu_supports("avx2") ? "avx2" : "sse";
}
#else
const char *cpu_instruction_set(void) {
    return "generic";
}
#endif

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
    execv(program_path(), argv);
    return error_set_errno(err, "%s: exec", program_path());
}
