"""Equinox modules for the nodes of a parameter tree; their classes are named after the kernels that run there."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import wadler_lindig as wl
from jaxtyping import Array, PRNGKeyArray

import flaim_core as core
from flaim.adapters._common import asking_for_key
from flaim.adapters._sites import Site
from flaim_core.leaf import stable_hash
from flaim_core.tree import merge

# Equinox's own layers that take one sample with its channels first.
_CHANNELS_FIRST = (
    eqx.nn.Conv,
    eqx.nn.ConvTranspose,
    eqx.nn.Pool,
    eqx.nn.AdaptivePool,
    eqx.nn.GroupNorm,
)


class Node(eqx.Module):
    """A node of the parameter tree: leaves and child nodes are attributes, and `node[0]` is the child called "0".

    A node with a kernel can be called.
    """

    _children: dict[str, Any]
    _site: Site = eqx.field(static=True)

    def __init__(self, site: Site, params: Mapping):
        self._site = site
        self._children = {
            name: _node(site.below(name, child), child) if isinstance(child, Mapping) else child
            for name, child in params.items()
        }

    def __getattr__(self, name: str) -> Any:
        children = vars(self).get("_children", {})  # none yet while the module is being made
        if name not in children:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return children[name]

    def __getitem__(self, index: int | slice) -> Any:
        """The node called `index`; negative ones count from the last."""
        if isinstance(index, slice):
            return list(self)[index]
        numbers = self._numbers()
        if index < 0 and -index <= len(numbers):
            index = numbers[index]
        if index not in numbers:
            raise IndexError(f"there is no node {index}")
        return self._children[str(index)]

    def __len__(self) -> int:
        """The number of numbered nodes."""
        return len(self._numbers())

    def __iter__(self) -> Iterator[Any]:
        """The numbered nodes."""
        return (self._children[str(number)] for number in self._numbers())

    def __bool__(self) -> bool:
        """True, even without numbered nodes."""
        return True

    def _numbers(self) -> list[int]:
        return sorted(int(name) for name in self._children if name.isdigit())

    def __pdoc__(self, **options: Any) -> wl.AbstractDoc:
        """How Equinox prints it: as if the children were fields."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if not name.startswith("_")}
        docs = wl.named_objs({**self._children, **fields}.items(), **options)
        begin, end = wl.TextDoc(f"{type(self).__name__}("), wl.TextDoc(")")
        return wl.bracketed(begin=begin, docs=docs, sep=wl.comma, end=end, indent=options["indent"])

    def __call__(
        self,
        x: Any,
        state: eqx.nn.State | None = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
        axis_name: Any = None,
        **arrays: Any,
    ) -> Any:
        """The output of the node's kernel for one sample or a batch, with the model's options and the leaves below.

        If `state` is given, the new state is returned too. `inference` is required if the kernel behaves differently
        in training. `arrays` are other inputs of the kernel, or options that override the model's.
        """
        site = self._site
        if site.call is not None and inference is None and site.path in site.record.modal:
            raise TypeError(f"{site.path} runs otherwise in training: call it with inference=True or False")
        if site.call is not None and state is None and site.has_norms:
            raise ValueError(f"{site.path} has running statistics: call it with the model's state")
        variables, modules = split(self)
        entry = None
        if state is not None:
            entry, variables["batch_stats"] = _find_stats(state, site)
        options = {"training": inference is False, "key": key, "axis_name": axis_name}
        output = run(
            site,
            variables,
            modules,
            x,
            arrays,
            single=site.call is not None and x.ndim == len(site.call.x.shape) - 1,
            **options,
        )
        if state is None:
            return output.value
        if entry is not None:
            state = _with_stats(state, entry, site, output.batch_stats)
        return output.value, state


@functools.cache
def node_class(name: str) -> type[Node]:
    """The class of nodes whose kernel has this class name."""
    return type(name, (Node,), {"__module__": __name__, "__doc__": Node.__doc__})


def __getattr__(name: str) -> type[Node]:
    """The class of a node by name, for pickle."""
    if not name[:1].isupper():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return node_class(name)


def _node(site: Site, params: Mapping) -> Node:
    return node_class(site.kind)(site, params)


def run(
    target: Any,
    variables: Mapping,
    modules: Mapping[str, Callable],
    x: Any,
    arrays: Mapping,
    *,
    single: bool,
    training: bool,
    key: PRNGKeyArray | None,
    axis_name: Any,
    **options: Any,
) -> core.Output:
    """Apply `target` (a `Model`, a layer or a site) to a batch or to a single sample."""
    if single:
        x, arrays = (
            jax.tree.map(lambda leaf: leaf[None], x),
            {name: v[None] if getattr(v, "ndim", 0) else v for name, v in arrays.items()},
        )
    prefix = target.join if isinstance(target, Site) else str
    options["axis_name"] = axis_name
    with asking_for_key("key=jax.random.key(...)"):
        output = target.apply(
            variables,
            x,
            training=training,
            rng=key if training else None,
            modules={path: _on_samples(module, prefix(path), key) for path, module in modules.items()},
            **arrays,
            **options,
        )
    if not single:
        return output
    value, intermediates = jax.tree.map(lambda y: y[0], (output.value, output.intermediates))
    return output._replace(value=value, intermediates=intermediates)


def _on_samples(module: Callable, path: str, key: PRNGKeyArray | None) -> Callable:
    """A function that calls `module` on each sample of a batch, with a separate key if it takes one."""
    try:
        takes_key = "key" in inspect.signature(module).parameters
    except ValueError:  # a function written in C
        takes_key = False

    def one(x: Array, key: PRNGKeyArray | None) -> Array:
        call = functools.partial(module, key=key) if takes_key else module
        if isinstance(module, _CHANNELS_FIRST):
            return jnp.moveaxis(call(jnp.moveaxis(x, -1, 0)), 0, -1)
        if type(module) is eqx.nn.Linear:
            call = functools.reduce(lambda call, _: jax.vmap(call), range(x.ndim - 1), call)
        return call(x)

    def on_batch(x: Array) -> Array:
        keys = None
        if key is not None and takes_key:
            own = functools.reduce(jax.random.fold_in, map(stable_hash, path.split("/")), key)
            keys = jax.random.split(own, x.shape[0])
        try:
            return jax.vmap(one, (0, None if keys is None else 0))(x, keys)
        except Exception as error:
            error.add_note(
                f"This is the {type(module).__name__} at {path}: it is given single samples, channels last, of shape "
                f"{x.shape[1:]} here, and must return what the kernel there would."
            )
            raise

    return on_batch


def split(node: Node, every: bool = False) -> tuple[dict, dict[str, Callable]]:
    """The parameters below a node as a canonical tree, and, by path, the modules that replaced a node.

    With `every`, the leaves of flaim's own modules among them are read too.
    """
    params: dict = {}
    modules: dict[str, Callable] = {}
    for name, child in node._children.items():
        if isinstance(child, Node) and (every or child._site.path):  # layers and models have no path
            below, foreign = split(child, every)
            params[name] = below["params"]
            modules |= {f"{name}/{path}": module for path, module in foreign.items()}
        elif callable(child):
            modules[name] = child
        else:
            params[name] = child
    return {"params": params}, modules


def _find_stats(state: eqx.nn.State, site: Site) -> tuple[Any, Mapping]:
    """The state's entry for the running statistics of the node at `site`, and these; (None, {}) if there is none."""
    values, markers = state.tree_flatten()
    found: dict[Any, Mapping] = {}
    for marker, value in zip(markers, values):
        node = functools.reduce(
            lambda tree, name: tree.get(name) if isinstance(tree, Mapping) else None, site.parts, value
        )
        if isinstance(node, Mapping):
            found[marker] = node
    if len(found) > 1:
        raise ValueError(f"{site.path}: several models in this state have statistics there; call it with a substate")
    return next(iter(found.items()), (None, {}))


def _with_stats(state: eqx.nn.State, entry: Any, site: Site, stats: Mapping) -> eqx.nn.State:
    """`state` with new running statistics for the node at `site`."""
    values, markers = state.tree_flatten()
    updates = {site.parts + tuple(path.split("/")): leaf for path, leaf in core.flatten(stats).items()}
    new = [merge(value, updates) if marker == entry else value for marker, value in zip(markers, values)]
    return type(state).tree_unflatten(markers, new)
