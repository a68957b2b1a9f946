"""GGUF files of the tiny checkpoints, by llama.cpp's own converter.

The converter recognises a pre-tokenizer by hashing the ids of a test string, which can never match an invented
vocabulary. That one answer is given here by name; everything else (tensor names, Q/K permutation, rope factors,
metadata, special tokens) is the converter's work.
"""

import runpy
import sys
from pathlib import Path


def main() -> None:
    """gguf_export.py LLAMA_CPP_FOLDER PRE_TOKENIZER CHECKPOINT OUT.gguf"""
    llama_cpp, pre_tokenizer, checkpoint, out = sys.argv[1:]
    converter = Path(llama_cpp) / "convert_hf_to_gguf.py"
    sys.path[:0] = [llama_cpp, str(Path(llama_cpp) / "gguf-py")]
    from conversion.base import TextModel

    TextModel.get_vocab_base_pre = lambda self, tokenizer: pre_tokenizer
    sys.argv = [str(converter), checkpoint, "--outfile", out, "--outtype", "f32"]
    runpy.run_path(str(converter), run_name="__main__")


if __name__ == "__main__":
    main()
