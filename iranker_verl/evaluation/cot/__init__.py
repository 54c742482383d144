"""IRanker-COT (arXiv 2506.21638): thoughts that emerged in training, as worked examples for a model that was not trained.

:mod:`.collect`   from the trainer's rollouts to a store
:mod:`.store`     what a store holds, and its two files
:mod:`.retrieve`  which thoughts are of contexts like this one
:mod:`.template`  a prompt template that puts them in front
:mod:`.guard`     proof that no test query's thought is in a store
:mod:`.prepared`  the template and the proof, over prepared data
"""

from iranker_verl.evaluation.cot.collect import collect
from iranker_verl.evaluation.cot.leaks import Proof, guard
from iranker_verl.evaluation.cot.prepared import with_thoughts
from iranker_verl.evaluation.cot.retrieve import Bm25, Embeddings, Retriever, encoder
from iranker_verl.evaluation.cot.store import Store, Thought, read, write
from iranker_verl.evaluation.cot.template import ThoughtTemplate

__all__ = [
    "Bm25",
    "Embeddings",
    "Proof",
    "Retriever",
    "Store",
    "Thought",
    "ThoughtTemplate",
    "collect",
    "encoder",
    "guard",
    "read",
    "with_thoughts",
    "write",
]
