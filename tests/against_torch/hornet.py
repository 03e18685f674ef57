"""HorNet in torch, from the formulas of Rao et al. (2022), with the names of the authors' checkpoints."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tests import oracle


class Norm(nn.LayerNorm):
    """Layer norm of the channels, which are axis 1."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class GlobalLocalFilter(nn.Module):
    """A depthwise 3x3 convolution of half of the channels, a product of spectra for the others."""

    def __init__(self, dim: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.pre_norm, self.post_norm = Norm(dim), Norm(dim)
        self.dw = nn.Conv2d(dim // 2, dim // 2, 3, padding=1, groups=dim // 2, bias=False)
        self.complex_weight = nn.Parameter(torch.randn(dim // 2, *size, 2))

    def forward(self, x: Tensor) -> Tensor:
        near, far = self.pre_norm(x).tensor_split(2, 1)
        spectrum = torch.fft.rfft2(far, norm="ortho")
        weight = self.complex_weight.movedim(-1, 0)
        if weight.shape[2:] != spectrum.shape[2:]:
            weight = nn.functional.interpolate(weight, spectrum.shape[2:], mode="bilinear", align_corners=True)
        far = torch.fft.irfft2(spectrum * torch.complex(weight[0], weight[1]), far.shape[2:], norm="ortho")
        return self.post_norm(torch.stack([self.dw(near), far], 2).flatten(1, 2))


class RecursiveGatedConv(nn.Module):
    """p[k + 1] = f(q[k]) * g[k](p[k]) / scale, where all f are one depthwise convolution."""

    def __init__(self, dim: int, order: int, mix: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__()
        self.widths = [dim // 2 ** (order - 1 - k) for k in range(order)]
        total = sum(self.widths)
        self.proj_in, self.proj_out = nn.Conv2d(dim, 2 * dim, 1), nn.Conv2d(dim, dim, 1)
        self.dwconv = mix(total) if mix else nn.Conv2d(total, total, 7, padding=3, groups=total)
        self.pws = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(self.widths, self.widths[1:]))

    def forward(self, x: Tensor) -> Tensor:
        p, q = self.proj_in(x).tensor_split([self.widths[0]], 1)
        gates = (self.dwconv(q) / 3).split(self.widths, 1)
        p = p * gates[0]
        for g, gate in zip(self.pws, gates[1:]):
            p = g(p) * gate
        return self.proj_out(p)


class Block(nn.Module):
    def __init__(self, dim: int, order: int, mix: Callable[[int], nn.Module] | None) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(dim), Norm(dim)
        self.gnconv = RecursiveGatedConv(dim, order, mix)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.gamma1, self.gamma2 = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gamma1[:, None, None] * self.gnconv(self.norm1(x))
        hidden = nn.functional.gelu(self.pwconv1(self.norm2(x).movedim(1, -1)))
        return x + (self.gamma2 * self.pwconv2(hidden)).movedim(-1, 1)


class HorNet(nn.Module):
    """With `filters`, the size of a stage's global filter in frequencies, or None."""

    def __init__(
        self,
        dim: int,
        depths: Sequence[int],
        filters: Sequence[tuple[int, int] | None] = (None, None, None, None),
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        dims = [dim * 2**i for i in range(len(depths))]
        steps = [nn.Sequential(nn.Conv2d(3, dim, 4, stride=4), Norm(dim))]
        steps += [nn.Sequential(Norm(d), nn.Conv2d(d, 2 * d, 2, stride=2)) for d in dims[:-1]]
        self.downsample_layers, self.stages = nn.ModuleList(steps), nn.ModuleList()
        for i, (width, depth, size) in enumerate(zip(dims, depths, filters)):
            mix = (lambda total, size=size: GlobalLocalFilter(total, size)) if size else None
            self.stages.append(nn.Sequential(*(Block(width, i + 2, mix) for _ in range(depth))))
        self.norm, self.head = Norm(dims[-1]), nn.Linear(dims[-1], num_classes)

    def maps(self, x: Tensor) -> list[Tensor]:
        """What each stage gives."""
        found = []
        for step, stage in zip(self.downsample_layers, self.stages):
            x = stage(step(x))
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.maps(x)[-1].mean((2, 3))))


@torch.no_grad()
def randomise(module: nn.Module) -> nn.Module:
    """`oracle.randomise`, where spectra are of order one too: they are no kernels."""
    oracle.randomise(module.eval())
    generator = torch.Generator().manual_seed(1)
    for name, parameter in module.named_parameters():
        if name.endswith("complex_weight"):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module
