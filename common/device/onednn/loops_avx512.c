#include "common/device/onednn/lanes_avx512.h"

#define lanes_narrow lanes_narrow_portable
#define lanes_fence  _mm_sfence
#define LOOPS_TABLE  loops_avx512
#define LOOPS_NAME   "loops:avx512"
#include "common/device/onednn/loops_body.h"
