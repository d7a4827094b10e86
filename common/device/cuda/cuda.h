#pragma once
#include "common/device/device.h"

/** GPUs through CUDA, cuDNN and cuBLAS. Exported by libthorax-cuda.so, which the registry opens. See
 * README.md. */
extern const struct device_ops cuda_device_ops;
