#include "tests/bench/machine.h"

#include "common/base/cpu.h"
#include "common/base/text.h"

#include <string.h>

/* Quotes, backslashes and control characters would need escapes in JSON, and say nothing in a name. */
static void make_plain(char *text) {
    for (char *c = text; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ')
            *c = ' ';
}

/* The value of /proc/cpuinfo's first line "model name : ...". */
static void read_processor(char *out, size_t size) {
    char line[256];
    text_copy(out, size, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        line[strcspn(line, "\n")] = '\0';
        text_copy(out, size, colon + 1 + strspn(colon + 1, " "));
        break;
    }
    if (file)
        fclose(file);
    make_plain(out);
}

struct machine machine_of(const char *device) {
    struct machine machine = {.instruction_set = cpu_instruction_set()};
    struct cpu_set cores = {0};
    struct error err = {0};
    read_processor(machine.cpu, sizeof machine.cpu);
    if (cpu_available(&cores, &err))
        machine.cores = cores.count;
    text_copy(machine.device, sizeof machine.device, device);
    return machine;
}

struct machine machine_describe(const struct subject *subject) {
    struct device_info info;
    subject->device->ops->info(subject->device, &info);
    return machine_of(info.name);
}

void machine_print_json(const struct machine *machine, FILE *out) {
    fprintf(out, "{\"cpu\": \"%s\", \"cores\": %d, \"instruction_set\": \"%s\", \"device\": \"%s\", ", machine->cpu,
            machine->cores, machine->instruction_set, machine->device);
    fprintf(out, "\"split\": \"%s\"}", machine->split);
}
