"""A tensor as it is stored: dtype, shape, bytes and digest."""

import hashlib

import numpy as np
import pytest
import torch

from hubedit.errors import DeltaError
from hubedit.updates import StoredTensor


def test_a_digest_is_of_dtype_shape_and_bytes():
    tensor = StoredTensor.from_array(torch.arange(6).reshape(2, 3).to(torch.bfloat16))
    raw_bytes = b"\x00\x00\x80\x3f\x00\x40\x40\x40\x80\x40\xa0\x40"
    assert tensor.data.tobytes() == raw_bytes
    assert tensor.sha256() == hashlib.sha256(b"BF16:2,3:" + raw_bytes).hexdigest()
    flat = StoredTensor("BF16", (6,), tensor.data)
    assert flat.sha256() != tensor.sha256()


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (torch.bool, "BOOL"), (torch.uint8, "U8"), (torch.int8, "I8"), (torch.int16, "I16"),
        (torch.int32, "I32"), (torch.int64, "I64"), (torch.float16, "F16"),
        (torch.bfloat16, "BF16"), (torch.float32, "F32"), (torch.float64, "F64"),
        (torch.float8_e4m3fn, "F8_E4M3"), (torch.float8_e5m2, "F8_E5M2"),
        (torch.complex64, "C64"), (torch.uint16, "U16"),
    ],
)  # fmt: skip
def test_torch_tensors_are_stored_as_safetensors_stores_them(dtype, name, tmp_path):
    from safetensors.torch import save

    tensor = torch.arange(6).reshape(2, 3).to(dtype).t()
    found = StoredTensor.from_array(tensor.requires_grad_(dtype.is_floating_point))
    assert (found.dtype, found.shape) == (name, (3, 2))
    assert save({"x": tensor.detach().contiguous()}).endswith(found.data.tobytes())


def test_a_stored_tensor_refuses_bytes_that_do_not_fit():
    for dtype, shape in (("F32", (2,)), ("BF16", (3,)), ("F4", (9,)), ("F12", (4,))):
        with pytest.raises(DeltaError):
            StoredTensor(dtype, shape, np.zeros(4, np.uint8))
    with pytest.raises(DeltaError):
        StoredTensor.from_array(np.array(["text"]))


def test_a_stored_tensor_cannot_be_written_to():
    tensor = StoredTensor.from_array(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="read-only"):
        tensor.data[0] = 1
