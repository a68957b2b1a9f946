//! ggml's own products, timed by themselves: matrices of the type and shape that a model has most of, in the buffers that
//! llama.cpp would put them in, and nothing around them.

use std::ffi::{CStr, CString, c_void};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use llama_cpp_sys_2 as sys;

use super::library;

/// Passes that are timed at least, and for how long: the fastest counts.
const N_PASSES: usize = 3;
const MOMENT: Duration = Duration::from_millis(250);
/// No more matrices than a graph is made for.
const MOST_MATRICES: usize = 4096;
/// Written to every byte of a matrix: small normal numbers in every format of ggml, halves and block scales included.
const FILL: u8 = 0x11;

/// What was timed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Timed {
    /// "q4_1 1536 × 576 in CPU".
    pub(crate) what: String,
    pub(crate) n_weights: u64,
    pub(crate) n_bytes: u64,
    pub(crate) time: Duration,
}

/// What is to be timed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Products<'a> {
    /// The model's file (the first shard of several).
    pub(crate) path: &'a Path,
    pub(crate) n_threads: u32,
    /// Whether llama.cpp was allowed the layouts that this CPU multiplies fastest.
    pub(crate) repack: bool,
    /// Rows of activations.
    pub(crate) n_rows: u32,
    /// Bytes of matrices, about; at least one is taken.
    pub(crate) n_bytes: u64,
}

/// Type and shape of a matrix, and how many bytes of such the model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    type_: sys::ggml_type,
    n_columns: i64,
    n_rows: i64,
    n_bytes: u64,
    one: u64,
}

impl Products<'_> {
    /// The fastest of a few passes.
    ///
    /// # Errors
    /// What cannot be had, in a sentence.
    pub(crate) fn time(&self) -> Result<Timed, String> {
        library();
        let kind = common(self.path)?;
        let wanted = self.n_bytes / kind.one.max(1);
        let n_matrices = usize::try_from(wanted).unwrap_or(MOST_MATRICES).clamp(1, MOST_MATRICES);
        let backend = Backend::best(self.n_threads)?;
        let weights = Arena::new(n_matrices)?;
        let describe = |_| {
            // SAFETY: a live arena with room for as many tensors; type and sizes are those of a tensor that ggml has read.
            unsafe { sys::ggml_new_tensor_2d(weights.0.as_ptr(), kind.type_, kind.n_columns, kind.n_rows) }
        };
        let matrices: Vec<*mut sys::ggml_tensor> = (0..n_matrices).map(describe).collect();
        let buffer_type = backend.buffer_type(matrices[0], self.n_rows, self.repack);
        // SAFETY: a live arena whose tensors have no memory yet, and a buffer type of a registered device.
        let buffer = Buffer::new(unsafe {
            sys::ggml_backend_alloc_ctx_tensors_from_buft(weights.0.as_ptr(), buffer_type)
        })?;
        let bytes = vec![FILL; usize::try_from(kind.one).map_err(|_| "a matrix beyond memory".to_owned())?];
        for matrix in &matrices {
            // SAFETY: a tensor of exactly as many bytes, in the buffer above.
            unsafe { sys::ggml_backend_tensor_set(*matrix, bytes.as_ptr().cast(), 0, bytes.len()) };
        }
        let graph = Graph::new(&backend, &matrices, kind.n_columns, self.n_rows)?;
        let time = best(|| graph.compute(&backend))?;
        // SAFETY: names are constant texts of ggml.
        let (type_name, place) = unsafe {
            (name(sys::ggml_type_name(kind.type_)), name(sys::ggml_backend_buft_name(buffer_type)))
        };
        drop(buffer);
        Ok(Timed {
            what: format!("{type_name} {} × {} in {place}", kind.n_rows, kind.n_columns),
            n_weights: n_matrices as u64 * kind.n_columns.unsigned_abs() * kind.n_rows.unsigned_abs(),
            n_bytes: n_matrices as u64 * kind.one,
            time,
        })
    }
}

/// The shortest time that `pass` took.
fn best(mut pass: impl FnMut() -> Result<(), String>) -> Result<Duration, String> {
    pass()?; // touches every page, and makes the threads
    let (begin, mut best, mut n) = (Instant::now(), Duration::MAX, 0);
    while n < N_PASSES || begin.elapsed() < MOMENT {
        let start = Instant::now();
        pass()?;
        best = best.min(start.elapsed());
        n += 1;
    }
    Ok(best)
}

/// A constant text of the library.
///
/// # Safety
/// Null, or a NUL-terminated text that lives as long as the process.
unsafe fn name(text: *const std::ffi::c_char) -> String {
    if text.is_null() {
        return "?".to_owned();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// The matrices of which the file has most, by bytes; the embedding table and the head are one each, and left out.
fn common(path: &Path) -> Result<Kind, String> {
    let c_path =
        CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| "a NUL in the path".to_owned())?;
    let mut tensors: *mut sys::ggml_context = ptr::null_mut();
    let params = sys::gguf_init_params { no_alloc: true, ctx: &raw mut tensors };
    // SAFETY: a NUL-terminated path and a place for the context, which is ours to free.
    let file = unsafe { sys::gguf_init_from_file(c_path.as_ptr(), params) };
    let (Some(file), Some(tensors)) = (NonNull::new(file), NonNull::new(tensors).map(Arena)) else {
        return Err("ggml does not read the file".to_owned());
    };
    let mut kinds: Vec<Kind> = Vec::new();
    // SAFETY: a live context; the walk ends with a null pointer.
    let mut tensor = unsafe { sys::ggml_get_first_tensor(tensors.0.as_ptr()) };
    while let Some(found) = NonNull::new(tensor) {
        // SAFETY: a tensor of the context, which lives until the end of this function.
        let (info, n_bytes) = unsafe { (*found.as_ptr(), sys::ggml_nbytes(found.as_ptr()) as u64) };
        let is_matrix = info.ne[1] > 1 && info.ne[2] == 1 && info.ne[3] == 1;
        // SAFETY: a name of the tensor, NUL-terminated within its array, alive as above.
        let name = unsafe { CStr::from_ptr((*found.as_ptr()).name.as_ptr()) }.to_bytes();
        if is_matrix && name.starts_with(b"blk.") {
            let alike = |kind: &&mut Kind| {
                (kind.type_, kind.n_columns, kind.n_rows) == (info.type_, info.ne[0], info.ne[1])
            };
            match kinds.iter_mut().find(alike) {
                Some(kind) => kind.n_bytes += n_bytes,
                None => kinds.push(Kind {
                    type_: info.type_,
                    n_columns: info.ne[0],
                    n_rows: info.ne[1],
                    n_bytes,
                    one: n_bytes,
                }),
            }
        }
        // SAFETY: as the first one.
        tensor = unsafe { sys::ggml_get_next_tensor(tensors.0.as_ptr(), found.as_ptr()) };
    }
    // SAFETY: ours, and not used any more; the tensors' context is freed by its owner.
    unsafe { sys::gguf_free(file.as_ptr()) };
    kinds
        .into_iter()
        .max_by_key(|kind| kind.n_bytes)
        .ok_or_else(|| "the model has no plain matrix".to_owned())
}

/// Where tensors are described, without their data.
struct Arena(NonNull<sys::ggml_context>);

impl Arena {
    fn new(n_tensors: usize) -> Result<Self, String> {
        // SAFETY: returns plain numbers.
        let per_tensor = unsafe { sys::ggml_tensor_overhead() };
        Self::of(per_tensor * (n_tensors + 1))
    }

    fn of(mem_size: usize) -> Result<Self, String> {
        let params = sys::ggml_init_params { mem_size, mem_buffer: ptr::null_mut(), no_alloc: true };
        // SAFETY: plain parameters; ggml allocates the memory itself.
        NonNull::new(unsafe { sys::ggml_init(params) }).map(Self).ok_or_else(|| "no memory".to_owned())
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { sys::ggml_free(self.0.as_ptr()) };
    }
}

/// Memory of tensors.
struct Buffer(NonNull<sys::ggml_backend_buffer>);

impl Buffer {
    fn new(pointer: *mut sys::ggml_backend_buffer) -> Result<Self, String> {
        NonNull::new(pointer).map(Self).ok_or_else(|| "no memory for the matrices".to_owned())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: ours, freed once; nothing computes on it any more.
        unsafe { sys::ggml_backend_buffer_free(self.0.as_ptr()) };
    }
}

/// A device's stream: a GPU's where there is one, as llama.cpp would choose, else the CPU's.
struct Backend(NonNull<sys::ggml_backend>);

impl Backend {
    fn best(n_threads: u32) -> Result<Self, String> {
        // SAFETY: no arguments; the devices are registered by `library`.
        let backend = NonNull::new(unsafe { sys::ggml_backend_init_best() }).map(Self);
        let backend = backend.ok_or_else(|| "ggml has no device".to_owned())?;
        // SAFETY: a live backend, of the kind that has threads.
        unsafe {
            if sys::ggml_backend_is_cpu(backend.0.as_ptr()) {
                let n_threads = i32::try_from(n_threads.max(1)).unwrap_or(i32::MAX);
                sys::ggml_backend_cpu_set_n_threads(backend.0.as_ptr(), n_threads);
            }
        }
        Ok(backend)
    }

    /// Where llama.cpp would put such a matrix: the first of the device's special layouts that can multiply with it, else
    /// its usual one.
    fn buffer_type(
        &self,
        matrix: *mut sys::ggml_tensor,
        n_rows: u32,
        repack: bool,
    ) -> sys::ggml_backend_buffer_type_t {
        // SAFETY: a live backend.
        let usual = unsafe { sys::ggml_backend_get_default_buffer_type(self.0.as_ptr()) };
        if !repack {
            return usual;
        }
        self.special_layouts()
            .into_iter()
            .find(|layout| self.multiplies(*layout, matrix, n_rows))
            .unwrap_or(usual)
    }

    /// The device's layouts beside its usual one.
    fn special_layouts(&self) -> Vec<sys::ggml_backend_buffer_type_t> {
        // SAFETY: a live backend has a device, and the device a registry; the name is a constant text.
        let (device, entry) = unsafe {
            let device = sys::ggml_backend_get_device(self.0.as_ptr());
            let registry = sys::ggml_backend_dev_backend_reg(device);
            (
                device,
                sys::ggml_backend_reg_get_proc_address(
                    registry,
                    c"ggml_backend_dev_get_extra_bufts".as_ptr(),
                ),
            )
        };
        if entry.is_null() {
            return Vec::new();
        }
        // SAFETY: under this name a registry gives a function of this type, or null.
        let entry =
            unsafe { std::mem::transmute::<*mut c_void, sys::ggml_backend_dev_get_extra_bufts_t>(entry) };
        // SAFETY: the device is the registry's own.
        let Some(list) = entry.and_then(|entry| NonNull::new(unsafe { entry(device) })) else {
            return Vec::new();
        };
        let mut layouts = Vec::new();
        // SAFETY: a list that ends with a null pointer and lives as long as the device.
        unsafe {
            let mut next = list.as_ptr();
            while !(*next).is_null() {
                layouts.push(*next);
                next = next.add(1);
            }
        }
        layouts
    }

    /// Whether the device multiplies with such a matrix in this layout. Asked as llama.cpp's loader asks: with a tensor
    /// that lies in an empty buffer of it.
    fn multiplies(
        &self,
        layout: sys::ggml_backend_buffer_type_t,
        matrix: *mut sys::ggml_tensor,
        n_rows: u32,
    ) -> bool {
        let Ok(arena) = Arena::new(2) else { return false };
        // SAFETY: a layout of this device; no memory is asked for.
        let Ok(empty) = Buffer::new(unsafe { sys::ggml_backend_buft_alloc_buffer(layout, 0) }) else {
            return false;
        };
        // SAFETY: live tensors; the matrix has no memory yet, and its buffer is set back before anything else happens.
        unsafe {
            let input = sys::ggml_new_tensor_2d(
                arena.0.as_ptr(),
                sys::GGML_TYPE_F32,
                (*matrix).ne[0],
                i64::from(n_rows),
            );
            let product = sys::ggml_mul_mat(arena.0.as_ptr(), matrix, input);
            (*matrix).buffer = empty.0.as_ptr();
            let does =
                sys::ggml_backend_dev_supports_op(sys::ggml_backend_get_device(self.0.as_ptr()), product);
            (*matrix).buffer = ptr::null_mut();
            does
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { sys::ggml_backend_free(self.0.as_ptr()) };
    }
}

/// One product with each matrix, all of the same input.
struct Graph {
    graph: *mut sys::ggml_cgraph,
    /// Freed before the arena that describes what lies in it.
    _buffer: Buffer,
    _arena: Arena,
}

impl Graph {
    fn new(
        backend: &Backend,
        matrices: &[*mut sys::ggml_tensor],
        n_columns: i64,
        n_rows: u32,
    ) -> Result<Self, String> {
        let n = matrices.len();
        // SAFETY: returns plain numbers.
        let size =
            unsafe { sys::ggml_tensor_overhead() * (n + 2) + sys::ggml_graph_overhead_custom(n + 2, false) };
        let arena = Arena::of(size)?;
        let context = arena.0.as_ptr();
        // SAFETY: an arena with room for all of these; each product's operands have matching lengths.
        let (graph, input) = unsafe {
            let input = sys::ggml_new_tensor_2d(context, sys::GGML_TYPE_F32, n_columns, i64::from(n_rows));
            let graph = sys::ggml_new_graph_custom(context, n + 2, false);
            for matrix in matrices {
                let product = sys::ggml_mul_mat(context, *matrix, input);
                if !sys::ggml_backend_dev_supports_op(
                    sys::ggml_backend_get_device(backend.0.as_ptr()),
                    product,
                ) {
                    return Err("the device has no product for such matrices".to_owned());
                }
                sys::ggml_build_forward_expand(graph, product);
            }
            (graph, input)
        };
        // SAFETY: a live arena whose tensors have no memory yet.
        let buffer =
            Buffer::new(unsafe { sys::ggml_backend_alloc_ctx_tensors(context, backend.0.as_ptr()) })?;
        let n_values = usize::try_from(n_columns).unwrap_or(0) * n_rows as usize;
        let values: Vec<f32> = (0..n_values).map(|index| 1.0 + (index % 7) as f32).collect();
        // SAFETY: the input has exactly as many bytes.
        unsafe {
            sys::ggml_backend_tensor_set(input, values.as_ptr().cast(), 0, size_of_val(values.as_slice()))
        };
        Ok(Self { graph, _buffer: buffer, _arena: arena })
    }

    /// Computes all products, and waits.
    fn compute(&self, backend: &Backend) -> Result<(), String> {
        // SAFETY: a live backend and a graph whose tensors all have memory.
        match unsafe { sys::ggml_backend_graph_compute(backend.0.as_ptr(), self.graph) } {
            sys::GGML_STATUS_SUCCESS => Ok(()),
            status => Err(format!("ggml's products failed ({status})")),
        }
    }
}
