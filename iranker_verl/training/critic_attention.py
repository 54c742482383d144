"""Entry point of the group ``verl.plugins``: a critic where the package ``flash_attn`` is not installed, on a CPU or a GPU.

``verl.utils.model.load_valuehead_model`` (verl 0.9.1) asks for flash attention 2 whatever the config says; without that
package, which has no wheels on PyPI, the critic fails with the misleading "not a value head model, please install trl".
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from iranker_verl.training import verl_version


def apply() -> None:
    """Load value heads with the attention that ``critic.model`` names. Nothing changes where ``flash_attn`` can be imported."""
    if find_spec("flash_attn"):  # first: transformers takes seconds to import
        return
    import transformers

    model: Any = transformers.AutoModelForTokenClassification
    original = model.from_pretrained.__func__
    if getattr(original, "patched", False):
        return
    verl_version.require("the critic without flash attention")

    def from_pretrained(cls: type, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("attn_implementation") == "flash_attention_2":
            # the critic's worker gets a config that is made elsewhere, where verl imports critic.model.external_lib
            from iranker_verl.training import packed_attention as _packed_attention  # noqa: F401 (registers it)

            named = getattr(kwargs.get("config"), "_attn_implementation", None)
            kwargs["attn_implementation"] = named if named and named != "flash_attention_2" else "sdpa"
        return original(cls, *args, **kwargs)

    from_pretrained.patched = True  # type: ignore[attr-defined]
    model.from_pretrained = classmethod(from_pretrained)


apply()
