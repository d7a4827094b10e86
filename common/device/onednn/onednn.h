#pragma once
#include "common/device/device.h"

/**
 * CPUs, through oneDNN (2.6 or 3.x, chosen when it is built): convolution, linear, max pooling and reorders are oneDNN's
 * primitives; what memory bandwidth bounds (batch norm, elementwise, optimiser) are loops of our own over the same layouts.
 */
extern const struct device_ops onednn_device_ops;
