#pragma once
#include "common/base/error.h"

/**
 * Makes sure that no memory of this process is ever written to disk when it crashes: it may hold patients' pictures. For
 * every program that reads them; call it first, in each process (an exec undoes half of it). The limit of 0 bytes covers dumps
 * to a file; a kernel that pipes dumps to a collector does not look at the limit but asks whether the process is dumpable
 * (core(5), prctl(2)). Side effect: debuggers of the same user can no longer attach.
 */
bool core_dump_forbid(struct error *err);
