"""Run-time checks of every jaxtyping annotation, before anything of flaim is imported."""

from jaxtyping import install_import_hook

install_import_hook(["flaim", "flaim_core"], "beartype.beartype")
