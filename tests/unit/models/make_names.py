#!/usr/bin/python3
"""Records names and shapes of the networks' tensors, for models_test.c: state_dict of the PyTorch definitions in tests/golden/make_golden.py.

    /usr/bin/python3 tests/unit/models/make_names.py > tests/unit/models/names.txt

One line each: architecture, name, dimensions; three input channels, 1000 classes. num_batches_tracked, PyTorch's counter, is left out.
"""
import importlib.util, os

here = os.path.dirname(os.path.abspath(__file__))
spec = importlib.util.spec_from_file_location("make_golden", os.path.join(here, "../../golden/make_golden.py"))
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)
for architecture, build in golden.MODELS.items():
    for name, tensor in build(3, 1000, "7x7").state_dict().items():
        if not name.endswith("num_batches_tracked"):
            print(architecture, name, *tensor.shape)
