#include "common/base/text.h"
#include "tests/bench/crew.h"

#include <string.h>

/*
 * Ranks that run when another program says so, for tests/bench/ranks: reads lines `run N` and `machine` and answers each with one
 * line of JSON. `run` does N steps in every rank; the figures of the ranks are added up (images_per_s) or averaged (per step).
 */

struct crew_program {
    struct crew_spec spec;
    struct crew *crew;
    struct crew_report reports[CREW_MAX_RANKS];
};

static void answer_steps(const struct crew_program *program) {
    const struct crew_spec *spec = &program->spec;
    double images_per_s = 0, busy = 0, waited = 0, cpu = 0, sums = 0, bytes = 0;
    for (int rank = 0; rank < spec->ranks; rank++) {
        const struct crew_report *report = &program->reports[rank];
        double steps = report->count * spec->ranks;
        images_per_s += spec->subject.batch * 1e3 / crew_mean_ms(report);
        busy += report->busy_ms / steps;
        waited += report->waited_ms / steps;
        cpu += report->cpu_ms / steps;
        sums += report->sums / steps;
        bytes += report->sum_bytes / steps;
    }
    printf("{\"images_per_s\": %.5f, \"communication_ms\": %.4f, \"exposed_ms\": %.4f, \"communication_cpu_ms\": %.4f, "
           "\"sums\": %.6g, \"bytes\": %.10g, \"ms\": [",
           images_per_s, busy, waited, cpu, sums, bytes);
    for (int i = 0; i < program->reports[0].count; i++)
        printf("%s%.4f", i ? ", " : "", program->reports[0].ms[i]);
    puts("]}");
}

static bool answer(struct crew_program *program, const char *line, struct error *err) {
    int64_t count;
    if (strcmp(line, "machine") == 0) {
        struct machine machine = crew_machine(program->crew);
        machine_print_json(&machine, stdout);
        putchar('\n');
        return true;
    }
    if (strncmp(line, "run ", 4) != 0)
        return error_set(err, ERROR_INVALID, "\"%s\" is none of run N, machine", line);
    if (!text_to_int(line + 4, 1, CREW_MAX_VALUES, &count, err))
        return false;
    const struct crew_order order = {CREW_STEPS, (int)count, 0};
    if (!crew_tell(program->crew, &order, program->reports, err))
        return false;
    answer_steps(program);
    return true;
}

static bool serve(struct crew_program *program, struct error *err) {
    char line[64];
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        if (!answer(program, line, err))
            return false;
        fflush(stdout);
    }
    return true;
}

static const char usage[] =
    "Usage: crew [--ranks N] [--lone] [--architecture NAME] [--size N] [--batch N] [--precision NAME] [--bucket-bytes N]\n"
    "            [--bf16-gradients]\n"
    "Starts ranks on a core each, which train together or, --lone, each by itself, and runs them when it is told to. The batch\n"
    "is a rank's.\n";

static int parse_options(int argc, char **argv, struct crew_spec *spec) {
    static const struct option rows[] = {CREW_OPTION_ROWS,
                                         {"ranks", required_argument, 0, 'A'},
                                         {"lone", no_argument, 0, 'B'},
                                         {"help", no_argument, 0, 'h'},
                                         {0}};
    for (int c; (c = getopt_long(argc, argv, "h", rows, NULL)) >= 0;) {
        bool good = true;
        if (c == 'h') {
            fputs(usage, stdout);
            return 0;
        }
        if (c == 'A')
            good = subject_take_number(optarg, CREW_MAX_RANKS, &spec->ranks);
        else if (c == 'B')
            spec->lone = true;
        else
            good = crew_take_option(&spec->subject, c, optarg);
        if (!good) {
            fputs(usage, stderr);
            return 2;
        }
    }
    return optind == argc ? -1 : 2;
}

int main(int argc, char **argv) {
    static struct crew_program program;
    struct error err = {0};
    program.spec = (struct crew_spec){.subject = subject_options_default(), .ranks = 2};
    program.spec.subject.batch = 8;
    int code = parse_options(argc, argv, &program.spec);
    if (code >= 0)
        return code;
    bool good = (program.crew = crew_open(&program.spec, &err)) && serve(&program, &err);
    if (!good)
        fprintf(stderr, "crew: %s\n", err.message);
    crew_close(program.crew);
    return good ? 0 : 1;
}
