#include "common/device/onednn/lanes.h"

static inline uint16_t lanes_pack(lanes_s32 mask) {
    return lanes_pack_portable(mask);
}

static inline void lanes_stream(float *to, lanes_f32 v) {
    lanes_store(to, v, LANES);
}

#define lanes_fence lanes_no_fence
#define LOOPS_TABLE loops_portable
#define LOOPS_NAME  "loops:portable"
#include "common/device/onednn/loops_body.h"
