"""Lists the tensors of a model in the safetensors format, without copying them:
python3 model.py /srv/cache/models/m.safetensors

Each tensor is an array over the region's own pages.  (Beside map.py, which it needs.)"""
import json
import sys

import numpy

from map import Mapped

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}


def tensors(mapped):
    """The file: the header's length in 8 bytes, the header in JSON, and the data."""
    header_end = 8 + int(mapped.array[:8].view("<u8")[0])
    header = json.loads(mapped.array[8:header_end].tobytes())
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        begin, end = tensor["data_offsets"]
        data = mapped.array[header_end + begin:header_end + end]
        yield name, data.view(DTYPES[tensor["dtype"]]).reshape(tensor["shape"])


if __name__ == "__main__":
    mapped = Mapped(sys.argv[1])
    print("the region's own pages" if mapped.own_pages else f"ordinary: {mapped.why}")
    for name, tensor in tensors(mapped):
        print(name, tensor.dtype, tensor.shape, tensor.sum(dtype=numpy.float64))
    del tensor  # the arrays must be gone before the mapping
    mapped.close()
