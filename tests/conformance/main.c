/*
 * conformance DEVICE [THREADS]: compares every operation and pass of a device with the reference device.
 * Ends with 0 where all agree, 1 where something differs, 2 on wrong usage, 77 where the device cannot be
 * opened here.
 */
#include "common/base/text.h"
#include "tests/conformance/cases.h"
#include "tests/conformance/conformance.h"

#include <stdio.h>
#include <string.h>

enum { EXIT_DIFFERENT = 1, EXIT_USAGE = 2, EXIT_SKIPPED = 77, MOST_THREADS = 1024 };

static int usage(void) {
    fprintf(stderr, "usage: conformance DEVICE [THREADS]\ndevices:");
    for (int i = 0; device_registry_row(i); i++)
        fprintf(stderr, " %s", device_registry_row(i)->name);
    fprintf(stderr, "\n");
    return EXIT_USAGE;
}

static int compare_devices(struct conformance *conformance) {
    struct device_info info;
    struct error err = {0};
    conformance->tested->ops->info(conformance->tested, &info);
    printf("%s against the reference, %d cases\n", info.name, conformance_case_count);
    for (int i = 0; i < conformance_case_count; i++) {
        if (!conformance_case(conformance, &conformance_cases[i], &err)) {
            fprintf(stderr, "conformance: case %d: %s\n", i, err.message);
            return EXIT_DIFFERENT;
        }
    }
    int failures = conformance_report(conformance);
    printf("%s: %d failures\n", info.name, failures);
    return failures ? EXIT_DIFFERENT : 0;
}

int main(int argc, char **argv) {
    int64_t threads = 0;
    struct error err = {0};
    if (argc < 2 || argc > 3 || (argc == 3 && !text_to_int(argv[2], 1, MOST_THREADS, &threads, NULL)))
        return usage();
    struct device_spec spec = {.name = argv[1], .threads = (int)threads}, oracle_spec = {.name = "reference"};
    static struct conformance conformance;
    conformance.exact = strcmp(argv[1], "reference") == 0;
    conformance.tested = device_open(&spec, &err);
    conformance.oracle = conformance.tested ? device_open(&oracle_spec, &err) : NULL;
    int status = EXIT_DIFFERENT;
    if (conformance.oracle)
        status = compare_devices(&conformance);
    else
        fprintf(stderr, "conformance: %s\n", err.message);
    if (err.code == ERROR_UNSUPPORTED)
        status = EXIT_SKIPPED;
    device_close(conformance.oracle);
    device_close(conformance.tested);
    return status;
}
