#include "common/op/op.h"
