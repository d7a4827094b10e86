/*
 * conformance DEVICE [THREADS [SEED [OPERATION...]]]: compares every operation (or those that are named) and pass of a
 * device with the reference device, in f32 and, where the device has them, in bf16, f16 and int8, in the cases of the tables
 * and in some random ones; another seed gives others. Ends with 0 where all agree, 1 where something differs, 2 on wrong
 * usage, 77 where the device cannot be opened here.
 */
#include "common/base/text.h"
#include "tests/conformance/cases.h"
#include "tests/conformance/conformance.h"

#include <stdio.h>
#include <string.h>

enum { EXIT_DIFFERENT = 1, EXIT_USAGE = 2, EXIT_SKIPPED = 77, MOST_THREADS = 1024, RANDOM_CASES = 60 };

static int usage(void) {
    fprintf(stderr, "usage: conformance DEVICE [THREADS [SEED [OPERATION...]]]\ndevices:");
    for (int i = 0; device_registry_row(i); i++)
        fprintf(stderr, " %s", device_registry_row(i)->name);
    fprintf(stderr, "\noperations:");
    for (int kind = 0; kind < OP_KIND_COUNT; kind++)
        fprintf(stderr, " %s", op_kind_name(kind));
    fprintf(stderr, "\n");
    return EXIT_USAGE;
}

/* Takes the operations of the command line, all where there are none. False: there is no such operation. */
static bool choose(bool chosen[OP_KIND_COUNT], char **names, int count) {
    for (int kind = 0; kind < OP_KIND_COUNT; kind++)
        chosen[kind] = count == 0;
    for (int i = 0; i < count; i++) {
        int kind = 0;
        while (kind < OP_KIND_COUNT && strcmp(op_kind_name(kind), names[i]) != 0)
            kind++;
        if (kind == OP_KIND_COUNT)
            return false;
        chosen[kind] = true;
    }
    return true;
}

/* All cases of the chosen operations in one precision. False: the oracle failed. */
static bool run_cases(struct conformance *conformance, const bool chosen[OP_KIND_COUNT], enum precision precision,
                      uint64_t seed) {
    struct error err = {0};
    bool int8 = precision == PRECISION_INT8;
    const struct op_case *fixed = int8 ? conformance_int8_cases : conformance_cases;
    int count = int8 ? conformance_int8_case_count : conformance_case_count;
    struct device_info info;
    conformance->tested->ops->info(conformance->tested, &info);
    for (int i = 0; i < count + RANDOM_CASES; i++) {
        struct op_case c;
        if (i < count)
            c = fixed[i];
        else
            conformance_random_case(precision, seed, (uint32_t)i, &c);
        c.pairs_in_16_bits = info.int8_weight_bits == 7;
        if (!chosen[c.op.kind])
            continue;
        if (!conformance_case(conformance, precision, &c, &err)) {
            fprintf(stderr, "conformance: %s, case %d: %s\n", precision_name(precision), i, err.message);
            return false;
        }
    }
    return true;
}

static int compare_devices(struct conformance *conformance, const bool chosen[OP_KIND_COUNT], uint64_t seed) {
    static const enum precision precisions[] = {PRECISION_F32, PRECISION_BF16, PRECISION_F16, PRECISION_INT8};
    struct device_info info;
    conformance->tested->ops->info(conformance->tested, &info);
    printf("%s against the reference, %d cases, %d on integers, and %d random ones of each\n", info.name,
           conformance_case_count, conformance_int8_case_count, RANDOM_CASES);
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++) {
        if (!conformance_supports(conformance, precisions[i]))
            printf("%s: skipped, the device has no arithmetic for it here\n", precision_name(precisions[i]));
        else if (!run_cases(conformance, chosen, precisions[i], seed))
            return EXIT_DIFFERENT;
    }
    int failures = conformance_report(conformance);
    printf("%s: %d failures\n", info.name, failures);
    return failures ? EXIT_DIFFERENT : 0;
}

int main(int argc, char **argv) {
    int64_t threads = 0, seed = 1;
    struct error err = {0};
    bool chosen[OP_KIND_COUNT];
    int named = argc > 4 ? argc - 4 : 0;
    if (argc < 2 || (argc > 2 && !text_to_int(argv[2], 0, MOST_THREADS, &threads, NULL)) ||
        (argc > 3 && !text_to_int(argv[3], 0, INT64_MAX, &seed, NULL)) ||
        !choose(chosen, argv + argc - named, named))
        return usage();
    struct device_spec spec = {.name = argv[1], .threads = (int)threads}, oracle_spec = {.name = "reference"};
    static struct conformance conformance;
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* what was found so far is seen even where a library crashes */
    conformance.exact = strcmp(argv[1], "reference") == 0;
    conformance.tested = device_open(&spec, &err);
    conformance.oracle = conformance.tested ? device_open(&oracle_spec, &err) : NULL;
    int status = EXIT_DIFFERENT;
    if (conformance.oracle)
        status = compare_devices(&conformance, chosen, (uint64_t)seed);
    else
        fprintf(stderr, "conformance: %s\n", err.message);
    if (err.code == ERROR_UNSUPPORTED)
        status = EXIT_SKIPPED;
    device_close(conformance.oracle);
    device_close(conformance.tested);
    return status;
}
