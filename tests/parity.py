"""flaim against timm: the same weights, the same images, the same numbers."""

import jax
import numpy as np
import torch

import flaim_core as core
from flaim.models import Model
from tests import oracle

# flaim's leaf name to torch's; every other name is the same in both.
TORCH_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
# Axes of a leaf in flaim, by its layout, as positions in torch's.
FROM_TORCH = {"io": (1, 0), "hwio": (2, 3, 1, 0), "wio": (2, 1, 0), "": None}
# Buffers that torch modules keep beside their parameters and statistics.
BUFFERS = ("num_batches_tracked", "relative_position_index", "attn_mask")


def torch_name(path: str) -> str:
    """timm's name of the leaf at `path`, `"params/conv1/kernel"` -> `"conv1.weight"`."""
    *parents, name = path.split("/")[1:]
    return ".".join([*parents, TORCH_NAMES.get(name, name)])


def variables_from(spec: dict, state: dict[str, np.ndarray]) -> dict:
    """The variables that `spec` describes, from torch's `state`; names and shapes must match one to one."""
    state = {name: value for name, value in state.items() if not name.endswith(BUFFERS)}
    leaves = core.flatten(spec)
    names = {path: torch_name(path) for path in leaves}
    missing, extra = set(names.values()) - set(state), set(state) - set(names.values())
    assert not missing and not extra, f"timm lacks {sorted(missing)[:8]}, flaim lacks {sorted(extra)[:8]}"
    flat = {}
    for path, leaf in leaves.items():
        value, axes = state[names[path]], FROM_TORCH[leaf.layout]
        if leaf.layout == "io" and value.shape[2:] == (1, 1):  # a 1x1 convolution in timm
            value = value[..., 0, 0]
        value = value if axes is None else value.transpose(axes)
        assert value.shape == leaf.shape, f"{path}: timm has {value.shape}, flaim {leaf.shape}"
        flat[path] = jax.numpy.asarray(value)
    return core.unflatten(flat)


def assert_parity(
    model: Model, reference: torch.nn.Module, *, tolerance: float = 1e-5, images: np.ndarray | None = None
) -> dict:
    """Check that `model` gives the output of `reference` with its weights; return the variables."""
    variables = variables_from(model.spec(), oracle.state(reference))
    images = oracle.image(model.input_size, channels=model.in_channels) if images is None else images
    found = jax.jit(lambda v, x: model.apply(v, x).value)(variables, images)
    error = oracle.relative_error(found, oracle.run(reference, images))
    assert error <= tolerance, f"{model.name}: relative error {error:.2e}"
    return variables


def assert_gradient_parity(
    model: Model, reference: torch.nn.Module, *, tolerance: float = 1e-4, images: np.ndarray | None = None
) -> None:
    """Check the gradient of a random linear function of the output with respect to every parameter.

    `tolerance` is relative to the largest value in any gradient.
    """
    variables = variables_from(model.spec(), oracle.state(reference))
    images = oracle.image(model.input_size, channels=model.in_channels) if images is None else images
    output = reference(oracle.to_torch(images))
    weights = np.random.default_rng(3).standard_normal(output.shape, dtype=np.float32).astype(images.dtype)
    (output * torch.from_numpy(weights)).sum().backward()
    state = {name: parameter.grad.numpy() for name, parameter in reference.named_parameters()}
    params = {"params": model.spec()["params"]}
    expected = core.flatten(variables_from(params, state))

    def loss(params):
        return (model.apply({**variables, "params": params}, images).value * weights).sum()

    found = core.flatten({"params": jax.jit(jax.grad(loss))(variables["params"])})
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for path, gradient in found.items():
        error = np.abs(gradient - expected[path]).max() / largest
        assert error <= tolerance, f"{path}: gradient off by {error:.2e} of the largest"


def assert_same_output(model, variables, reference) -> None:
    """Check that a model with these variables gives the output of `reference`."""
    images = oracle.image(model.input_size, channels=model.in_channels)
    found = jax.jit(lambda v, x: model.apply(v, x).value)(variables, images)
    assert oracle.relative_error(found, oracle.run(reference, images)) < 1e-5


def assert_heads_and_intermediates_parity(model: Model, reference: torch.nn.Module) -> None:
    """Check the final map, what the last linear layer gets, and all intermediates; timm's may lack our first, the stem.

    Also that `feature_info` says what their channels are.
    """
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(model.input_size)
    with torch.no_grad():
        features, maps = reference.forward_intermediates(oracle.to_torch(images))
        pooled = reference.forward_head(features, pre_logits=True)

    names = [feature.name for feature in model.feature_info]
    pattern = names[0].replace("0", "*")

    def run(variables, images):
        final = model.replace(n_classes=0).apply(variables, images, capture=pattern)
        return final, model.replace(n_classes=-1).apply(variables, images).value

    final, pooled_found = jax.jit(run)(variables, images)
    if final.value.shape != tuple(features.shape):  # Swin's are channels last
        features = features.permute(0, 2, 3, 1)
    assert oracle.relative_error(final.value, features) < 1e-5
    assert oracle.relative_error(pooled_found, pooled) < 1e-5
    assert list(final.intermediates) == names and len(names) - len(maps) in (0, 1)
    for name, expected in zip(names[len(names) - len(maps) :], maps):
        assert oracle.relative_error(final.intermediates[name], expected.permute(0, 2, 3, 1)) < 1e-5
    assert [feature.channels for feature in model.feature_info][-len(maps) :] == [y.shape[1] for y in maps]
