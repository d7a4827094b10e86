#pragma once
#include "tests/bench/split.h"

#include <stdio.h>

/**
 * Lets another program say when to run, so that its rounds and ours alternate. Prints "ready" and answers each line of in with
 * one line of JSON on out until in ends:
 *   run N     runs N steps (training: with the update) or batches: {"ms": [...]}, what each took
 *   logits    runs once, without an update: {"logits": [...]}, (N, K) in a row, and in training "loss"
 *   machine   {"cpu": ..., "device": ...}
 * With a split (else NULL) batches are computed by it.
 * Returns false, with an error, at a line that is none of these and where a run fails.
 */
bool serve(struct subject *subject, struct split *split, FILE *in, FILE *out, struct error *err);
