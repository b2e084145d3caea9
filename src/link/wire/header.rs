//! The header of a frame, the sizes that bound a frame, and what may be wrong with its bytes.

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 8;
/// Bytes of the largest frame, header and all.
pub const FRAME_BYTES_MAX: usize = 16_384;
/// Bytes of the largest body.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_BYTES;
/// Bytes of a DATA frame before its payload: the header and the offset.
pub const DATA_HEAD_BYTES: usize = HEADER_BYTES + 8;
/// Bytes of the largest payload of one DATA frame.
pub const DATA_BYTES_MAX: usize = FRAME_BYTES_MAX - DATA_HEAD_BYTES;
/// Types from here on are skipped by those who do not know them.
pub const EXTENSION_FIRST: u8 = 0x80;
/// The highest offset of a stream, and of the session: far from where arithmetic could overflow.
pub const OFFSET_MAX: u64 = 1 << 62;

const _: () = assert!(BODY_BYTES_MAX <= u16::MAX as usize && DATA_BYTES_MAX == 16_368);

/// What is wrong with bytes that should be a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The header announces more than a frame may hold.
    TooLarge,
    /// The body ends within a field.
    Short,
    /// The body goes on after its last field.
    Long,
    /// A required type that this version does not know.
    UnknownKind(u8),
    /// A field holds a value that has no meaning.
    Value,
}

/// The first eight bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The frame's type: a constant of [`kind`].
    pub kind: u8,
    /// Bits whose meaning depends on the type; unknown ones are ignored.
    pub flags: u8,
    /// Bytes of the body, at most [`BODY_BYTES_MAX`].
    pub len: usize,
    /// What the frame is about: a stream, a listener, a subflow, or 0.
    pub id: u32,
}

impl Header {
    /// Reads a header; fails with [`FrameError::TooLarge`] before anything of the announced size exists.
    pub fn decode(bytes: [u8; HEADER_BYTES]) -> Result<Header, FrameError> {
        let [kind, flags, len_high, len_low, a, b, c, d] = bytes;
        let len = usize::from(u16::from_be_bytes([len_high, len_low]));
        if len > BODY_BYTES_MAX {
            return Err(FrameError::TooLarge);
        }
        Ok(Header { kind, flags, len, id: u32::from_be_bytes([a, b, c, d]) })
    }

    /// The bytes of the header.
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let [len_high, len_low] = u16::try_from(self.len).unwrap_or(u16::MAX).to_be_bytes();
        let [a, b, c, d] = self.id.to_be_bytes();
        [self.kind, self.flags, len_high, len_low, a, b, c, d]
    }
}
