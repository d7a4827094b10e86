#pragma once
#include <stdbool.h>

/** Programs that misbehave: each runs in a fork, since the emulation judges a process at its exit. */

struct outcome {
    int status; /**< exit status; 128 + signal where one ended it */
    char stderr_text[8192];
};

/** Runs behave() in a fork that exits with 0 behind it, NAME=VALUE pairs (up to a NULL) in its environment. */
void child_run(void (*behave)(void), const char *const *environment, struct outcome *out);

/** In the child: ends it with status 3 where the condition does not hold. */
void child_require(bool condition, const char *what);

/** In the parent, cmocka's assertions: the child was found out with this text, or ended well and silently. */
void assert_found(void (*behave)(void), const char *text);
void assert_clean(void (*behave)(void));
/** With these NAME=VALUE pairs (up to a NULL) in its environment. */
void assert_clean_in(void (*behave)(void), const char *const *environment);
