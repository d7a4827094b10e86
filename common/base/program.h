#pragma once
#include "common/base/error.h"

#include <limits.h>

/**
 * What to execute for one more process of this program: "/proc/self/exe". Where that is the dynamic loader,
 * because a bundle (deploy/bundle) starts its programs by a loader of its own, it is the absolute path in the
 * environment's THORAX_PROGRAM: the script that started us. Borrowed from the environment, for as long as
 * nobody changes that variable.
 */
const char *program_path(void);

/** The folder, without symbolic links, that holds program_path's file. */
bool program_folder(char out[PATH_MAX], struct error *err);
