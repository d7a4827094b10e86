#include "common/base/signals.h"

#include <stddef.h>

volatile sig_atomic_t signals_stop;
volatile sig_atomic_t signals_regroup;
volatile sig_atomic_t signals_child;

static volatile sig_atomic_t announced; /* SIGUSR1 came first, and no SIGTERM since */

/** A second SIGTERM is somebody's impatience; the one that SIGUSR1 announced is none. */
static void count_stop(int number) {
    if (number == SIGUSR1) {
        announced = announced || !signals_stop;
        signals_stop = signals_stop ? signals_stop : 1;
    } else if (announced) {
        announced = 0;
    } else {
        signals_stop = signals_stop + 1;
    }
}

static void on_signal(int number) {
    if (number == SIGCHLD)
        signals_child = 1;
    else if (number == SIGUSR2)
        signals_regroup = 1;
    else
        count_stop(number);
}

bool signals_install(struct error *err) {
    static const int handled[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGCHLD};
    struct sigaction action = {.sa_handler = on_signal};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigfillset(&action.sa_mask);
    for (size_t i = 0; i < sizeof handled / sizeof *handled; i++) {
        if (sigaction(handled[i], &action, NULL) != 0)
            return error_set_errno(err, "sigaction");
    }
    return sigaction(SIGPIPE, &ignore, NULL) == 0 || error_set_errno(err, "sigaction");
}
