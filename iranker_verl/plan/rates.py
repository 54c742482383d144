"""What a machine reaches: rates that ``iranker plan`` counts time with, each an option of it. None was measured here."""

from __future__ import annotations

from dataclasses import dataclass

from iranker_verl.options import option


@dataclass(frozen=True)
class Rates:
    """Rates and a price."""

    tflops: float = option(350.0, "TFLOP/s that a GPU reaches in bf16 (an H100: about 35 % of 989)", above=0)
    memory_rate: float = option(2000.0, "GB/s at which a GPU reads weights while it generates", above=0)
    link: float = option(200.0, "GB/s between GPUs of a node", above=0)
    network: float = option(20.0, "GB/s a GPU between nodes", above=0)
    host_rate: float = option(20.0, "GB/s between a GPU and its host's memory", above=0)
    disk_rate: float = option(1.0, "GB/s at which checkpoints are written", above=0)
    token_ms: float = option(5.0, "milliseconds of a generated token beside reading weights", least=0)
    driver: float = option(2.0, "seconds of a step in the driver", least=0)
    row_ms: float = option(0.2, "milliseconds a row in the driver", least=0)
    price: float | None = option(None, "price of a GPU for an hour, in any currency", least=0)
