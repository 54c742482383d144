"""Out of domain: does a model that learned to rank still do other things? By lm-eval, base against trained.

:mod:`.tasks` says which tasks there are and where their data comes from, :mod:`.side` runs one model over them in a
process of its own, :mod:`.compare` puts two models side by side. `iranker evaluate-generic` is all three
(:mod:`iranker_verl.job.out_of_domain`).

lm-eval and what it needs are imported only where they are used.
"""
