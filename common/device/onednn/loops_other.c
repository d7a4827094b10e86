#include "common/device/onednn/loops.h"

/* Where there is nothing but what the compiler makes of plain C. */
extern const struct loops loops_portable;

const struct loops *loops_row(int i) {
    return i == 0 ? &loops_portable : NULL;
}
