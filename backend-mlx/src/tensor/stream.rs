//! The stream of the calling thread, and its device.

use std::cell::OnceCell;

use mlx_rs::{DeviceType, Stream};

/// What tensors are computed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    Cpu,
    Gpu,
}

thread_local! {
    /// Made once per thread: libmlx frees streams only in bulk.
    static STREAM: OnceCell<(Stream, Device)> = const { OnceCell::new() };
}

/// Runs `work`, which may build and evaluate tensors, with the thread's stream on the process's default device.
/// [`crate::raw::start`] must have succeeded first.
pub(crate) fn on_stream<T>(work: impl FnOnce(Device) -> T) -> T {
    STREAM.with(|stream| {
        let (stream, device) = stream.get_or_init(|| {
            let device = mlx_rs::Device::try_default().and_then(|device| device.get_type());
            let device = match device {
                Ok(DeviceType::Gpu) => Device::Gpu,
                Ok(DeviceType::Cpu) | Err(_) => Device::Cpu,
            };
            let own = match device {
                Device::Gpu => mlx_rs::Device::gpu(),
                Device::Cpu => mlx_rs::Device::cpu(),
            };
            (Stream::new_with_device(&own), device)
        });
        mlx_rs::with_stream(stream, || work(*device))
    })
}
