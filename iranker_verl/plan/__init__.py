"""What a recipe needs of GPUs, hosts, disk and time, counted before anything starts: ``iranker plan``.

* :mod:`.shape`: the model, built on torch's meta device from its ``config.json``;
* :mod:`.peak`: bytes that a pass through it keeps, counted while it runs on the meta device;
* :mod:`.placement`: what the composed recipe says about devices, sharding, offload and batches;
* :mod:`.memory`: memory of a GPU by part and phase, of a host, and disk;
* :mod:`.duration`: seconds and tokens of a step, money, and the step on other numbers of nodes;
* :mod:`.planner`: all of it together, whether it fits, and what would make it fit.

Constants that no config tells (a CUDA context, what a process takes) are named in :mod:`.memory` and :mod:`.duration`, with
where they come from.
"""
