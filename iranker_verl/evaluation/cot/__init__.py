"""IRanker-COT (arXiv 2506.21638): reasoning traces of a training, as worked examples for a model that was not trained.

:mod:`.collect`   select reasoning traces from the trainer's rollouts
:mod:`.store`     the two files of a store of traces
:mod:`.retrieve`  find the traces whose contexts are similar to a task's
:mod:`.template`  a few-shot prompt template over another template
:mod:`.leaks`     prove that no trace in a store is of a test query
:mod:`.prepared`  the template and the proof for prepared data
"""

from iranker_verl.evaluation.cot.collect import collect_traces
from iranker_verl.evaluation.cot.leaks import Proof, prove_no_leaks
from iranker_verl.evaluation.cot.prepared import with_traces
from iranker_verl.evaluation.cot.retrieve import Bm25Retriever, EmbeddingRetriever, Retriever, load_encoder
from iranker_verl.evaluation.cot.store import ReasoningTrace, Store, read_traces, write_traces
from iranker_verl.evaluation.cot.template import FewShotTemplate

__all__ = [
    "Bm25Retriever",
    "EmbeddingRetriever",
    "FewShotTemplate",
    "Proof",
    "ReasoningTrace",
    "Retriever",
    "Store",
    "collect_traces",
    "load_encoder",
    "prove_no_leaks",
    "read_traces",
    "with_traces",
    "write_traces",
]
