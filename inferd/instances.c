#include "inferd/instances.h"
#include "common/base/log.h"

static int at_least_one(int number) {
    return number > 1 ? number : 1;
}

static int as_many_as_fit(const struct instances_spec *spec, int processors) {
    int count = spec->shares ? at_least_one(processors / at_least_one(spec->threads)) : 1;
    return count < INSTANCES_MAX ? count : INSTANCES_MAX;
}

bool instances_plan(const struct instances_spec *spec, struct instances *out, struct error *err) {
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
