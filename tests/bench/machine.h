#pragma once
#include "tests/bench/subject.h"

#include <stdio.h>

/** What a figure was measured on. */
struct machine {
    char cpu[128];               /**< the processor's name, "unknown" where the system does not say */
    int cores;                   /**< that this process may use */
    const char *instruction_set; /**< as cpu_instruction_set names it */
    char device[64];             /**< with the library's version and the threads that compute */
    char split[64];              /**< the parts that a batch is computed in; empty: in one */
};

/** With the name of the device that computes. */
struct machine machine_of(const char *device);
struct machine machine_describe(const struct subject *subject);

/** One JSON object, without an end of line. */
void machine_print_json(const struct machine *machine, FILE *out);
