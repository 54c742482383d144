"""Reward functions for verl recipes, standard library only.

A recipe points at a module:

``reward.custom_reward_function.path=pkg://reward_fns.exclusion reward.custom_reward_function.name=compute_score``

or, with nothing installed, at its file in a copy of this folder: ``path=/…/reward_fns/exclusion.py``.

=================  =====================================================================================
``names``          how an answer may name a candidate: labels, texts, what normalising removes
``answers``        reading a response: which candidate it excludes, or which order it gives
``exclusion``      the reward of one exclusion: published, corrected, graded, cost-aware
``direct``         the reward of a whole ranking: nDCG, reciprocal rank
``shaping``        what both share: form, length
=================  =====================================================================================
"""
