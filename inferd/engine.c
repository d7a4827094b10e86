#include "inferd/engine.h"

#include "common/base/cpu.h"
#include "common/device/device.h"

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

bool engine_shares(const char *device) {
    const struct device_ops *row;
    for (int i = 0; (row = device_registry_row(i)); i++) {
        if (strcmp(row->name, device) == 0) {
            return row->shares;
        }
    }
    return false;
}

bool engine_wait_policy(char *const argv[], struct error *err) {
    static const char *const environment[][2] = {
        {"OMP_WAIT_POLICY", "passive"}, {"GOMP_SPINCOUNT", "10000"}, {NULL, NULL}};
    return cpu_environment(argv, environment, err);
}
