"""Measures mlx-lm on a model directory, weights dequantised to float32, OpenBLAS in front, compile off.

    python scripts/oracle/mlx_lm_speed.py --model models/SmolLM2-135M-Instruct-mlx --openblas FOLDER [--json FILE]

FOLDER is an unpacked or installed scipy_openblas32 (its names carry a prefix, so a forwarder is compiled with cc and
preloaded; without --openblas the wheel's reference BLAS runs, about fifty times slower in prefill). --packed keeps
the quantised matrices, scales widened to float32.

The loop is mlx-lm's own generate_step, which has one decode step in flight. Prefill rate = prompt tokens / time to
the first token, decode rate = 1 / median gap between later ones; each from a fresh cache, after one warm-up.

With --widths 1,2,4,8,16 it measures mlx-lm's BatchGenerator instead: so many sequences at each of --depths, tokens per
second of all of them together between their second and their last step. `--example batch` prints the same of duet.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

READY = "DUET_ORACLE_OPENBLAS"


def blas_names(libmlx: Path) -> list[str]:
    """The BLAS and LAPACK functions that libmlx wants from outside."""
    listing = subprocess.run(["nm", "-D", "--undefined-only", libmlx], check=True, capture_output=True, text=True)
    names = [line.split()[-1] for line in listing.stdout.splitlines()]
    return [n for n in names if n.startswith("cblas_") or (n.endswith("_") and not n.startswith("_"))]


def restart_with_openblas(folder: Path, threads: int) -> None:
    """Compiles the forwarder and executes this script again with it preloaded."""
    import importlib.util

    libmlx = Path(importlib.util.find_spec("mlx.core").origin).parent / "lib" / "libmlx.so"
    library = next(folder.rglob("libscipy_openblas.so"))
    scratch = Path(tempfile.mkdtemp())
    jumps = "\n".join(f".globl {n}\n.type {n},@function\n{n}: jmp scipy_{n}@PLT" for n in blas_names(libmlx))
    source = scratch / "forward.s"
    source.write_text(f".text\n{jumps}\n.section .note.GNU-stack,\"\",@progbits\n")
    forwarder = scratch / "libforward.so"
    subprocess.run(["cc", "-shared", "-o", forwarder, source, library, f"-Wl,-rpath,{library.parent}"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(forwarder), READY: str(library), "OPENBLAS_NUM_THREADS": str(threads)}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def gemm_rate() -> float:
    """GFLOP/s of a 32-row float32 product: shows which BLAS is in front."""
    import mlx.core as mx

    a, b = mx.random.normal((32, 1536)), mx.random.normal((1536, 576))
    mx.eval(a @ b)
    start = time.perf_counter()
    for _ in range(20):
        mx.eval(a @ b)
    return 20 * 2 * 32 * 1536 * 576 / (time.perf_counter() - start) / 1e9


def run(model, prompt: list[int], n_tokens: int) -> tuple[float, list[float]]:
    """Seconds to the first token and gaps between the later ones."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step

    times = [time.perf_counter()]
    for _ in generate_step(mx.array(prompt), model, max_tokens=n_tokens):
        times.append(time.perf_counter())
    return times[1] - times[0], [b - a for a, b in zip(times[1:], times[2:])]


def run_batch(model, width: int, depth: int, steps: int) -> float:
    """Tokens per second of `width` sequences that all decode, after prompts of `depth` tokens."""
    from mlx_lm.generate import BatchGenerator

    prompts = [[500 + (at * 7919 + 131 * row) % 20_000 for at in range(depth)] for row in range(width)]
    generator = BatchGenerator(model, max_tokens=steps + 2, completion_batch_size=width, prefill_batch_size=width)
    generator.insert(prompts)
    times = []
    while responses := generator.next_generated():
        if len(responses) == width:
            times.append(time.perf_counter())
    generator.close()
    if len(times) < steps:
        raise SystemExit(f"only {len(times)} of {steps} steps had {width} rows")
    return width * (len(times) - 2) / (times[-1] - times[1])


def measure_batches(model, args) -> None:
    """Prints a table: depth, width, the median rate and each round's. Rounds are whole, so all is measured in turns."""
    widths, depths = ([int(one) for one in text.split(",")] for text in (args.widths, args.depths))
    print(f"{'depth':>8} {'width':>8}  median tok/s (each round)")
    for depth in depths:
        rates = {width: [] for width in widths}
        for _ in range(args.repetitions):
            for width in widths:
                rates[width].append(run_batch(model, width, depth, args.decode_tokens))
        for width, each in rates.items():
            shown = " ".join(f"{rate:.2f}" for rate in each)
            print(f"{depth:>8} {width:>8}  {statistics.median(each):8.2f}  ({shown})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--openblas", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--decode-tokens", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--packed", action="store_true")
    parser.add_argument("--widths", help="measure the batch generator at these widths")
    parser.add_argument("--depths", default="16,1024")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.openblas and READY not in os.environ:
        restart_with_openblas(args.openblas, args.threads)

    import mlx.core as mx
    import mlx_lm
    import numpy as np

    from mlx_variants import MlxModel

    load_start = time.perf_counter()
    model = MlxModel(args.model, dense=not args.packed)
    load_seconds = time.perf_counter() - load_start
    if args.widths:
        print(f"mlx {mx.__version__}, mlx-lm {mlx_lm.__version__}, {args.threads} threads, {gemm_rate():.1f} GFLOP/s")
        return measure_batches(model.model, args)
    vocab = model.config["vocab_size"]
    rng = np.random.Generator(np.random.PCG64(1))
    prompt = rng.integers(vocab // 8, vocab, args.prompt_tokens).tolist()
    run(model.model, prompt, 8)
    first, gaps = [], []
    for _ in range(args.repetitions):
        seconds, later = run(model.model, prompt, args.decode_tokens + 1)
        first.append(seconds)
        gaps.append(statistics.median(later))
    result = {
        "mlx": mx.__version__, "mlx_lm": mlx_lm.__version__, "machine": platform.processor() or platform.machine(),
        "weights": "packed" if args.packed else "dequantised float32", "openblas": os.environ.get(READY),
        "threads": args.threads, "gemm_32_rows_gflops": round(gemm_rate(), 1), "load_s": round(load_seconds, 3),
        "prompt_tokens": args.prompt_tokens, "decode_tokens": args.decode_tokens,
        "prefill_tok_s": [round(args.prompt_tokens / s, 2) for s in first],
        "decode_tok_s": [round(1 / g, 3) for g in gaps],
        "load_average": os.getloadavg(),
    }
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    for key, value in result.items():
        print(f"{key}: {value}")
    for name in ("prefill_tok_s", "decode_tok_s"):
        print(f"median {name}: {statistics.median(result[name])}")


if __name__ == "__main__":
    main()
