"""The whole job behind `iranker train`: prepare, base, reinforcement learning, evaluation before and after, report.

:mod:`.pipeline` runs the stages in order and skips what is done; :mod:`.stages` is what each does, in a process of its own;
:mod:`.supervise` starts those processes, shows their progress and leaves none behind.
"""
