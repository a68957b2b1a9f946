//! mlx-c's half types and their four functions, which its headers declare on Arm alone. The shapes are those that bindgen
//! gives them there and that mlx-rs is written against.

use crate::mlx_array;

/// An IEEE 754 binary16 value by its bits.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct float16_t(pub u16);

/// A bfloat16 value by its bits.
pub type bfloat16_t = u16;

unsafe extern "C" {
    pub fn mlx_array_item_float16(res: *mut float16_t, arr: mlx_array) -> ::std::os::raw::c_int;
    pub fn mlx_array_item_bfloat16(res: *mut bfloat16_t, arr: mlx_array) -> ::std::os::raw::c_int;
    pub fn mlx_array_data_float16(arr: mlx_array) -> *const float16_t;
    pub fn mlx_array_data_bfloat16(arr: mlx_array) -> *const bfloat16_t;
}
