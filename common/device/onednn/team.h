#pragma once
#include <stdint.h>

/** One thread's share of a job: part of parts. Must not fail. */
typedef void team_body(void *context, int part, int parts);

/** Runs body once on each of `threads` threads, the caller among them, and returns when all are done. */
void team_run(int threads, team_body *body, void *context);

/** Makes oneDNN, when it is called from this thread, prepare and run with that many threads. */
void team_adopt(int threads);

/** The even share [begin, end) of count things that falls to part. */
void team_share(int64_t count, int part, int parts, int64_t *begin, int64_t *end);
