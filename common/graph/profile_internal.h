#pragma once
#include "common/graph/profile.h"

/** Gives each step the median of its times, and makes the rows of the table. Steps and events are there. */
bool profile_make_rows(struct profile *profile, struct error *err);

/** Of count > 0 values, which it sorts. */
double profile_median(double *values, int count);

/** "training" or "inference". */
const char *profile_mode_name(const struct profile *profile);
