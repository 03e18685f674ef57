"""timm as the reference: its models, every parameter and statistic randomised, and their outputs as NumPy arrays."""

import numpy as np
import torch

from tests.numerics import relative_error as relative_error

# A CPU build of torch beside a CUDA build of torchvision lacks two operators that torchvision extends at import.
_torchvision_ops = torch.library.Library("torchvision", "DEF")
for _schema in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
):
    try:
        _torchvision_ops.define(_schema)
    except RuntimeError:  # already there: the two builds fit each other
        break

import timm  # noqa: E402


def create(name: str, *, seed: int = 0, **kwargs) -> torch.nn.Module:
    """timm's model `name` in evaluation mode, with no parameter or statistic left at its initial value."""
    return randomise(timm.create_model(name, pretrained=False, **kwargs).eval(), seed)


def create_meta(name: str, **kwargs) -> torch.nn.Module:
    """timm's model `name` without storage: names and shapes only."""
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False, **kwargs)


@torch.no_grad()
def randomise(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Randomise every parameter and statistic so that each counts and activations stay of order one."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=generator)

    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and name.endswith("weight"):  # linear and convolution kernels: variance-preserving
            parameter.copy_(normal(parameter) / parameter[0].numel() ** 0.5)
        elif parameter.ndim == 1 and not name.endswith("bias"):  # norm scales, layer scales
            parameter.copy_(1 + 0.2 * normal(parameter))
        else:  # biases, tables, tokens
            parameter.copy_(0.2 * normal(parameter))
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.2 * normal(buffer))
        elif name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model


def image(size: int | tuple[int, int], batch: int = 2, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Random channels-last images `(batch, height, width, channels)`, float32."""
    height, width = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(seed).standard_normal((batch, height, width, channels), dtype=np.float32)


def to_torch(images: np.ndarray) -> torch.Tensor:
    """Channels-last images as torch's channels-first ones."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


@torch.no_grad()
def run(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """The model's output for channels-last `images`."""
    return model(to_torch(images)).numpy()


def state(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """timm's state dict as NumPy arrays."""
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}
