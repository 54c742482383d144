"""What an answer means and what it is worth. Standard library only, so that any verl recipe can point at a module here:

``reward.custom_reward_function.path=pkg://reward_fns.exclusion reward.custom_reward_function.name=compute_score``
"""
