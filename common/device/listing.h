#pragma once
#include <stdio.h>

/**
 * Prints what can compute here, for people: each registry row with what is there (GPUs: one line each,
 * "cuda:0", ...), or why it cannot be opened. Opens and closes every device. Returns how many there are.
 */
int device_list(FILE *out);
