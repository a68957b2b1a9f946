"""Writes the tiny random checkpoints, their GGUF and MLX forms, and the reference logits.

    python scripts/oracle/make_tiny.py --out tests/fixtures [--llama-cpp FOLDER]

FOLDER is an unpacked llama.cpp tree; without it the sdist of llama-cpp-python is fetched by pip into a temporary
folder for its converter. Needs the packages of requirements.txt. Replaces only what it makes.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

import oracle_file
from hf_oracle import HfModel
from tiny_models import TINY, Tiny, write_checkpoint

LLAMA_CPP_PYTHON = "llama-cpp-python==0.3.36"
SHARDED = "tiny-qwen2"
VARIANTS_OF = "tiny-llama"
# Two float32 engines differ by about 1e-6 of the largest logit: greedy ids with this margin are safe to compare.
SMALLEST_MARGIN = 2e-3


def fetch_llama_cpp(folder: Path) -> Path:
    """The llama.cpp tree inside the pinned sdist."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python",
                    "--dest", folder, LLAMA_CPP_PYTHON], check=True)
    with tarfile.open(next(folder.glob("llama_cpp_python-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("llama_cpp_python-*/vendor/llama.cpp"))


def empty(folder: Path) -> Path:
    """`folder`, existing and empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def check_margins(name: str, entries: dict[str, np.ndarray]) -> None:
    """Stops where a greedy step is too close to call."""
    for key, margins in entries.items():
        if key.endswith("greedy_margin"):
            largest = np.abs(entries[key.replace("greedy_margin", "logits")]).max()
            relative = margins.min() / largest
            print(f"{name} {key}: smallest {relative:.1e} of max |logit| {largest:.2f}")
            if relative < SMALLEST_MARGIN:
                sys.exit(f"{name}: a greedy step is decided by too little; choose another seed")


def write_gguf(tiny: Tiny, checkpoint: Path, out: Path, llama_cpp: Path) -> None:
    """The checkpoint as GGUF with float32 weights."""
    script = Path(__file__).with_name("gguf_export.py")
    subprocess.run([sys.executable, script, llama_cpp, tiny.dialect, checkpoint, out], check=True)


def write_sharded(source: Path, target: Path) -> None:
    """The same checkpoint in two shards with an index."""
    from transformers import AutoModelForCausalLM

    empty(target)
    AutoModelForCausalLM.from_pretrained(source).save_pretrained(target, max_shard_size="300KB")
    for file in source.iterdir():
        if file.suffix == ".json":
            shutil.copy(file, target)
    shards = sorted(p.name for p in target.glob("*.safetensors"))
    assert shards == [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)], shards


def write_checkpoints(out: Path, llama_cpp: Path) -> None:
    """Hugging Face directories, GGUF files and transformers' logits."""
    for tiny in TINY:
        folder = empty(out / tiny.name)
        write_checkpoint(tiny, folder, tiny.seed)
        model = HfModel(folder)
        entries = oracle_file.collect(model.logits)
        check_margins(tiny.name, entries)
        oracle_file.save(entries, out / "oracle" / f"{tiny.name}.safetensors", "transformers 5.23.0, float32, eager")
        write_gguf(tiny, folder, out / f"{tiny.name}.gguf", llama_cpp)
    write_sharded(out / SHARDED, out / f"{SHARDED}-sharded")


def write_mlx(out: Path) -> None:
    """MLX directories and mlx-lm's logits; also that mlx-lm agrees with transformers on the plain checkpoints."""
    from mlx_variants import VARIANTS, MlxModel, write_variant
    from safetensors.numpy import load_file

    prompts = oracle_file.prompts()
    for name in [tiny.name for tiny in TINY] + [f"{SHARDED}-sharded"]:
        expected = load_file(out / "oracle" / f"{name.removesuffix('-sharded')}.safetensors")
        model = MlxModel(out / name)
        for prompt, ids in prompts.items():
            difference = oracle_file.worst(model.logits(ids), expected[f"{prompt}.logits"])
            print(f"{name} {prompt}: mlx-lm against transformers {difference:.1e}")
            assert difference < 1e-5
    for variant in VARIANTS:
        name = f"{VARIANTS_OF}-mlx-{variant.name}"
        write_variant(variant, out / VARIANTS_OF, out / name)
        entries = oracle_file.collect(MlxModel(out / name).logits, variant.prompts)
        if variant.bits is not None:
            dense = MlxModel(out / name, dense=True).logits(prompts["prompt_short"])
            difference = oracle_file.worst(dense, entries["prompt_short.logits"])
            print(f"{name}: dequantised against packed {difference:.1e}")
            assert difference < 1e-5
        for key, margins in entries.items():
            if key.endswith("greedy_margin"):
                print(f"{name} {key}: smallest {margins.min():.1e}")
        oracle_file.save(entries, out / "oracle" / f"{name}.safetensors", "mlx-lm 0.32.2, widened to float32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--llama-cpp", type=Path)
    args = parser.parse_args()
    (args.out / "oracle").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        write_checkpoints(args.out, args.llama_cpp or fetch_llama_cpp(Path(scratch)))
    write_mlx(args.out)


if __name__ == "__main__":
    main()
