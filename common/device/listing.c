#include "common/device/listing.h"

#include "common/device/device.h"

static void print_device(const char *name, int index, const struct device_info *info, FILE *out) {
    char label[32];
    snprintf(label, sizeof label, info->host_memory ? "%s" : "%s:%d", name, index);
    fprintf(out, "%-10s %s", label, info->name);
    if (info->memory_bytes > 0 && !info->host_memory)
        fprintf(out, ", %.1f GiB", (double)info->memory_bytes / (1 << 30));
    fputc('\n', out);
}

/* GPUs are numbered from 0 without gaps; a CPU has no number, and is the device whose memory is the host's.
 */
static int list_row(const struct device_ops *row, FILE *out) {
    struct device_spec spec = {.name = row->name};
    struct device_info info = {0};
    for (; !info.host_memory; spec.index++) {
        struct error err = {0};
        struct device *device = device_open(&spec, &err);
        if (!device && (spec.index == 0 || err.code != ERROR_NOT_FOUND))
            fprintf(out, "%-10s not here: %s\n", row->name, err.message);
        if (!device)
            return spec.index;
        device->ops->info(device, &info);
        print_device(row->name, spec.index, &info, out);
        device_close(device);
    }
    return spec.index;
}

int device_list(FILE *out) {
    const struct device_ops *row;
    int count = 0;
    for (int i = 0; (row = device_registry_row(i)); i++)
        count += list_row(row, out);
    return count;
}
