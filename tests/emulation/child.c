#include "tests/emulation/child.h"

#include "tests/emulation/emulation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { EXIT_REQUIREMENT = 3, SIGNALLED = 128 };

static void be_child(void (*behave)(void), const char *const *environment, int out) {
    for (; environment && *environment; environment++)
        putenv((char *)*environment);
    dup2(out, STDERR_FILENO);
    behave();
    exit(0);
}

void child_run(void (*behave)(void), const char *const *environment, struct outcome *out) {
    int ends[2], status;
    size_t used = 0;
    ssize_t got;
    fflush(NULL);
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        be_child(behave, environment, ends[1]);
    close(ends[1]);
    while ((got = read(ends[0], out->stderr_text + used, sizeof out->stderr_text - 1 - used)) > 0)
        used += (size_t)got;
    out->stderr_text[used] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    out->status = WIFEXITED(status) ? WEXITSTATUS(status) : SIGNALLED + WTERMSIG(status);
}

void child_require(bool condition, const char *what) {
    if (condition)
        return;
    fprintf(stderr, "requirement: %s\n", what);
    _exit(EXIT_REQUIREMENT);
}

void assert_found(void (*behave)(void), const char *text) {
    struct outcome outcome;
    child_run(behave, NULL, &outcome);
    if (outcome.status != EMULATION_EXIT_FINDING || !strstr(outcome.stderr_text, text))
        fail_msg("wanted \"%s\", but the child ended with %d: %s", text, outcome.status, outcome.stderr_text);
}

void assert_clean(void (*behave)(void)) {
    assert_clean_in(behave, NULL);
}

void assert_clean_in(void (*behave)(void), const char *const *environment) {
    struct outcome outcome;
    child_run(behave, environment, &outcome);
    if (outcome.status != 0 || outcome.stderr_text[0])
        fail_msg("the child ended with %d: %s", outcome.status, outcome.stderr_text);
}
