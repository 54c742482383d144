"""IRanker-COT (arXiv 2506.21638): reasoning traces of a training, as worked examples for a model that was not trained.

:mod:`.collect`   select reasoning traces from the trainer's rollouts
:mod:`.store`     the two files of a store of traces
:mod:`.retrieve`  find the traces whose contexts are similar to a task's
:mod:`.template`  a few-shot prompt template over another template
:mod:`.leaks`     prove that no trace in a store is of a test query
"""
