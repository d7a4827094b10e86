#include "common/device/device.h"
#include "common/device/reference/reference.h"
#ifdef THORAX_HAVE_ONEDNN
#include "common/device/onednn/onednn.h"
#endif

#include <stdio.h>
#include <string.h>

/* Which devices are compiled in: the one place that knows. */
static const struct device_ops *const rows[] = {
    &reference_device_ops,
#ifdef THORAX_HAVE_ONEDNN
    &onednn_device_ops,
#endif
};
enum { ROW_COUNT = sizeof rows / sizeof *rows };

const struct device_ops *device_registry_row(int i) {
    return i >= 0 && i < ROW_COUNT ? rows[i] : NULL;
}

static const struct device_ops *find_row(const char *name, struct error *err) {
    char names[128] = "";
    size_t used = 0;
    for (int i = 0; i < ROW_COUNT; i++) {
        if (name && strcmp(rows[i]->name, name) == 0)
            return rows[i];
        int length = snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", rows[i]->name);
        used += length > 0 && (size_t)length < sizeof names - used ? (size_t)length : 0;
    }
    error_set(err, ERROR_NOT_FOUND, "there is no device \"%s\"; this build has: %s", name ? name : "", names);
    return NULL;
}

struct device *device_open(const struct device_spec *spec, struct error *err) {
    const struct device_ops *ops = find_row(spec->name, err);
    struct error why = {0};
    if (!ops)
        return NULL;
    if (!ops->available(&why)) {
        error_set(err, ERROR_UNSUPPORTED, "the device %s cannot be opened here: %s", ops->name, why.message);
        return NULL;
    }
    if (spec->index < 0 || spec->threads < 0) {
        error_set(err, ERROR_INVALID, "device %s: index %d and threads %d should not be negative", ops->name,
                  spec->index, spec->threads);
        return NULL;
    }
    return ops->open(spec, err);
}

void device_close(struct device *device) {
    if (device)
        device->ops->close(device);
}
