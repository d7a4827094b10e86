#define WIDTH 4
#include "common/device/onednn/lanes.h"

static inline uint16_t lanes_greater(lanes_f32 a, lanes_f32 b) {
    return lanes_pack_portable(a > b);
}

static inline void lanes_stream_f32(float *to, lanes_f32 v) {
    lanes_store_f32(to, v, WIDTH);
}

static inline void lanes_stream_u16(uint16_t *to, lanes_u16 v) {
    memcpy(to, &v, sizeof v);
}

#define lanes_keep   lanes_keep_portable
#define lanes_widen  lanes_widen_portable
#define lanes_narrow lanes_narrow_portable
#define lanes_fence  lanes_no_fence
#define LOOPS_TABLE  loops_portable
#define LOOPS_NAME   "loops:portable"
#include "common/device/onednn/loops_body.h"
