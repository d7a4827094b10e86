#pragma once
#include "tests/bench/subject.h"

/**
 * A batch as inferd computes it: in the split of smaller batches that its own rule (inferd/ladder.h) makes of what each size was
 * measured to cost here.
 */
struct split;

/** `first` is open, of the whole batch, and stays the caller's; it is closed after the split. NULL on error. */
struct split *split_open(const struct subject *first, struct error *err);
/** Takes NULL. */
void split_close(struct split *split);
/** Computes the batch, its images handed over again: those that subject_fill makes. `logits` (N, K), or NULL. */
bool split_run(struct split *split, float *logits, struct error *err);
/** The sizes that the batch is computed in, e.g. "8+8". Returns out. */
const char *split_text(const struct split *split, char *out, size_t size);
