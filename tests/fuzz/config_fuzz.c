/* Any bytes as a configuration: reading them ends, cleanly, in values or in problems; values in force print and read back. */
#include "tests/unit/config/example.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_reads_back(const struct example *values) {
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        return;
    schema_print_yaml(&example_schema, values, out);
    fclose(out);
    struct config config;
    struct example again;
    struct error err;
    if (length <= YAML_MAX_BYTES && config_parse(&config, text, length, "printed", &err)) {
        if (!schema_read(&example_schema, &config, &again, &err))
            abort();
        config_fini(&config);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct config config;
    struct example values;
    struct error err;
    if (!config_parse(&config, (const char *)data, size, "fuzz", &err))
        return 0;
    if (schema_read(&example_schema, &config, &values, &err))
        check_reads_back(&values);
    char *assignment = strndup((const char *)data, size);
    if (assignment)
        config_set(&config, assignment, &err);
    free(assignment);
    config_fini(&config);
    return 0;
}
