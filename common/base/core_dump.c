#include "common/base/core_dump.h"

#include <sys/prctl.h>
#include <sys/resource.h>

bool core_dump_forbid(struct error *err) {
    struct rlimit none = {0, 0};
    return (setrlimit(RLIMIT_CORE, &none) == 0 && prctl(PR_SET_DUMPABLE, 0) == 0) ||
           error_set_errno(err, "cannot turn core dumps off");
}
