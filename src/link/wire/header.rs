//! The header of a frame, the limits on its size, and the errors of decoding.

/// Length of a frame's header in bytes.
pub const HEADER_BYTES: usize = 8;
/// Maximum length of a frame in bytes, including its header.
pub const FRAME_BYTES_MAX: usize = 16_384;
/// Maximum length of a frame's body in bytes.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_BYTES;
/// Length in bytes of what precedes the payload of a DATA frame: the header and the offset.
pub const DATA_HEAD_BYTES: usize = HEADER_BYTES + 8;
/// Maximum payload of one DATA frame in bytes.
pub const DATA_BYTES_MAX: usize = FRAME_BYTES_MAX - DATA_HEAD_BYTES;
/// Length in bytes of what precedes the payload of a DATAGRAM_PART frame: the header and three numbers.
pub const PART_HEAD_BYTES: usize = HEADER_BYTES + 12;
/// The first type of the range of extensions: a node that does not know such a type skips the frame.
pub const EXTENSION_FIRST: u8 = 0x80;
/// The highest offset of a stream and of a session, low enough that sums of offsets cannot overflow.
pub const OFFSET_MAX: u64 = 1 << 62;

const _: () = assert!(BODY_BYTES_MAX <= u16::MAX as usize && DATA_BYTES_MAX == 16_368);

/// An error in the bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The header announces more bytes than a frame may have.
    TooLarge,
    /// The body ends within a field.
    Short,
    /// The body continues after its last field.
    Long,
    /// The type is a required one that this version does not know.
    UnknownKind(u8),
    /// A field holds an undefined value.
    Value,
}

/// The first eight bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type of the frame: a constant of [`kind`](super::frame::kind).
    pub kind: u8,
    /// Flags; their meaning depends on the type, and unknown ones are ignored.
    pub flags: u8,
    /// Length of the body in bytes, at most [`BODY_BYTES_MAX`].
    pub len: usize,
    /// The stream, listener or subflow that the frame concerns, or 0.
    pub id: u32,
}

impl Header {
    /// Decodes a header. Fails with [`FrameError::TooLarge`] before anything of the announced length is allocated.
    pub fn decode(bytes: [u8; HEADER_BYTES]) -> Result<Header, FrameError> {
        let [kind, flags, len_high, len_low, a, b, c, d] = bytes;
        let len = usize::from(u16::from_be_bytes([len_high, len_low]));
        if len > BODY_BYTES_MAX {
            return Err(FrameError::TooLarge);
        }
        Ok(Header { kind, flags, len, id: u32::from_be_bytes([a, b, c, d]) })
    }

    /// Returns the encoded header.
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let [len_high, len_low] = u16::try_from(self.len).unwrap_or(u16::MAX).to_be_bytes();
        let [a, b, c, d] = self.id.to_be_bytes();
        [self.kind, self.flags, len_high, len_low, a, b, c, d]
    }
}
