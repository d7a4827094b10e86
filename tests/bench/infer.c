#include "tests/bench/ladder.h"

/** How fast a network answers, folded as inferd runs it, over a ladder of batch sizes whose plans share the weights. */
static const struct ladder_program program = {
    .name = "infer",
    .usage = "Usage: infer [--architecture NAME] [--precision f32|bf16] [--batch N,...] [--size N] [--channels N]\n"
             "             [--threads N] [--rounds N] [--device NAME] [--weights FILE.safetensors] [--json] [--serve [--split]]\n"
             "Measures inference. --serve: runs when it is told to on stdin (run N, logits, machine); --split: the batch in\n"
             "the parts that inferd would make of it.\n",
    .batches = "1,2,4,8,16",
    .infer = true,
};

int main(int argc, char **argv) {
    return ladder_main(argc, argv, &program);
}
