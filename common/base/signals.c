#include "common/base/signals.h"

volatile sig_atomic_t signals_stop;
volatile sig_atomic_t signals_child;

static void on_signal(int number) {
    if (number == SIGCHLD)
        signals_child = 1;
    else
        signals_stop = signals_stop + 1;
}

bool signals_install(struct error *err) {
    struct sigaction action = {.sa_handler = on_signal};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGTERM, &action, NULL) != 0 || sigaction(SIGINT, &action, NULL) != 0 ||
        sigaction(SIGCHLD, &action, NULL) != 0 || sigaction(SIGPIPE, &ignore, NULL) != 0)
        return error_set_errno(err, "sigaction");
    return true;
}
