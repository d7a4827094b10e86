#include "tests/conformance/rounding.h"

#include "common/tensor/element.h"

#include <math.h>

static const double tolerance = 1e-5;

static double rounded(enum dtype dtype, double value) {
    uint64_t room = 0; /* for an element of any dtype */
    element_store(&room, dtype, 0, value);
    return element_load(&room, dtype, 0);
}

void rounding_compare(const struct tensor *got, const struct tensor *want, const struct tensor *unrounded,
                      struct rounding *out) {
    int64_t count = shape_count(&want->shape);
    out->elements += count;
    for (int64_t i = 0; i < count; i++) {
        double is = element_load(got->data, got->dtype, i), should = element_load(want->data, want->dtype, i);
        if (is == should)
            continue;
        double value = element_load(unrounded->data, unrounded->dtype, i), slack = fabs(value) * tolerance;
        bool excused = is >= rounded(want->dtype, value - slack) && is <= rounded(want->dtype, value + slack);
        out->differing++;
        out->wrong += !excused;
    }
}
