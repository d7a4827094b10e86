#include "tests/bench/ladder.h"

/** How fast a network trains: forward, backward, update and moving average on a batch that lies in the plan. */
static const struct ladder_program program = {
    .name = "train",
    .usage = "Usage: train [--architecture NAME] [--precision f32|bf16] [--batch N,...] [--size N] [--channels N]\n"
             "             [--threads N] [--rounds N] [--device NAME] [--weights FILE.safetensors] [--json] [--serve]\n"
             "Measures training steps. --serve: runs when it is told to on stdin (run N, logits, machine).\n",
    .batches = "16",
};

int main(int argc, char **argv) {
    return ladder_main(argc, argv, &program);
}
