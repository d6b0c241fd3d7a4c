//! A frame as a file: a head with a checksum of its own, then the payload.
//!
//! The head, little endian: `SIDELOG1`, then `u64` schema, first and last `observed_timestamp`, `u32` records, records that
//! the ledger counts, payload length and CRC-32 of the payload, `u16` lengths of id and subject, id, subject, and last the
//! `u32` CRC-32 of all of it. So a look at the first bytes tells how many records a file holds.
//!
//! Invariants:
//! - What is read is what was written, or damaged (`whatever_is_changed_in_a_file_is_found`).
//! - Nothing is allocated on the word of a file whose checksum doesn't hold.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use sidelog_record::frame::Frame;

use crate::shipping::outgoing::Outgoing;

const MAGIC: &[u8; 8] = b"SIDELOG1";
const FIXED: usize = 8 + 3 * 8 + 4 * 4 + 2 * 2;
/// What ids and subjects take at most; NATS itself takes subjects of 4 KiB.
const MAX_NAMES: usize = 8 * 1024;
/// What a disk takes at least for a file, and in steps of what.
const BLOCK: u64 = 4096;

/// What the head of a file tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    id: String,
    subject: String,
    schema: u64,
    first_observed: u64,
    /// The latest `observed_timestamp`, in unix nanoseconds.
    pub last_observed: u64,
    count: u32,
    /// Records that the ledger counts.
    pub counted: u32,
    payload_len: u32,
    payload_crc: u32,
}

/// What a file with this payload takes on disk.
pub fn size_on_disk(outgoing: &Outgoing) -> u64 {
    let head = FIXED + outgoing.id.len() + outgoing.subject.len() + 4;
    blocks((head + outgoing.frame.payload.len()) as u64)
}

/// The size of a file, in whole blocks.
pub fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK).max(1) * BLOCK
}

/// The head that goes before the payload. `None` if a length can't be written.
pub fn head(outgoing: &Outgoing) -> Option<Vec<u8>> {
    let frame = &outgoing.frame;
    let mut out = Vec::with_capacity(FIXED + outgoing.id.len() + outgoing.subject.len() + 4);
    out.extend_from_slice(MAGIC);
    for value in [outgoing.schema, frame.first_observed, frame.last_observed] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    let payload_len = u32::try_from(frame.payload.len()).ok()?;
    for value in [
        frame.count,
        outgoing.counted,
        payload_len,
        crc32fast::hash(&frame.payload),
    ] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    for text in [&*outgoing.id, &*outgoing.subject] {
        out.extend_from_slice(&u16::try_from(text.len()).ok()?.to_le_bytes());
    }
    out.extend_from_slice(outgoing.id.as_bytes());
    out.extend_from_slice(outgoing.subject.as_bytes());
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    Some(out)
}

/// Reads a head.
///
/// # Errors
/// `InvalidData` when it is damaged; else what reading answered.
pub fn read_head(file: &mut impl Read) -> io::Result<Head> {
    let mut bytes = vec![0; FIXED];
    file.read_exact(&mut bytes)?;
    let (id_len, subject_len) = match bytes.last_chunk::<4>() {
        Some([a, b, c, d]) => (
            usize::from(u16::from_le_bytes([*a, *b])),
            usize::from(u16::from_le_bytes([*c, *d])),
        ),
        None => return Err(damaged()),
    };
    if !bytes.starts_with(MAGIC) || id_len + subject_len > MAX_NAMES {
        return Err(damaged());
    }
    bytes.resize(FIXED + id_len + subject_len + 4, 0);
    file.read_exact(bytes.get_mut(FIXED..).unwrap_or_default())?;
    parse(&bytes, id_len, subject_len).ok_or_else(damaged)
}

/// Reads the payload behind a head.
///
/// # Errors
/// `InvalidData` when it is damaged; else what reading answered.
pub fn read_payload(head: Head, file: &mut impl Read) -> io::Result<Outgoing> {
    let mut payload = Vec::new();
    file.take(u64::from(head.payload_len) + 1).read_to_end(&mut payload)?;
    if payload.len() != head.payload_len as usize || crc32fast::hash(&payload) != head.payload_crc {
        return Err(damaged());
    }
    payload.shrink_to_fit();
    Ok(Outgoing {
        id: head.id,
        subject: Arc::from(head.subject),
        schema: head.schema,
        counted: head.counted,
        frame: Frame {
            payload: Bytes::from(payload),
            count: head.count,
            first_observed: head.first_observed,
            last_observed: head.last_observed,
        },
    })
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the file is damaged")
}

fn parse(bytes: &[u8], id_len: usize, subject_len: usize) -> Option<Head> {
    let (covered, crc) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut rest = covered.get(MAGIC.len()..)?;
    let mut u64_ = || take::<8>(&mut rest).map(u64::from_le_bytes);
    let (schema, first_observed, last_observed) = (u64_()?, u64_()?, u64_()?);
    let mut u32_ = || take::<4>(&mut rest).map(u32::from_le_bytes);
    let (count, counted, payload_len, payload_crc) = (u32_()?, u32_()?, u32_()?, u32_()?);
    let (id, subject) = covered.get(FIXED..)?.split_at_checked(id_len)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some(Head {
        id: text(id)?,
        subject: text(subject.get(..subject_len)?)?,
        schema,
        first_observed,
        last_observed,
        count,
        counted,
        payload_len,
        payload_crc,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipping::outgoing::tests::outgoing;
    use proptest::prelude::*;

    fn written(outgoing: &Outgoing) -> Vec<u8> {
        let mut bytes = head(outgoing).unwrap();
        bytes.extend_from_slice(&outgoing.frame.payload);
        bytes
    }

    fn read(mut bytes: &[u8]) -> io::Result<Outgoing> {
        let head = read_head(&mut bytes)?;
        read_payload(head, &mut bytes)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut frame = outgoing("0190-7", 3, 100);
        frame.counted = 0;
        let bytes = written(&frame);
        assert_eq!(read(&bytes).unwrap(), frame);
        assert_eq!(size_on_disk(&frame), blocks(bytes.len() as u64));
    }

    #[test]
    fn a_file_takes_at_least_a_block() {
        assert_eq!([0, 1, 4096, 4097].map(blocks), [4096, 4096, 4096, 8192]);
    }

    proptest! {
        #[test]
        fn whatever_is_changed_in_a_file_is_found(at in any::<prop::sample::Index>(), flip in 1..=255_u8, cut in any::<prop::sample::Index>()) {
            let whole = written(&outgoing("0190-7", 3, 100));
            let mut changed = whole.clone();
            changed[at.index(whole.len())] ^= flip;
            prop_assert!(read(&changed).is_err());
            prop_assert!(read(&whole[..cut.index(whole.len())]).is_err());
            let mut longer = whole;
            longer.push(flip);
            prop_assert!(read(&longer).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
            let mut bytes = bytes;
            if magic {
                bytes.splice(0..0, MAGIC.iter().copied());
            }
            prop_assert!(read(&bytes).is_err());
        }
    }
}
