#include "inferd/instances.h"
#include "common/base/log.h"

static int at_least_one(int number) {
    return number > 1 ? number : 1;
}

static int as_many_as_fit(const struct instances_spec *spec, int processors) {
    int count = spec->shares ? at_least_one(processors / at_least_one(spec->threads)) : 1;
    return count < INSTANCES_MAX ? count : INSTANCES_MAX;
}

/** Each instance has one thread, which queues and waits: it needs no processor of its own. */
static bool plan_gpus(const struct instances_spec *spec, struct instances *out, struct error *err) {
    int each = at_least_one(spec->count);
    if (each > 1 && !spec->shares) {
        return error_set(err, ERROR_UNSUPPORTED, "%d, and this device has place for one", each);
    }
    if (each * spec->gpus.count > INSTANCES_MAX) {
        return error_set(err, ERROR_INVALID, "%d on each of %d GPUs: at most %d together", each, spec->gpus.count,
                         INSTANCES_MAX);
    }
    *out = (struct instances){.count = each * spec->gpus.count, .threads = 1, .gpus = spec->gpus};
    return true;
}

bool instances_plan(const struct instances_spec *spec, struct instances *out, struct error *err) {
    *out = (struct instances){0};
    if (spec->gpus.count > 0) {
        return plan_gpus(spec, out, err);
    }
    if (!cpu_available(&out->processors, err)) {
        return false;
    }
    int processors = out->processors.count, wanted = spec->count * at_least_one(spec->threads);
    if (spec->count > 1 && !spec->shares) {
        return error_set(err, ERROR_UNSUPPORTED, "%d, and this device has place for one", spec->count);
    }
    if (spec->count > 1 && wanted > processors) {
        return error_set(err, ERROR_INVALID, "%d with %d thread%s each need %d processors, and this process has %d",
                         spec->count, at_least_one(spec->threads), spec->threads > 1 ? "s" : "", wanted, processors);
    }
    out->count = spec->count > 0 ? spec->count : as_many_as_fit(spec, processors);
    out->threads = spec->threads > 0 ? spec->threads : at_least_one(spec->count > 0 ? processors / out->count : 1);
    return true;
}

int instances_gpu(const struct instances *instances, int instance, int otherwise) {
    const struct gpus *gpus = instances ? &instances->gpus : NULL;
    return gpus && gpus->count > 0 ? gpus->index[instance % gpus->count] : otherwise;
}

const char *instances_device(const struct instances *instances, int instance) {
    int gpus = instances ? instances->gpus.count : 0;
    return instances ? instances->device[gpus > 0 ? instance % gpus : 0] : "";
}

int instances_each(const struct instances *instances) {
    return !instances ? 1 : instances->gpus.count > 0 ? instances->count / instances->gpus.count : instances->count;
}

void instances_enter(const struct instances *instances, int instance) {
    struct cpu_set share;
    struct error err = {0};
    if (!instances || instances->processors.count == 0) {
        return;
    }
    cpu_share(&instances->processors, instance, instances->count, &share);
    if (!cpu_pin(&share, &err)) {
        log_error("instance_not_pinned", &err);
    }
}
