import pytest

from tests import oracle
from tests.oracle import timm


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A function that has timm save one of its models, randomised, as it does for the Hub: (model, folder)."""
    made = {}

    def save(name: str, **kwargs):
        key = name, *sorted(kwargs.items())
        if key not in made:
            model = oracle.create(name, **kwargs)
            folder = tmp_path_factory.mktemp(name)
            timm.models.save_for_hf(model, folder, safe_serialization=True)
            made[key] = model, folder
        return made[key]

    return save
