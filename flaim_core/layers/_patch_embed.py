from collections.abc import Callable

from jaxtyping import Array, Float

from flaim_core import initializers
from flaim_core.layers._conv import conv, pair
from flaim_core.scope import Scope, kernel


@kernel
def patch_embed(
    scope: Scope,
    x: Float[Array, "b h w c"],
    dim: int,
    *,
    patch_size: int | tuple[int, int],
    bias: bool = True,
    norm: Callable | None = None,
    drop_remainder: bool = False,
) -> Float[Array, "b h2 w2 d"]:
    """Linear embedding of non-overlapping patches: a map of `h / patch_size` x `w / patch_size` tokens.

    Paths: `proj`, a convolution; `norm` if `norm`, a kernel, is given. Raises ValueError if the image does not divide
    into patches; `drop_remainder` leaves out the remaining pixels instead.
    Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021), section 3.1.
    """
    patch = pair(patch_size)
    # Symbolic sizes cannot be checked here. Leaves whose shapes depend on the size are checked by `require_fixed`.
    known = all(isinstance(n, int) for n in x.shape[1:3])
    if known and not drop_remainder and (x.shape[1] % patch[0] or x.shape[2] % patch[1]):
        raise ValueError(
            f"an image of {x.shape[1]}x{x.shape[2]} does not divide into patches of {patch[0]}x{patch[1]}; "
            "choose an input size for which it does"
        )
    x = conv(
        scope["proj"],
        x,
        dim,
        kernel_size=patch,
        stride=patch,
        padding=0,
        bias=bias,
        kernel_init=initializers.lecun_normal,
    )
    return x if norm is None else norm(scope["norm"], x)


@kernel
def overlap_patch_embed(
    scope: Scope,
    x: Float[Array, "b h w c"],
    dim: int,
    *,
    patch_size: int,
    stride: int,
    norm: Callable,
) -> Float[Array, "b h2 w2 d"]:
    """Embedding of overlapping patches of an odd side: a map of `h / stride` x `w / stride` tokens, rounded up.

    Paths: `proj`, a convolution; `norm`, a kernel. Wang et al., "PVT v2" (2022), section 3.2.
    """
    padding = patch_size // 2
    return norm(scope["norm"], conv(scope["proj"], x, dim, kernel_size=patch_size, stride=stride, padding=padding))
