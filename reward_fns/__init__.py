"""What an answer means and what it is worth. Standard library only, so that any verl recipe can point at a module here:

``reward.custom_reward_function.path=pkg://reward_fns.exclusion reward.custom_reward_function.name=compute_score``

or at its file in this folder, whole and under its name, ``path=/…/reward_fns/exclusion.py``, with nothing installed.

=================  =====================================================================================
``names``          how an answer may name a candidate: labels, texts, what normalising removes
``answers``        reading a response: whom it excludes, or which order it gives
``exclusion``      the reward of one exclusion: published, corrected, graded, cost-aware
``direct``         the reward of a whole ranking: nDCG, reciprocal rank
``shaping``        what both share: form, length
``audit``          what a reward function pays policies whose worth is known, and the faults that it has
=================  =====================================================================================
"""
