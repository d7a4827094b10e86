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
    const char *key;        /**< --key, or THORAX_KEY: a file; NULL: clear text */
    const char *server_key; /**< --server-key, or THORAX_SERVER_KEY: a file or the key; NULL: none */
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

/** The help of --key and --server-key, which all take. */
#define CONTROL_KEYS                                                                                         \
    "  --key FILE        our own NAME.key, where the publisher has keys (else: the variable THORAX_KEY)\n"   \
    "  --server-key KEY  then the publisher's NAME.pub, or its 40 characters (THORAX_SERVER_KEY)\n"

/** As control_open, with the keys that were asked for. In any case then control_leave. */
bool control_enter(struct control *control, struct control_keys *keys, const struct control_options *options,
                   struct error *err);
void control_leave(struct control *control, struct control_keys *keys);

/** Opens, asks and closes: the answer (owned), which is of that kind or an error. */
Thorax__V1__ControlReply *control_ask_once(const struct control_options *options,
                                           Thorax__V1__ControlRequest *request,
                                           Thorax__V1__ControlReply__BodyCase kind, struct error *err);

/** For a command that is one request: asks for it to be done and prints that it is. Returns the exit code. */
int control_do(char **argv, const struct control_options *options, Thorax__V1__ControlRequest *request);
