//! duet: GGUF models through llama.cpp.
