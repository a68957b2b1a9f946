//! Shows the bench that MLX computes with a .gguf file's own values.

use duet_bench::{ArmWeights, SameBits, TensorPair};

/// For the same .gguf file on llama.cpp, which keeps the file's blocks, and on MLX, which repacks or widens them.
pub(crate) struct Converted;

impl SameBits for Converted {
    fn compare(
        &self,
        a: &ArmWeights,
        b: &ArmWeights,
        each: &mut dyn FnMut(TensorPair<'_>),
    ) -> Result<(), String> {
        if a.model.files != b.model.files {
            return Err("the arms have different files".into());
        }
        let mlx = match (a.engine.as_str(), b.engine.as_str()) {
            ("gguf", "mlx") => b,
            ("mlx", "gguf") => a,
            (one, two) if one == two => return Err("both arms are the same engine on the same file".into()),
            (one, two) => return Err(format!("nothing here can compare {one} and {two}")),
        };
        duet_backend_mlx::show_weights(&mlx.model.path, mlx.weights, &mut |name, held, file| {
            each(TensorPair { name, a: file, b: held });
        })
        .map_err(|error| error.chain())
    }
}
