#include "inferd/engine.h"

#include "common/base/cpu.h"
#include "common/base/text.h"
#include "common/graph/plan.h"

#include <stdio.h>
#include <string.h>

/** Rows of the registry go from the oracle to the fastest. */
const char *engine_device(const char *name) {
    const struct device_ops *row;
    if (strcmp(name, "auto") != 0) {
        return name;
    }
    name = "reference";
    for (int i = 0; (row = device_registry_row(i)); i++) {
        name = row->available(NULL) ? row->name : name;
    }
    return name;
}

/** NULL: there is no such device. */
static const struct device_ops *find_row(const char *device) {
    const struct device_ops *row;
    for (int i = 0; (row = device_registry_row(i)) && strcmp(row->name, device) != 0; i++) {
    }
    return row;
}

bool engine_shares(const char *device) {
    const struct device_ops *row = find_row(device);
    return row && row->shares;
}

static bool take_all(int there, struct gpus *out) {
    out->count = there < GPUS_MAX ? there : GPUS_MAX;
    for (int i = 0; i < out->count; i++) {
        out->index[i] = i;
    }
    return true;
}

static bool take_named(const char *item, int there, struct gpus *out, struct error *err) {
    int64_t index;
    if (!text_to_int(item, 0, INT32_MAX, &index, NULL)) {
        return error_set(err, ERROR_INVALID, "\"%.40s\": expected all, or a list of numbers such as [0, 1]", item);
    }
    if (index >= there) {
        return error_set(err, ERROR_NOT_FOUND, "there is no GPU %d: this machine has %d (0 to %d)", (int)index, there, there - 1);
    }
    for (int i = 0; i < out->count; i++) {
        if (out->index[i] == (int)index) {
            return error_set(err, ERROR_INVALID, "GPU %d is there twice; device.instances says how many compute on each",
                             (int)index);
        }
    }
    if (out->count == GPUS_MAX) {
        return error_set(err, ERROR_INVALID, "at most %d", GPUS_MAX);
    }
    out->index[out->count++] = (int)index;
    return true;
}

bool engine_gpus(const char *device, const char *const *items, int count, struct gpus *out, struct error *err) {
    const struct device_ops *row = find_row(device);
    bool all = count == 1 && strcmp(items[0], "all") == 0;
    *out = (struct gpus){0};
    if (!row || !row->count) {
        return all || error_set(err, ERROR_INVALID, "the device is %s, which is no GPU", device);
    }
    int there = device_count(device, err);
    if (there == 0) {
        return false;
    }
    if (count == 0) {
        return error_set(err, ERROR_INVALID, "expected at least one");
    }
    bool ok = !all || take_all(there, out);
    for (int i = 0; ok && !all && i < count; i++) {
        ok = take_named(items[i], there, out, err);
    }
    return ok;
}

static bool describe_one(const struct device_spec *spec, bool on_gpu, char *name, struct engine_facts *out, struct error *err) {
    struct device_info info;
    struct device *device = device_open(spec, err);
    if (!device) {
        return false;
    }
    device->ops->info(device, &info);
    for (enum precision precision = PRECISION_F32; precision < PRECISION_COUNT; precision++) {
        out->computes[precision] &= plan_precision_supported(device, precision, PLAN_INFER, NULL);
    }
    device_close(device);
    if (on_gpu) {
        snprintf(name, DEVICE_TEXT_SIZE, "GPU %d: %s", spec->index, info.name);
        out->gpu_bytes = out->gpu_bytes && out->gpu_bytes < info.memory_bytes ? out->gpu_bytes : info.memory_bytes;
    } else {
        snprintf(name, DEVICE_TEXT_SIZE, "%s", info.name);
    }
    return true;
}

bool engine_describe(const struct device_spec *spec, struct instances *instances, struct engine_facts *out, struct error *err) {
    int gpus = instances->gpus.count;
    struct device_spec one = *spec;
    bool ok = true;
    *out = (struct engine_facts){0};
    memset(out->computes, true, sizeof out->computes);
    one.threads = instances->threads;
    for (int i = 0; ok && i < (gpus > 0 ? gpus : 1); i++) {
        one.index = gpus > 0 ? instances->gpus.index[i] : 0;
        ok = describe_one(&one, gpus > 0, instances->device[i], out, err);
    }
    return ok;
}

bool engine_wait_policy(char *const argv[], struct error *err) {
    static const char *const environment[][2] = {
        {"OMP_WAIT_POLICY", "passive"}, {"GOMP_SPINCOUNT", "10000"}, {NULL, NULL}};
    return cpu_environment(argv, environment, err);
}
