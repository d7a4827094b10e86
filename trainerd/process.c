#include "trainerd/process.h"

#include "common/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CANNOT_EXECUTE = 127 };

/** All that the child needs between fork and exec, made before the fork: after it, memory cannot be allocated
 * safely. */
struct launch {
    const struct process_spec *spec;
    char **environment; /* owned, and the strings that were added */
    int inherited;      /* how many of them are not ours to free */
    cpu_set_t mask;
    pid_t parent;
    int words; /* the end to write to */
    struct error cannot_execute;
};

static bool overridden(const char *variable, const struct process_spec *spec) {
    size_t length = strcspn(variable, "=");
    for (int i = 0; spec->extra[i][0]; i++) {
        if (strncmp(variable, spec->extra[i][0], length) == 0 && spec->extra[i][0][length] == '\0')
            return true;
    }
    return strncmp(variable, spec->words_name, length) == 0 && spec->words_name[length] == '\0';
}

static char *assignment(const char *name, const char *value) {
    char *text = NULL;
    return asprintf(&text, "%s=%s", name, value) < 0 ? NULL : text;
}

static void free_environment(struct launch *launch) {
    for (int i = launch->inherited; launch->environment && launch->environment[i]; i++)
        free(launch->environment[i]);
    free(launch->environment);
}

static bool build_environment(struct launch *launch, struct error *err) {
    const struct process_spec *spec = launch->spec;
    int ours = 0, added = 0, used = 0;
    char words[16];
    snprintf(words, sizeof words, "%d", launch->words);
    while (environ[ours])
        ours++;
    while (spec->extra[added][0])
        added++;
    launch->environment = calloc((size_t)(ours + added) + 2, sizeof *launch->environment);
    if (!launch->environment)
        return error_set(err, ERROR_MEMORY, "starting a process: out of memory");
    for (int i = 0; i < ours; i++) {
        if (!overridden(environ[i], spec))
            launch->environment[used++] = environ[i];
    }
    launch->inherited = used;
    bool ok = (launch->environment[used++] = assignment(spec->words_name, words)) != NULL;
    for (int i = 0; i < added && ok; i++)
        ok = (launch->environment[used++] = assignment(spec->extra[i][0], spec->extra[i][1])) != NULL;
    return ok || error_set(err, ERROR_MEMORY, "starting a process: out of memory");
}

/** In the child. Only calls that are safe between fork and exec in a process with threads. */
_Noreturn static void become(const struct launch *launch) {
    sigset_t none;
    sigemptyset(&none);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != launch->parent)
        _exit(CANNOT_EXECUTE); /* the supervisor died before the line above */
    sched_setaffinity(0, sizeof launch->mask, &launch->mask);
    fcntl(launch->words, F_SETFD, 0);
    /* Handlers would go with exec anyway; until then none of the supervisor's may run here. */
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(launch->spec->program, launch->spec->arguments, launch->environment);
    bool told = write(launch->words, &launch->cannot_execute, sizeof launch->cannot_execute) > 0;
    _exit(told ? CANNOT_EXECUTE : CANNOT_EXECUTE - 1);
}

static void prepare(const struct process_spec *spec, int words, struct launch *launch) {
    memset(launch, 0, sizeof *launch);
    launch->spec = spec;
    launch->parent = getpid();
    launch->words = words;
    error_set(&launch->cannot_execute, ERROR_IO, "cannot execute %s", spec->program);
    CPU_ZERO(&launch->mask);
    for (int i = 0; i < spec->cores->count; i++)
        CPU_SET(spec->cores->ids[i], &launch->mask);
}

bool process_start(const struct process_spec *spec, struct process *out, struct error *err) {
    int ends[2];
    struct launch launch;
    *out = (struct process){.words = -1};
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return error_set_errno(err, "pipe");
    prepare(spec, ends[1], &launch);
    pid_t pid = -1;
    if (build_environment(&launch, err)) {
        sigset_t all, saved;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &saved);
        pid = fork();
        if (pid == 0)
            become(&launch);
        pthread_sigmask(SIG_SETMASK, &saved, NULL);
        if (pid < 0)
            error_set_errno(err, "fork");
    }
    free_environment(&launch);
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return false;
    }
    out->pid = pid;
    out->words = ends[0];
    return true;
}

bool process_ended(struct process *process) {
    if (process->pid == 0)
        return true;
    int status;
    while (waitpid(process->pid, &status, WNOHANG | WUNTRACED | WCONTINUED) == process->pid) {
        process->stopped_ms = WIFSTOPPED(status) ? clock_now_ms() : 0;
        if (WIFSTOPPED(status) || WIFCONTINUED(status))
            continue;
        process->status = status;
        process->pid = 0;
        return true;
    }
    return false;
}

void process_terminate(struct process *process) {
    if (process->pid == 0 || process->sent_term)
        return;
    process->sent_term = true;
    kill(process->pid, SIGTERM);
}

void process_signal(struct process *process, int number) {
    if (process->pid != 0)
        kill(process->pid, number);
}

void process_kill(struct process *process) {
    if (process->pid == 0)
        return;
    process->sent_kill = true;
    kill(process->pid, SIGKILL);
}

void process_fini(struct process *process) {
    process_kill(process);
    while (process->pid != 0 && waitpid(process->pid, &process->status, 0) < 0 && errno == EINTR)
        continue;
    process->pid = 0;
    if (process->words >= 0)
        close(process->words);
    process->words = -1;
}

bool process_last_words(struct process *process, struct error *out) {
    struct error words;
    if (process->words < 0 || read(process->words, &words, sizeof words) != (ssize_t)sizeof words)
        return false;
    words.message[sizeof words.message - 1] = '\0';
    words.hint[sizeof words.hint - 1] = '\0';
    *out = words;
    return words.code > ERROR_NONE && words.code <= ERROR_INTERNAL;
}
