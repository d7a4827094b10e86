#include "tests/emulation/emulation.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST_PRINTED = 50 };

static atomic_int findings;
static atomic_uint_fast64_t drawn;

void emulation_finding(const char *format, ...) {
    char text[512];
    va_list arguments;
    int before = atomic_fetch_add(&findings, 1);
    if (before >= MOST_PRINTED)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "emulation: %s%s\n", text, before + 1 == MOST_PRINTED ? " (no more are printed)" : "");
}

int emulation_findings(void) {
    return atomic_load(&findings);
}

/* SplitMix64 (Steele, Lea and Flood, 2014), whose state only counts: so it can be shared without a lock. */
uint32_t emulation_random(void) {
    static atomic_uint_fast64_t seed;
    if (!atomic_load(&seed)) {
        const char *text = getenv("THORAX_EMULATION_SEED");
        atomic_store(&seed, (text ? strtoull(text, NULL, 10) : 0) * 2 + 1);
    }
    uint64_t z = atomic_load(&seed) + (atomic_fetch_add(&drawn, 1) + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}
