//! GGUF metadata values: typed views over the header's bytes, decoded when asked for.

use std::ops::Range;

use super::cursor::{Cursor, MAX_STRING_BYTES};
use crate::model::ModelFileError;

/// More elements than any vocabulary or merge list has.
const MAX_ARRAY_LEN: u64 = 1 << 26;

/// A metadata value. Integers and floats are widened; the file's exact width is of no use to anybody.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// UINT8, UINT16, UINT32, UINT64.
    Unsigned(u64),
    /// INT8, INT16, INT32, INT64.
    Signed(i64),
    /// FLOAT32, FLOAT64.
    Float(f64),
    /// BOOL; every non-zero byte is true, as in ggml.
    Bool(bool),
    /// STRING; UTF-8 by the format, which is checked where text is asked for.
    String(&'a [u8]),
    /// ARRAY of any of the above.
    Array(Array<'a>),
}

impl Value<'_> {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Unsigned(_) | Self::Signed(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
        }
    }

    /// The integer; `None` if it is another kind of value or negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(value) => Some(value),
            Self::Signed(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    /// The number as a float; `None` for anything but numbers.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Float(value) => Some(value),
            Self::Unsigned(value) => Some(value as f64),
            Self::Signed(value) => Some(value as f64),
            _ => None,
        }
    }

    /// The flag; `None` for anything but booleans and the integers 0 and 1 (which some writers use).
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => match self.as_u64() {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => None,
            },
        }
    }
}

/// An array of scalars or strings, checked for length when the file was opened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    ty: ElementType,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// How many elements it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether its elements are strings.
    pub fn is_strings(&self) -> bool {
        self.ty == ElementType::String
    }

    /// The elements, in order, as they are decoded.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let Self { ty, len, mut bytes } = *self;
        (0..len).map_while(move |_| {
            let (value, rest) = ty.decode(bytes)?;
            bytes = rest;
            Some(value)
        })
    }

    /// The elements as unsigned integers; `None` if one is not.
    pub fn to_u64s(&self) -> Option<Vec<u64>> {
        self.iter().map(|value| value.as_u64()).collect()
    }

    /// The elements as flags; `None` if one is not.
    pub fn to_bools(&self) -> Option<Vec<bool>> {
        self.iter().map(|value| value.as_bool()).collect()
    }

    /// The elements' raw bytes, for strings (tokens and merges need not be UTF-8); `None` for any other type.
    pub fn strings(&self) -> Option<impl Iterator<Item = &'a [u8]> + use<'a>> {
        self.is_strings().then(|| {
            self.iter().filter_map(|value| match value {
                Value::String(bytes) => Some(bytes),
                _ => None,
            })
        })
    }
}

/// The type of a value that is no array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ElementType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    U64,
    I64,
    F64,
}

const ARRAY_ID: u32 = 9;

impl ElementType {
    fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::String,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// Bytes per element; for strings the least, their length field.
    fn size(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
        }
    }

    /// The first value in `bytes` and what follows it; `None` if `bytes` is too short.
    fn decode(self, bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
        Some(match self {
            Self::U8 => head(bytes, |b: [u8; 1]| Value::Unsigned(b[0].into()))?,
            Self::I8 => head(bytes, |b| Value::Signed(i8::from_le_bytes(b).into()))?,
            Self::U16 => head(bytes, |b| Value::Unsigned(u16::from_le_bytes(b).into()))?,
            Self::I16 => head(bytes, |b| Value::Signed(i16::from_le_bytes(b).into()))?,
            Self::U32 => head(bytes, |b| Value::Unsigned(u32::from_le_bytes(b).into()))?,
            Self::I32 => head(bytes, |b| Value::Signed(i32::from_le_bytes(b).into()))?,
            Self::F32 => head(bytes, |b| Value::Float(f32::from_le_bytes(b).into()))?,
            Self::Bool => head(bytes, |b: [u8; 1]| Value::Bool(b[0] != 0))?,
            Self::U64 => head(bytes, |b| Value::Unsigned(u64::from_le_bytes(b)))?,
            Self::I64 => head(bytes, |b| Value::Signed(i64::from_le_bytes(b)))?,
            Self::F64 => head(bytes, |b| Value::Float(f64::from_le_bytes(b)))?,
            Self::String => {
                let (len, rest) = bytes.split_first_chunk()?;
                let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
                let (text, rest) = rest.split_at_checked(len)?;
                (Value::String(text), rest)
            }
        })
    }
}

fn head<const N: usize>(
    bytes: &[u8],
    make: impl Fn([u8; N]) -> Value<'static>,
) -> Option<(Value<'_>, &[u8])> {
    let (value, rest) = bytes.split_first_chunk()?;
    Some((make(*value), rest))
}

/// A value's place in the header.
#[derive(Debug, Clone)]
pub(super) struct StoredValue {
    ty: ElementType,
    /// `None`: a single value.
    array_len: Option<usize>,
    bytes: Range<usize>,
}

impl StoredValue {
    /// Passes over the type and the value that follow at the cursor, checking all lengths in them.
    pub(super) fn read(cursor: &mut Cursor<'_>, key: &str) -> Result<Self, ModelFileError> {
        let type_at = cursor.position();
        let unknown = |cursor: &Cursor<'_>, id| {
            Err(cursor.malformed_at(type_at, format!("key {key:?} has the unknown value type {id}")))
        };
        let id = cursor.u32()?;
        if id != ARRAY_ID {
            let Some(ty) = ElementType::from_id(id) else { return unknown(cursor, id) };
            let bytes = read_elements(cursor, key, ty, 1)?;
            return Ok(Self { ty, array_len: None, bytes });
        }
        let id = cursor.u32()?;
        if id == ARRAY_ID {
            return Err(cursor.malformed_at(type_at, format!("key {key:?} is an array of arrays")));
        }
        let Some(ty) = ElementType::from_id(id) else { return unknown(cursor, id) };
        let len = cursor.u64()?;
        cursor.check_limit(format_args!("the length of the array {key:?}"), len, MAX_ARRAY_LEN)?;
        let bytes = read_elements(cursor, key, ty, len)?;
        Ok(Self { ty, array_len: Some(len as usize), bytes })
    }

    /// The value, given the header it was read from.
    pub(super) fn view<'a>(&self, header: &'a [u8]) -> Option<Value<'a>> {
        let bytes = header.get(self.bytes.clone())?;
        match self.array_len {
            Some(len) => Some(Value::Array(Array { ty: self.ty, len, bytes })),
            None => self.ty.decode(bytes).map(|(value, _)| value),
        }
    }
}

/// Passes over `n` elements.
fn read_elements(
    cursor: &mut Cursor<'_>,
    key: &str,
    ty: ElementType,
    n: u64,
) -> Result<Range<usize>, ModelFileError> {
    let Some(least) = n.checked_mul(ty.size()) else {
        return Err(cursor.malformed(format!("key {key:?} has {n} elements")));
    };
    if ty != ElementType::String {
        return cursor.take(least);
    }
    cursor.check_remaining(least)?;
    let start = cursor.position() as usize;
    for _ in 0..n {
        cursor.string(format_args!("the length of a string under {key:?}"), MAX_STRING_BYTES)?;
    }
    Ok(start..cursor.position() as usize)
}
