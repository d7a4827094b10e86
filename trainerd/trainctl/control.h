#pragma once
#include "trainerd/control.h"

/** What the commands that talk to a publisher have in common on their command lines. */
struct control_options {
    const char *endpoint; /**< --to, --at: POOL_DEFAULT_CONTROL unless given */
    int64_t timeout_ms;   /**< --timeout-ms: 10000 unless given */
    bool json;            /**< --json */
    const char *file;     /**< the one argument, where the command takes one: a file, or a model's name */
    const char *by;       /**< --by: who asks, for the record */
    const char *reason;   /**< --reason or --note; "" unless given */
    int64_t after;        /**< --after; 0 unless given */
    const char *sign_key; /**< --sign-key: a file; NULL unless given */
    const char *plan;     /**< --plan: a name or a file */
    const char *plans;    /**< --plans: a folder; NULL unless given */
    bool watch;           /**< --watch */
};

/** What a command takes besides what all of them take. Bits. */
enum {
    CONTROL_ARGUMENT = 1,      /**< exactly one argument */
    CONTROL_BY = 2,            /**< --by, which is then required, and --reason or --note */
    CONTROL_AFTER = 4,         /**< --after */
    CONTROL_SIGN = 8,          /**< --sign-key */
    CONTROL_MAY_ARGUMENT = 64, /**< one argument or none */
    CONTROL_PLAN = 16,         /**< --plan, which is then required, and --plans */
    CONTROL_WATCH = 32,        /**< --watch */
};

/**
 * Parses argv. Returns -1 to go on, else the exit code: 0 where usage was printed on request, 2 where what
 * was given makes no sense, which stderr has been told. Words in usage must fit these options.
 */
int control_parse(int argc, char **argv, unsigned takes, const char *usage, struct control_options *options);
/** Says on stderr what went wrong with command argv[0]; returns the exit code 1. */
int control_failed(char **argv, const struct error *err);

/** Opens, asks and closes: the answer (owned), which is of that kind or an error. */
Thorax__V1__ControlReply *control_ask_once(const struct control_options *options,
                                           Thorax__V1__ControlRequest *request,
                                           Thorax__V1__ControlReply__BodyCase kind, struct error *err);

/** For a command that is one request: asks for it to be done and prints that it is. Returns the exit code. */
int control_do(char **argv, const struct control_options *options, Thorax__V1__ControlRequest *request);
