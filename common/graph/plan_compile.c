#include "common/graph/graph.h"
