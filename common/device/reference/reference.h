#pragma once
#include "common/device/device.h"

/** Plain loops in double, on one thread; always available. See README.md. */
extern const struct device_ops reference_device_ops;
