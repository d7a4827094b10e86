#include "common/models/registry.h"
