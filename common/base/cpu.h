#pragma once
#include "common/base/error.h"
#include <stddef.h>

/** The processors that this process may run on, in ascending order. */
struct cpu_set {
    int count;
    int ids[1024];
};

/** The processors in the affinity mask of the calling thread. */
bool cpu_available(struct cpu_set *out, struct error *err);

/** How many processors this machine has that are online, whoever may run on them. */
int cpu_online(void);

/** The part-th of `parts` even shares of set; where there are fewer processors than parts, they are shared round-robin. */
void cpu_share(const struct cpu_set *set, int part, int parts, struct cpu_set *out);

/** Pins the calling thread, and the threads it starts from now on, to set. */
bool cpu_pin(const struct cpu_set *set, struct error *err);

/**
 * The instruction-set name that decides which kernels run: "avx512_amx", "avx512_bf16", "avx512_vnni", "avx512", "avx2", "sse";
 * "generic" on other processors.
 */
const char *cpu_instruction_set(void);

/**
 * Makes sure that the environment has NAME=VALUE for each pair (a value that is set already stays), and starts this
 * program anew with the same arguments where something was missing: OpenMP reads its variables before main. NULL ends pairs.
 * Returns true where nothing had to change; false with an error where exec failed; else does not return.
 */
bool cpu_environment(char *const argv[], const char *const pairs[][2], struct error *err);
