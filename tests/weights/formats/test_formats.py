"""Every format, read without the library that it belongs to."""

import mmap

import numpy as np
import pytest

from flaim.weights import formats
from tests.weights.formats import containers

COPIED = {"hdf5_compressed", "keras_compressed", "npz_compressed", "pickled_oldest", "pickled_older"}


@pytest.fixture(params=containers.FORMATS, ids=lambda write: write.__name__)
def written(request, tmp_path):
    """How a file was written, and the file, whose name says nothing."""
    path = tmp_path / "file"
    request.param(path)
    return request.param, path


def is_view(array) -> bool:
    """Whether the array's bytes are those of a mapped file."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(getattr(array, "obj", array), mmap.mmap)


def test_names_and_numbers(written):
    write, path = written
    found = formats.read(path)
    assert formats.format_of(path) == containers.FORMATS[write]
    assert found.keys() == containers.TENSORS.keys()
    for name, value in containers.TENSORS.items():
        assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype), name
        assert np.array_equal(np.asarray(found[name]), value), name
        if write.__name__ not in COPIED and not (write is containers.pickled_jax and name == "head/steps"):
            assert is_view(found[name]) and not found[name].flags.writeable, name
