#pragma once
#include <stddef.h>
#include <stdint.h>

/** Monotonic time in nanoseconds, for durations and deadlines. */
int64_t clock_now_ns(void);

/** What the calling thread has had of a core so far, in nanoseconds: it stands still while others have it. */
int64_t clock_thread_ns(void);

/** Monotonic time in milliseconds. */
int64_t clock_now_ms(void);

/** Wall-clock time in milliseconds since 1970, for records that people and other machines read. */
int64_t clock_wall_ms(void);

/** Writes the wall clock as "2026-11-23T01:02:03.456Z"; size should be 32 or more. */
void clock_timestamp(char *out, size_t size);

/** Milliseconds left until the monotonic deadline, at least 0. */
int64_t clock_left_ms(int64_t deadline_ms);

/** Sleeps for that long, or less where a signal arrives. */
void clock_sleep_ms(int64_t ms);
void clock_sleep_us(int64_t us);
