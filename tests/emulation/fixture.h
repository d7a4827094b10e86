#pragma once
#include "tests/emulation/child.h"
#include "tests/emulation/emulation.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/** What the tests of the emulated runtime begin with. All of it is for children (child.h). */

enum { COUNT = 1000, BYTES = COUNT * sizeof(float) };

/** For child_run: a process with two devices. */
extern const char *const two_devices[];

/** Ends the child where the call failed. */
void ok(cudaError_t result);

/** COUNT floats on the current device. */
float *allocate(void);
cudaStream_t make_stream(void);
/** Without timing. */
cudaEvent_t make_event(void);

/** to[i] = max(from[i], 0): a kernel of ours, launched as nvcc's host code would. */
cudaError_t launch(const float *from, float *to, int64_t count, cudaStream_t stream);
/** The same by another name than that of a kernel. */
cudaError_t launch_unregistered(const char *name);

/** Work that waits until as many as the barrier was made for have come; argument: a pointer to a pointer to it. */
void meet(void *argument);
