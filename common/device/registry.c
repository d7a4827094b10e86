#include "common/device/device.h"
#include "common/device/reference/reference.h"
#ifdef THORAX_HAVE_ONEDNN
#include "common/device/onednn/onednn.h"
#endif

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* Devices that need libraries which most machines lack live in a shared object of their own. It stays loaded
 * until the process ends: CUDA's own threads do not survive an unload. */
static const char PLUGIN[] = "libthorax-cuda.so";

static const char *cuda_trouble(const struct device_ops **ops) {
    void *plugin = dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL);
    *ops = plugin ? dlsym(plugin, "cuda_device_ops") : NULL;
    const char *why = *ops ? NULL : dlerror();
    return *ops ? NULL : why ? why : "it has no cuda_device_ops";
}

static bool cuda_is_absent(struct error *err) {
    const struct device_ops *ops;
    const char *why = cuda_trouble(&ops);
    return error_set(err, ERROR_UNSUPPORTED, "%s", why ? why : "it could not be loaded before");
}

/* Stands in the registry where the shared object cannot be loaded. */
static const struct device_ops cuda_absent_ops = {.name = "cuda", .available = cuda_is_absent};

static const struct device_ops *load_cuda(void) {
    const struct device_ops *ops;
    return cuda_trouble(&ops) ? &cuda_absent_ops : ops;
}

/* Which devices there are: the one place that knows. */
static const struct row {
    const char *name;
    const struct device_ops *ops;           /* NULL: */
    const struct device_ops *(*load)(void); /* costly, so only for the row that is asked for */
} rows[] = {
    {"reference", &reference_device_ops, NULL},
#ifdef THORAX_HAVE_ONEDNN
    {"onednn", &onednn_device_ops, NULL},
#endif
    {"cuda", NULL, load_cuda},
};
enum { ROW_COUNT = sizeof rows / sizeof *rows };

static const struct device_ops *ops_of(const struct row *row) {
    return row->ops ? row->ops : row->load();
}

const struct device_ops *device_registry_row(int i) {
    return i >= 0 && i < ROW_COUNT ? ops_of(&rows[i]) : NULL;
}

static const struct device_ops *find_row(const char *name, struct error *err) {
    char names[128] = "";
    size_t used = 0;
    for (int i = 0; i < ROW_COUNT; i++) {
        if (name && strcmp(rows[i].name, name) == 0)
            return ops_of(&rows[i]);
        int length = snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", rows[i].name);
        used += length > 0 && (size_t)length < sizeof names - used ? (size_t)length : 0;
    }
    error_set(err, ERROR_NOT_FOUND, "there is no device \"%s\"; this build has: %s", name ? name : "", names);
    return NULL;
}

static bool is_available(const struct device_ops *ops, struct error *err) {
    struct error why = {0};
    return ops->available(&why) ||
           error_set(err, ERROR_UNSUPPORTED, "the device %s cannot be opened here: %s", ops->name, why.message);
}

int device_count(const char *name, struct error *err) {
    const struct device_ops *ops = find_row(name, err);
    if (!ops || !is_available(ops, err))
        return 0;
    return ops->count ? ops->count() : 1;
}

struct device *device_open(const struct device_spec *spec, struct error *err) {
    const struct device_ops *ops = find_row(spec->name, err);
    if (!ops)
        return NULL;
    if (spec->share && (!ops->shares || spec->share->ops != ops)) {
        error_set(err, ERROR_UNSUPPORTED, "a device %s cannot share with a device %s", ops->name, spec->share->ops->name);
        return NULL;
    }
    if (!is_available(ops, err))
        return NULL;
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
