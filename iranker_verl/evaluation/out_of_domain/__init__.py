"""Out-of-domain evaluation: lm-eval on the model before and after it learned to rank.

:mod:`.tasks` defines the tasks and where their data comes from, :mod:`.side` evaluates one model on them in a process of
its own, :mod:`.compare` compares the two. `iranker evaluate-out-of-domain` does all three
(:mod:`iranker_verl.job.out_of_domain`). lm-eval is imported only where it is used.
"""
