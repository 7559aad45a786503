//! State in a file: every number as it is in memory, little-endian, so that what is read
//! back is the same bit for bit; with a header, so that nothing else is taken for it.

/// What a file begins with.
const MAGIC: [u8; 4] = *b"HFSC";
/// Of the layout of everything that is kept: to be raised with any change of it. State
/// of another version is refused and learnt anew.
pub const VERSION: u16 = 2;
/// Magic, version, checksum and length.
const HEADER: usize = 4 + 2 + 4 + 8;

/// Why kept state cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is not a file of ours.
    Foreign,
    /// It was written by a version that kept other things.
    Version(u16),
    /// It is damaged or ends too early.
    Damaged,
    /// It is of something else: other metrics, or another interval.
    Other,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Foreign => f.write_str("it is no kept state of the scorer"),
            Self::Version(version) => write!(f, "its layout is version {version}, not {VERSION}"),
            Self::Damaged => f.write_str("it is damaged, or ends too early"),
            Self::Other => f.write_str("it is of other metrics, or of another interval"),
        }
    }
}

impl std::error::Error for Refusal {}

/// Puts a header before `body`.
#[must_use]
pub fn seal(body: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(HEADER + body.len());
    file.extend(MAGIC);
    VERSION.put(&mut file);
    crc32fast::hash(body).put(&mut file);
    (body.len() as u64).put(&mut file);
    file.extend(body);
    file
}

/// What was sealed.
///
/// # Errors
///
/// A [`Refusal`] when it is anything else, or not all of it.
pub fn unseal(file: &[u8]) -> Result<&[u8], Refusal> {
    let rest = &mut &*file;
    let magic = <[u8; 4]>::take(rest).ok_or(Refusal::Damaged)?;
    if magic != MAGIC {
        return Err(Refusal::Foreign);
    }
    let version = u16::take(rest).ok_or(Refusal::Damaged)?;
    if version != VERSION {
        return Err(Refusal::Version(version));
    }
    let checksum = u32::take(rest).ok_or(Refusal::Damaged)?;
    let length = u64::take(rest).ok_or(Refusal::Damaged)?;
    let whole = length == rest.len() as u64 && crc32fast::hash(rest) == checksum;
    if whole { Ok(rest) } else { Err(Refusal::Damaged) }
}

/// Something that can be put into bytes and taken out again.
pub trait Keep: Sized {
    /// Appends itself.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes itself from the front; `None` when it is not there.
    fn take(from: &mut &[u8]) -> Option<Self>;
}

macro_rules! numbers {
    ($($number:ty)+) => {$(
        impl Keep for $number {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(Self::from_le_bytes(*bytes))
            }
        }
    )+};
}
numbers!(u8 i8 u16 u32 u64 f32 f64);

impl Keep for usize {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u64).put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Self::try_from(u64::take(from)?).ok()
    }
}

impl Keep for bool {
    fn put(&self, out: &mut Vec<u8>) {
        u8::from(*self).put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        match u8::take(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl<T: Keep, const N: usize> Keep for [T; N] {
    fn put(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|item| item.put(out));
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let items: Option<Vec<T>> = (0..N).map(|_| T::take(from)).collect();
        items?.try_into().ok()
    }
}

impl<T: Keep> Keep for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.len().put(out);
        self.iter().for_each(|item| item.put(out));
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let length = usize::take(from)?;
        // A length that lies takes no more memory than there are bytes.
        let most = from.len() / size_of::<T>().max(1) + 1;
        let mut items = Self::with_capacity(length.min(most));
        for _ in 0..length {
            items.push(T::take(from)?);
        }
        Some(items)
    }
}

impl<T: Keep> Keep for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(item) = self {
            item.put(out);
        }
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        if bool::take(from)? { T::take(from).map(Some) } else { Some(None) }
    }
}

impl<T: Keep> Keep for Box<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (**self).put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        T::take(from).map(Self::new)
    }
}

impl Keep for String {
    fn put(&self, out: &mut Vec<u8>) {
        self.len().put(out);
        out.extend(self.as_bytes());
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let length = usize::take(from)?;
        let (text, rest) = from.split_at_checked(length)?;
        *from = rest;
        Self::from_utf8(text.to_vec()).ok()
    }
}

/// Keeps a structure field by field.
macro_rules! keep {
    ($structure:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::keep::Keep for $structure {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::keep::Keep::put(&self.$field, out);)+
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: $crate::keep::Keep::take(from)?),+ })
            }
        }
    };
}
pub(crate) use keep;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Sample {
        numbers: Vec<f32>,
        maybe: Option<u64>,
        name: String,
        pair: [f64; 2],
    }
    keep!(Sample { numbers, maybe, name, pair });

    fn sample() -> Sample {
        Sample {
            numbers: vec![1.5, f32::MIN_POSITIVE, -0.0],
            maybe: Some(7),
            name: "a".into(),
            pair: [f64::MAX, 0.1],
        }
    }

    #[test]
    fn what_is_put_is_taken_and_no_part_of_it_will_do() {
        let mut bytes = Vec::new();
        sample().put(&mut bytes);
        let file = seal(&bytes);
        let mut body = unseal(&file).unwrap();
        assert_eq!(Sample::take(&mut body), Some(sample()));
        assert!(body.is_empty());
        for length in 0..file.len() {
            assert_eq!(unseal(&file[..length]), Err(Refusal::Damaged), "{length}");
        }
        for length in 0..bytes.len() {
            assert_eq!(Sample::take(&mut &bytes[..length]), None, "{length}");
        }
    }

    #[test]
    fn other_files_are_refused_and_say_why() {
        assert_eq!(unseal(b"PK\x03\x04 and so on, quite long"), Err(Refusal::Foreign));
        let mut newer = seal(b"x");
        newer[4] = 9;
        assert_eq!(unseal(&newer), Err(Refusal::Version(9)));
        let mut flipped = seal(b"numbers");
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(unseal(&flipped), Err(Refusal::Damaged));
    }

    #[test]
    fn a_length_that_lies_takes_no_memory() {
        let mut bytes = Vec::new();
        u64::MAX.put(&mut bytes);
        bytes.extend([0; 8]);
        assert_eq!(<Vec<u64>>::take(&mut &*bytes), None);
        assert_eq!(String::take(&mut &*bytes), None);
    }
}
