"""verl on a machine without an accelerator.

verl 0.9.1 has no CPU platform (upstream issue #3266). This package adds one through the documented plug-in points, so
that installing the project is all it takes: :mod:`.plugin` is an entry point of ``verl.plugins``, :mod:`.vllm_linear` one
of ``vllm.general_plugins``; both do nothing unless :mod:`.detect` chooses the CPU. :mod:`.platform` is the platform,
:mod:`.patches` the few places where verl has no seam, each with its reason and the version that it is for.
"""
